// Runs many seeds, in batches that are child processes: a simulated kill -9 leaves what it killed in memory,
// and a failed CHECK must not end the run. Several children at a time, one for each core if asked. The parent
// only waits, counts and tells how far it is. It must never decide what a seed does: that follows from its
// number alone. One thread in each process.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/sim/simulation.h"

namespace cumulus {

struct SeedRun {
  SimulationOptions options;
  std::uint64_t first = 1;
  std::uint64_t last = 1;
  unsigned children = 1;       // at a time
  bool make_up = false;        // further seeds after the last, for those that ended beyond repair
  bool past_failures = false;  // go on after a seed that failed
  bool progress = false;       // tell on standard output how far it is, every few seconds
  bool tell_each = false;      // a line for each seed
  // After this long no new batch begins, once `seeds_least` are done; 0: no limit.
  std::chrono::seconds time_most{0};
  std::uint64_t seeds_least = 0;
};

struct FailedSeed {
  std::uint64_t seed = 0;
  std::string what;   // the violation, or how the program died
  std::string story;  // the last things that happened, a line each
};

struct SeedReport {
  Tally tally;  // of the seeds that passed
  std::uint64_t passed = 0;
  std::uint64_t beyond_repair = 0;  // ended early and without their last check: not passed, not failed
  std::vector<FailedSeed> failures;
};

SeedReport run_seeds(const SeedRun& run);

// A whole number from 1 on, all of the text; nothing when it is anything else.
std::optional<std::uint64_t> parse_seed(const char* text);
// "A-B", B not before A.
std::optional<std::pair<std::uint64_t, std::uint64_t>> parse_seed_range(const char* text);

}  // namespace cumulus
