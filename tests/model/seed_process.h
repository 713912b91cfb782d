// One seed's story in a child process: a simulated kill leaves what it killed in memory (tests/fakes/
// sim_runtime.h), and a failed CHECK ends the child only. The caller waits. One thread in each process.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace cumulus {

struct SeedOutcome {
  std::string failure;  // empty: none
  std::vector<std::uint64_t> counts;
};

// Whatever `story` makes is never destroyed. A child that dies is a failure, with what it said.
SeedOutcome run_in_child(const std::function<SeedOutcome()>& story);

// A whole number from the environment.
std::uint64_t number_of(const char* variable, std::uint64_t otherwise);

}  // namespace cumulus
