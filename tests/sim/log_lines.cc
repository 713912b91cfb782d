#include "tests/sim/log_lines.h"

#include <array>

#include "objectstore/base/check.h"
#include "objectstore/base/log.h"

namespace cumulus {
namespace {

struct Counted {
  std::string_view part;
  std::uint64_t lines = 0;
};
std::array<Counted, 6> counted = {{{lines::kFetchesDamaged},
                                   {lines::kSegmentFreed},
                                   {lines::kSetAside},
                                   {lines::kIndexAhead},
                                   {lines::kFileAgain},
                                   {lines::kNoMoreWrites}}};

}  // namespace

std::uint64_t log_lines_with(std::string_view part) {
  for (const Counted& each : counted)
    if (each.part == part) return each.lines;
  CHECK(false);
  return 0;
}

// The names that ld gives to log_line() and to what stands in front of it.
void real_log_line(LogLevel level, std::string_view line) asm(
    "__real__ZN7cumulus8log_lineENS_8LogLevelESt17basic_string_viewIcSt11char_traitsIcEE");
void wrapped_log_line(LogLevel level, std::string_view line) asm(
    "__wrap__ZN7cumulus8log_lineENS_8LogLevelESt17basic_string_viewIcSt11char_traitsIcEE");

void wrapped_log_line(LogLevel level, std::string_view line) {
  for (Counted& each : counted)
    if (line.find(each.part) != std::string_view::npos) ++each.lines;
  real_log_line(level, line);
}

}  // namespace cumulus
