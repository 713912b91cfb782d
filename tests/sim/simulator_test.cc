// The simulator: whole clusters in virtual time, a seed each.
//
//   simulator_test                       the seeds of the gate
//   simulator_test --seed N              one seed, told aloud
//   CUMULUS_SEEDS=10000 simulator_test   that many on all cores, up to the first that fails; every fault and
//                                        branch must have been hit. CUMULUS_FIRST_SEED begins elsewhere
//   CUMULUS_SIM_SEEDS=A-B simulator_test seeds A to B, past those that fail: all of them are told at the end
#include <cstdio>
#include <cstdlib>
#include <gtest/gtest.h>
#include <thread>

#include "objectstore/base/log.h"
#include "tests/sim/seed_batches.h"

namespace cumulus {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

// The gate's seeds: as many as it has time for, and never fewer than the floor.
constexpr std::uint64_t kGateSeeds = 60;
constexpr std::uint64_t kGateFloor = kSanitized ? 10 : 40;
constexpr std::chrono::seconds kGateTime{90};
// So many seeds must have hit everything.
constexpr std::uint64_t kEverythingAfter = 1000;
// Not more of them than one in so many may end beyond repair; it was 9 of 10,000.
constexpr std::uint64_t kBeyondRepairOneIn = 200;

// What the environment asks for; main() has refused what is no number.
struct Settings {
  std::optional<std::uint64_t> seeds;
  std::uint64_t first = 1;
  std::optional<std::pair<std::uint64_t, std::uint64_t>> range;
};
Settings settings;

bool read_settings() {
  const auto refuse = [](const char* name, const char* text, const char* wanted) {
    std::fprintf(stderr, "%s is not %s: %s\n", name, wanted, text);
    return false;
  };
  if (const char* text = std::getenv("CUMULUS_SEEDS")) {
    settings.seeds = parse_seed(text);
    if (!settings.seeds) return refuse("CUMULUS_SEEDS", text, "a number of seeds, at least 1");
  }
  if (const char* text = std::getenv("CUMULUS_FIRST_SEED")) {
    const auto first = parse_seed(text);
    if (!first) return refuse("CUMULUS_FIRST_SEED", text, "a seed, 1 or later");
    settings.first = *first;
  }
  if (const char* text = std::getenv("CUMULUS_SIM_SEEDS")) {
    settings.range = parse_seed_range(text);
    if (!settings.range) return refuse("CUMULUS_SIM_SEEDS", text, "a range of seeds such as 1-100");
  }
  return true;
}

unsigned cores() { return std::max(1u, std::thread::hardware_concurrency()); }

void tell_counts(const SeedReport& report) {
  std::printf("%llu seeds passed, %llu beyond repair, not counted\n",
              static_cast<unsigned long long>(report.passed),
              static_cast<unsigned long long>(report.beyond_repair));
  for (const auto& [name, amount] : report.tally.counts())
    std::printf("  %-40s %llu\n", name.c_str(), static_cast<unsigned long long>(amount));
}

void expect_everything_hit(const SeedReport& report) {
  if (report.passed < kEverythingAfter) return;
  for (const auto& [name, amount] : report.tally.counts())
    EXPECT_NE(amount, 0u) << "never happened: " << name;
  EXPECT_LE(report.beyond_repair * kBeyondRepairOneIn, report.passed);
}

void expect_no_failures(const SeedReport& report) {
  for (const FailedSeed& failed : report.failures)
    ADD_FAILURE() << "simulator_test --seed " << failed.seed << ": " << failed.what << "\n" << failed.story;
}

// Every seed of the range, each told as it ends.
TEST(Simulator, RangeOfSeeds) {
  ASSERT_TRUE(settings.range) << "CUMULUS_SIM_SEEDS is not set";
  SeedRun run;
  run.first = settings.range->first;
  run.last = settings.range->second;
  run.past_failures = run.tell_each = true;
  const SeedReport report = run_seeds(run);
  tell_counts(report);
  expect_everything_hit(report);
  expect_no_failures(report);
  EXPECT_EQ(report.passed + report.beyond_repair + report.failures.size(), run.last - run.first + 1);
}

// What each checker must see within 1,000 seeds; it takes ten at most.
struct CanaryCase {
  const char* name;
  Canary canary;
  const char* verdict;  // of the checker that is meant, not of any
  bool each_step = true;
};
class Canaries : public testing::TestWithParam<CanaryCase> {};

TEST_P(Canaries, IsCaught) {
  SeedRun run;
  run.options.canary = GetParam().canary;
  run.options.each_step = GetParam().each_step;
  run.last = 1000;
  bool meant = false;
  while (!meant && run.first <= run.last) {  // other checkers may see what it leads to first
    const SeedReport report = run_seeds(run);
    ASSERT_EQ(report.failures.size(), 1u) << "the seeds from " << run.first << " on saw nothing";
    const FailedSeed& caught = report.failures.front();
    meant = caught.what.find(GetParam().verdict) != std::string::npos;
    std::printf("seed %llu: %s\n", static_cast<unsigned long long>(caught.seed), caught.what.c_str());
    run.first = caught.seed + 1;
  }
  EXPECT_TRUE(meant) << "no checker said: " << GetParam().verdict;
}
INSTANTIATE_TEST_SUITE_P(
    Simulator, Canaries,
    testing::Values(CanaryCase{"syncs_ignored", Canary::syncs_ignored, "home file", false},
                    CanaryCase{"syncs_ignored_each_step", Canary::syncs_ignored, "past the durable log"},
                    CanaryCase{"no_barrier", Canary::no_barrier, "was durable", false},
                    CanaryCase{"no_barrier_each_step", Canary::no_barrier, "past the durable log"},
                    CanaryCase{"old_ballot_accepted", Canary::old_ballot_accepted, "accepted version"},
                    CanaryCase{"cell_not_verified", Canary::cell_not_verified, "is wrong"},
                    CanaryCase{"nonce_repeated", Canary::nonce_repeated, "nonce used twice"}),
    [](const auto& chosen) { return std::string(chosen.param.name); });

TEST(Simulator, ManySeeds) {
  SeedRun run;
  run.first = settings.first;
  run.last = run.first + settings.seeds.value_or(kGateSeeds) - 1;
  run.make_up = true;
  if (settings.seeds) {
    run.children = cores();
    run.progress = true;
  } else {
    run.time_most = kGateTime;
    run.seeds_least = kGateFloor;
  }
  const SeedReport report = run_seeds(run);
  tell_counts(report);
  expect_no_failures(report);
  if (!report.failures.empty()) return;
  EXPECT_GE(report.passed, settings.seeds.value_or(kGateFloor));
  expect_everything_hit(report);
}

// The runner itself: that it splits, counts and goes on past failures.
TEST(SeedRunner, RunsEverySeedOnceAndGoesPastThoseThatFail) {
  SeedRun run;
  run.options.operations = 20;  // short seeds: each proves too little, and so fails, unless it went on
  run.options.crashes = 1;
  run.options.segments = 0;
  run.options.miners = 7;  // a cluster has 6 to 8
  run.first = 5;
  run.last = 16;
  run.children = 3;
  run.past_failures = true;
  const SeedReport all = run_seeds(run);
  EXPECT_EQ(all.passed + all.failures.size(), 12u);
  EXPECT_GT(all.passed, 0u);
  ASSERT_GT(all.failures.size(), 0u);
  for (const FailedSeed& failed : all.failures) EXPECT_NE(failed.what.find("too little"), std::string::npos);
  run.past_failures = false;
  run.children = 1;
  const SeedReport stopped = run_seeds(run);
  ASSERT_EQ(stopped.failures.size(), 1u);
  EXPECT_EQ(stopped.failures.front().seed, all.failures.front().seed);
}

TEST(SeedRunner, NumbersAreTakenWholeOrNotAtAll) {
  EXPECT_EQ(parse_seed("10000"), 10000u);
  for (const char* text : {"", "abc", "0", "-1", "+1", "1x", " 1", "1 ", "1e4", "99999999999999999999"})
    EXPECT_FALSE(parse_seed(text)) << text;
  EXPECT_EQ(parse_seed_range("3-12"), std::pair(std::uint64_t{3}, std::uint64_t{12}));
  EXPECT_EQ(parse_seed_range("3-3"), std::pair(std::uint64_t{3}, std::uint64_t{3}));
  for (const char* text : {"", "3", "3-", "-3", "4-3", "3-4-5", "0-4", "a-b", "3 - 4"})
    EXPECT_FALSE(parse_seed_range(text)) << text;
}

}  // namespace

