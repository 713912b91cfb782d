// Disks against a plain model, with the power cut at the borders of the log's groups and between them: random
// requests on several connections, snapshots, clones, sizes and rollbacks, in virtual time; then the process
// dies, the disk keeps what it may, the volume is opened again, and every disk and snapshot must be at one
// point of the history, not before what a FLUSH or FUA was answered for.
//
//   block_crash_model_test                      the seeds of the gate
//   CUMULUS_SEED=N block_crash_model_test       one seed, told aloud
//   CUMULUS_SEEDS=1000 block_crash_model_test   that many
#include <cstdio>
#include <cstdlib>
#include <gtest/gtest.h>

#include "objectstore/base/log.h"
#include "tests/model/block_history.h"
#include "tests/model/seed_process.h"

namespace cumulus {
namespace {

SeedOutcome run_seed(const BlockHistoryOptions& options, std::uint64_t seed) {
  return run_in_child([&] {
    auto* history = new BlockHistory(seed, options);  // never destroyed, as its processes are not
    const std::string failure = history->run();
    return SeedOutcome{failure, {history->counts().begin(), history->counts().end()}};
  });
}

TEST(BlockCrashModel, EveryCrashLeavesAPrefix) {
  const std::uint64_t only = number_of("CUMULUS_SEED", 0);
  const std::uint64_t first = only != 0 ? only : number_of("CUMULUS_FIRST_SEED", 1);
  const std::uint64_t seeds = only != 0 ? 1 : number_of("CUMULUS_SEEDS", 6);
  BlockHistoryOptions options;
  options.tell = only != 0;
  BlockCounts all{};
  for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
    const SeedOutcome outcome = run_seed(options, seed);
    ASSERT_EQ(outcome.failure, "") << "CUMULUS_SEED=" << seed;
    ASSERT_EQ(outcome.counts.size(), all.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] += outcome.counts[i];
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::printf("  %-40s %llu\n", kBlockCountNames[i], static_cast<unsigned long long>(all[i]));
    // A test that never lost anything proves nothing.
    if (seeds >= 6) {
      EXPECT_GT(all[i], 0u) << "never happened: " << kBlockCountNames[i];
    }
  }
}

// What the comparison must see, and soon.
struct CanaryCase {
  const char* name;
  BlockCanary canary;
};
class BlockCrashCanaries : public testing::TestWithParam<CanaryCase> {};
TEST_P(BlockCrashCanaries, IsCaught) {
  BlockHistoryOptions options;
  options.canary = GetParam().canary;
  std::string failure;
  std::uint64_t seed = 1;
  for (; seed <= 40 && failure.empty(); ++seed) failure = run_seed(options, seed).failure;
  EXPECT_NE(failure.find("no point of the history"), std::string::npos)
      << "by seed " << seed << ": " << failure;
}
INSTANTIATE_TEST_SUITE_P(All, BlockCrashCanaries,
                         testing::Values(CanaryCase{"flush_forgotten", BlockCanary::flush_forgotten},
                                         CanaryCase{"fua_forgotten", BlockCanary::fua_forgotten}),
                         [](const auto& chosen) { return std::string(chosen.param.name); });

}  // namespace
}  // namespace cumulus

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (std::getenv("CUMULUS_VERBOSE") == nullptr) cumulus::log_to_file("/dev/null");
  return RUN_ALL_TESTS();
}
