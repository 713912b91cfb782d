// What the product logs while it is simulated, counted by what the lines say: for recovery branches that show
// nowhere else. The linker puts this in front of log_line() for the simulator alone (--wrap). One thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace cumulus {

// Lines with `part` in them since the program began; only parts of the table in log_lines.cc.
std::uint64_t log_lines_with(std::string_view part);

namespace lines {
inline constexpr std::string_view kFetchesDamaged = "fetching the segment from the miners";
inline constexpr std::string_view kSegmentFreed = "is not part of the log; its slot is freed";
inline constexpr std::string_view kSetAside = "it was set aside in";
inline constexpr std::string_view kGivenUp = "nothing more can be written to this volume";  // not when fenced
}  // namespace lines

}  // namespace cumulus