// One seed, in this process: for a debugger.
int run_one(const char* text) {
  const auto seed = parse_seed(text);
  if (!seed) {
    std::fprintf(stderr, "--seed takes a seed, 1 or later: %s\n", text);
    return 2;
  }
  SimulationOptions options;
  options.seed = *seed;
  options.tell = true;
  auto* simulation = new Simulation(options);
  simulation->run();
  if (!simulation->violation()) std::printf("no violation\n");
  return simulation->violation() ? 1 : 0;
}

}  // namespace cumulus

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (!cumulus::read_settings()) return 2;
  // A range is run alone.
  if (cumulus::settings.range)
    GTEST_FLAG_SET(filter, "Simulator.RangeOfSeeds");
  else if (GTEST_FLAG_GET(filter) == "*")
    GTEST_FLAG_SET(filter, "-Simulator.RangeOfSeeds");
  if (std::getenv("CUMULUS_VERBOSE") == nullptr) cumulus::log_to_file("/dev/null");
  if (argc == 3 && std::string_view(argv[1]) == "--seed") return cumulus::run_one(argv[2]);
  if (argc > 1) {
    std::fprintf(stderr, "usage: %s [--seed N] [--gtest_...]\n", argv[0]);
    return 2;
  }
  return RUN_ALL_TESTS();
}
