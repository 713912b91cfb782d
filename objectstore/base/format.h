// Text formatting in std::format's syntax. The only include of {fmt}, until the standard library has it.
#pragma once

#include <fmt/format.h>

namespace cumulus {
using fmt::format;
}  // namespace cumulus
