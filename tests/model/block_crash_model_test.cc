// Disks against a plain model, with the power cut at the borders of the log's groups and between them: random
// requests on several connections, snapshots, clones, sizes and rollbacks, in virtual time; then the process
// dies, the disk keeps what it may, the volume is opened again, and every disk and snapshot must be at one
// point of the history, not before what a FLUSH or FUA was answered for.
// CUMULUS_SEED and CUMULUS_SEEDS: crash_seeds.h.
#include <gtest/gtest.h>

#include "tests/model/block_history.h"
#include "tests/model/crash_seeds.h"

namespace cumulus {
namespace {

NewHistory history_with(BlockCanary canary) {
  return [canary](std::uint64_t seed, bool tell) { return new BlockHistory(seed, canary, tell); };
}

TEST(BlockCrashModel, EveryCrashLeavesAPrefix) {
  expect_every_seed_right(history_with(BlockCanary::none), 6);
}

// What the comparison must see, and soon.
TEST(BlockCrashCanaries, AForgottenFlushIsCaught) {
  expect_caught(history_with(BlockCanary::flush_forgotten), "no point of the history");
}
TEST(BlockCrashCanaries, AForgottenFuaIsCaught) {
  expect_caught(history_with(BlockCanary::fua_forgotten), "no point of the history");
}

}  // namespace
}  // namespace cumulus
