// Sizes as people write them: 4K, 10M, 1G, 2T are powers of 1024. Shared by both programs. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "objectstore/base/result.h"

namespace cumulus {

// "100", "4K", "1.5G", "10MiB", "2TB" (upper or lower case; always powers of 1024). invalid otherwise, or
// beyond 2^63.
Result<std::uint64_t> parse_size(std::string_view text);
// "100 B", "4.0 KiB", "1.5 GiB": for people.
std::string format_size(std::uint64_t bytes);
// "4K" where that is exact, else plain bytes: parse_size() reads it back.
std::string exact_size(std::uint64_t bytes);

}  // namespace cumulus
