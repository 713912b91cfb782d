// A file system against a plain model, with the power cut at the borders of its log's groups and between
// them: random calls through the door, in virtual time; then the process dies, the disk keeps what it may,
// the volume is opened again, and what it shows must be the model's state after some prefix of the calls,
// not older than the last fsync and not older than SEMANTICS.md says.
//
//   fs_model_test                        the seeds of the gate
//   CUMULUS_SEED=N fs_model_test         one seed, told aloud
//   CUMULUS_SEEDS=1000 fs_model_test     that many
//
// A simulated kill leaves what it killed in memory: each seed runs in a child process.
#include <cstdio>
#include <cstdlib>
#include <gtest/gtest.h>

#include "objectstore/base/log.h"
#include "tests/model/fs_history.h"
#include "tests/model/seed_process.h"

namespace cumulus {
namespace {

// In a child of this process.
SeedOutcome run_seed(const FsHistoryOptions& options, std::uint64_t seed) {
  return run_in_child([&] {
    auto* history = new FsHistory(seed, options);  // never destroyed, as its processes are not
    const std::string failure = history->run();
    return SeedOutcome{failure, {history->counts().begin(), history->counts().end()}};
  });
}

TEST(FsModel, EveryCrashLeavesAPrefix) {
  const std::uint64_t only = number_of("CUMULUS_SEED", 0);
  const std::uint64_t first = only != 0 ? only : number_of("CUMULUS_FIRST_SEED", 1);
  const std::uint64_t seeds = only != 0 ? 1 : number_of("CUMULUS_SEEDS", 12);
  FsHistoryOptions options;
  options.tell = only != 0;
  FsHistoryCounts all{};
  for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
    const SeedOutcome outcome = run_seed(options, seed);
    ASSERT_EQ(outcome.failure, "") << "CUMULUS_SEED=" << seed;
    ASSERT_EQ(outcome.counts.size(), all.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] += outcome.counts[i];
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::printf("  %-40s %llu\n", kFsHistoryCountNames[i], static_cast<unsigned long long>(all[i]));
    // A test that never lost anything proves nothing.
    if (seeds >= 12) {
      EXPECT_GT(all[i], 0u) << "never happened: " << kFsHistoryCountNames[i];
    }
  }
}

// What the checkers must see, and soon.
struct CanaryCase {
  const char* name;
  FsCanary canary;
  const char* verdict;
};
class FsModelCanaries : public testing::TestWithParam<CanaryCase> {};
TEST_P(FsModelCanaries, IsCaught) {
  FsHistoryOptions options;
  options.canary = GetParam().canary;
  std::string failure;
  std::uint64_t seed = 1;
  for (; seed <= 40 && failure.empty(); ++seed) failure = run_seed(options, seed).failure;
  EXPECT_NE(failure.find(GetParam().verdict), std::string::npos) << "by seed " << seed << ": " << failure;
}
INSTANTIATE_TEST_SUITE_P(
    All, FsModelCanaries,
    testing::Values(CanaryCase{"fsync_forgotten", FsCanary::fsync_forgotten, "no point of the history"},
                    CanaryCase{"link_uncounted", FsCanary::link_uncounted, "links"},
                    CanaryCase{"orphan_forgotten", FsCanary::orphan_forgotten, "not listed as orphan"}),
    [](const auto& chosen) { return std::string(chosen.param.name); });

}  // namespace
}  // namespace cumulus

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (std::getenv("CUMULUS_VERBOSE") == nullptr) cumulus::log_to_file("/dev/null");
  return RUN_ALL_TESTS();
}
