// A file system against a plain model, with the power cut at the borders of its log's groups and between
// them: random calls through the door, in virtual time; then the process dies, the disk keeps what it may,
// the volume is opened again, and what it shows must be the model's state after some prefix of the calls,
// not older than the last fsync and not older than SEMANTICS.md says.
// CUMULUS_SEED and CUMULUS_SEEDS: crash_seeds.h.
#include <gtest/gtest.h>

#include "tests/model/crash_seeds.h"
#include "tests/model/fs_history.h"

namespace cumulus {
namespace {

NewHistory history_with(FsCanary canary) {
  return [canary](std::uint64_t seed, bool tell) { return new FsHistory(seed, canary, tell); };
}

TEST(FsModel, EveryCrashLeavesAPrefix) { expect_every_seed_right(history_with(FsCanary::none), 12); }

// What the checkers must see, and soon.
TEST(FsModelCanaries, AForgottenFsyncIsCaught) {
  expect_caught(history_with(FsCanary::fsync_forgotten), "no point of the history");
}
TEST(FsModelCanaries, AnUncountedLinkIsCaught) {
  expect_caught(history_with(FsCanary::link_uncounted), "links");
}
TEST(FsModelCanaries, AForgottenOrphanIsCaught) {
  expect_caught(history_with(FsCanary::orphan_forgotten), "not listed as orphan");
}

}  // namespace
}  // namespace cumulus
