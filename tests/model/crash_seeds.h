// What the test programs of crash histories share: many seeds, each in a child process, since a simulated
// kill leaves what it killed in memory (tests/fakes/sim_runtime.h) and a failed CHECK ends the child only;
// and the program's main(), which is silent about what the volume logs unless CUMULUS_VERBOSE is set. The
// caller waits. One thread in each process.
//
//   CUMULUS_SEED=N       one seed, told aloud
//   CUMULUS_SEEDS=1000   that many, from CUMULUS_FIRST_SEED on
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "tests/model/crash_history.h"

namespace cumulus {

// A new history, told aloud or not, which nobody destroys, as its processes are not.
using NewHistory = std::function<CrashHistory*(std::uint64_t seed, bool tell)>;

// Each seed's run finds nothing wrong, and all of them together meet everything that a history counts: a test
// that never lost anything proves nothing. `seeds_of_gate`: when the environment says no other number.
void expect_every_seed_right(const NewHistory& make, std::uint64_t seeds_of_gate);

// One of the first forty seeds goes wrong, and says `verdict`.
void expect_caught(const NewHistory& make, const std::string& verdict);

}  // namespace cumulus
