#include "tests/sim/log_lines.h"

#include <array>

#include "objectstore/base/check.h"
#include "objectstore/base/log.h"

namespace cumulus {
namespace {

struct Counted {
  std::string_view part;
  std::string_view without;  // when it is not empty
  std::uint64_t lines = 0;
};
std::array<Counted, 4> counted = {{{lines::kFetchesDamaged, "", 0},
                                   {lines::kSegmentFreed, "", 0},
                                   {lines::kSetAside, "", 0},
                                   {lines::kGivenUp, "was opened for writing", 0}}};

bool says(std::string_view line, std::string_view part) { return line.find(part) != std::string_view::npos; }

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
    if (says(line, each.part) && (each.without.empty() || !says(line, each.without))) ++each.lines;
  real_log_line(level, line);
}

}  // namespace cumulus
