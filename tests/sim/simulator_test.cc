// The simulator: whole clusters in virtual time, a seed each. Batches of seeds run in child processes,
// because a simulated kill -9 leaves what it killed in memory, and because a failed CHECK must not end the
// run.
//
//   simulator_test                    the seeds of the gate
//   simulator_test --seed N           one seed, told aloud
//   CUMULUS_SEEDS=10000 simulator_test   that many, and every fault and branch must have been hit
//   CUMULUS_SIM_SEEDS=A-B simulator_test seeds A to B, past those that fail: all of them are told at the end
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <gtest/gtest.h>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "tests/sim/simulation.h"

namespace cumulus {
namespace {

struct Failure {
  std::uint64_t seed = 0;
  std::string what;
};

struct BatchReport {
  Tally tally;
  std::uint64_t seeds = 0;
  std::optional<Failure> failure;
};

void run_seeds(SimulationOptions options, std::uint64_t first, std::uint64_t count, std::FILE* out) {
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    std::fprintf(out, "begin %llu\n", static_cast<unsigned long long>(seed));
    std::fflush(out);
    options.seed = seed;
    // Never destroyed, as its processes are not.
    auto* simulation = new Simulation(options);
    simulation->run();
    if (simulation->violation()) {
      for (const std::string& line : simulation->story()) std::fprintf(out, "story %s\n", line.c_str());
      std::fprintf(out, "violation %s\n", simulation->violation()->c_str());
      std::fflush(out);
      return;
    }
    for (const auto& [name, amount] : simulation->tally().counts())
      if (amount != 0)
        std::fprintf(out, "count %llu %s\n", static_cast<unsigned long long>(amount), name.c_str());
    std::fprintf(out, "end\n");
    std::fflush(out);
  }
}

// Runs seeds [first, first + count) in a child of this process.
BatchReport run_batch(const SimulationOptions& options, std::uint64_t first, std::uint64_t count) {
  BatchReport report;
  int ends[2];
  if (pipe(ends) != 0) {
    report.failure = Failure{first, "no pipe"};
    return report;
  }
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    dup2(ends[1], STDERR_FILENO);  // what a failed CHECK says
    std::FILE* out = fdopen(ends[1], "w");
    run_seeds(options, first, count, out);
    std::fclose(out);
    _exit(0);
  }
  close(ends[1]);
  std::FILE* in = fdopen(ends[0], "r");
  std::uint64_t seed = first;
  bool inside = false;
  std::string story;
  char line[4096];
  while (std::fgets(line, sizeof line, in) != nullptr) {
    std::string text(line);
    if (text.ends_with('\n')) text.pop_back();
    if (text.starts_with("begin ")) {
      seed = std::stoull(text.substr(6));
      inside = true;
      story.clear();
    } else if (text == "end") {
      inside = false;
      ++report.seeds;
    } else if (text.starts_with("count ")) {
      const auto space = text.find(' ', 6);
      report.tally.add(text.substr(space + 1), std::stoull(text.substr(6, space - 6)));
    } else if (text.starts_with("violation ")) {
      report.failure = Failure{seed, text.substr(10) + "\n" + story};
      inside = false;
    } else if (text.starts_with("story ")) {
      story += text.substr(6) + "\n";
    } else {
      story += text + "\n";
    }
  }
  std::fclose(in);
  int status = 0;
  waitpid(child, &status, 0);
  if (!report.failure && (inside || status != 0))
    report.failure = Failure{seed, "the program died:\n" + story};
  return report;
}

struct Limits {
  std::uint64_t seeds_most = 0;
  std::chrono::seconds time_most{0};  // 0: no limit
};

// Batches until the seeds are done, the time is up, or a seed failed.
BatchReport run_many(SimulationOptions options, Limits limits, std::uint64_t first = 1) {
  constexpr std::uint64_t kBatch = 10;
  BatchReport all;
  all.tally = Simulation::all_names();
  const auto begin = std::chrono::steady_clock::now();
  for (std::uint64_t done = 0; done < limits.seeds_most && !all.failure; done += kBatch) {
    if (limits.time_most.count() != 0 && std::chrono::steady_clock::now() - begin > limits.time_most) break;
    BatchReport batch = run_batch(options, first + done, std::min(kBatch, limits.seeds_most - done));
    all.tally.add(batch.tally);
    all.seeds += batch.seeds;
    all.failure = std::move(batch.failure);
  }
  return all;
}

std::uint64_t number_of(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// "A-B"; nothing when the variable is not set, and the whole program ends when it is no range.
std::optional<std::pair<std::uint64_t, std::uint64_t>> range_of(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return std::nullopt;
  unsigned long long first = 0;
  unsigned long long last = 0;
  int read = 0;
  if (std::sscanf(text, "%llu-%llu%n", &first, &last, &read) != 2 || text[read] != '\0' || last < first) {
    std::fprintf(stderr, "%s is not a range of seeds such as 1-100: %s\n", variable, text);
    std::exit(2);
  }
  return std::pair<std::uint64_t, std::uint64_t>{first, last};
}

// Every seed of the range, each told as it ends.
TEST(Simulator, RangeOfSeeds) {
  const auto range = range_of("CUMULUS_SIM_SEEDS");
  if (!range) return;  // the gate runs ManySeeds
  Tally tally = Simulation::all_names();
  std::vector<Failure> failures;
  std::uint64_t seeds = 0;
  for (std::uint64_t seed = range->first; seed <= range->second; ++seed) {
    BatchReport one = run_batch({}, seed, 1);
    ++seeds;
    tally.add(one.tally);
    std::printf("seed %llu %s\n", static_cast<unsigned long long>(seed), one.failure ? "FAILED" : "passed");
    std::fflush(stdout);
    if (one.failure) failures.push_back(std::move(*one.failure));
  }
  for (const auto& [name, amount] : tally.counts()) {
    std::printf("  %-40s %llu\n", name.c_str(), static_cast<unsigned long long>(amount));
    if (seeds >= 1000 && name != "beyond repair") {
      EXPECT_NE(amount, 0u) << "never happened: " << name;
    }
  }
  for (const Failure& failure : failures)
    ADD_FAILURE() << "simulator_test --seed " << failure.seed << ": " << failure.what;
}

// What each checker must see within 1,000 seeds; it takes ten at most.
struct CanaryCase {
  const char* name;
  Canary canary;
  const char* verdict;  // of the checker that is meant, not of any
};
class Canaries : public testing::TestWithParam<CanaryCase> {};

TEST_P(Canaries, IsCaught) {
  if (std::getenv("CUMULUS_SIM_SEEDS") != nullptr) return;
  SimulationOptions options;
  options.canary = GetParam().canary;
  const BatchReport report = run_many(options, Limits{1000, {}});
  ASSERT_TRUE(report.failure) << report.seeds << " seeds saw nothing";
  EXPECT_NE(report.failure->what.find(GetParam().verdict), std::string::npos) << report.failure->what;
  std::printf("seed %llu: %s\n", static_cast<unsigned long long>(report.failure->seed),
              report.failure->what.substr(0, report.failure->what.find('\n')).c_str());
}
INSTANTIATE_TEST_SUITE_P(
    Simulator, Canaries,
    testing::Values(CanaryCase{"syncs_ignored", Canary::syncs_ignored, "home file"},
                    CanaryCase{"no_barrier", Canary::no_barrier, "was durable"},
                    CanaryCase{"old_ballot_accepted", Canary::old_ballot_accepted, "accepted version"},
                    CanaryCase{"cell_not_verified", Canary::cell_not_verified, "is wrong"},
                    CanaryCase{"nonce_repeated", Canary::nonce_repeated, "nonce used twice"}),
    [](const auto& chosen) { return std::string(chosen.param.name); });

TEST(Simulator, ManySeeds) {
  if (std::getenv("CUMULUS_SIM_SEEDS") != nullptr) return;
  const std::uint64_t wanted = number_of("CUMULUS_SEEDS", 0);
  const Limits limits = wanted != 0 ? Limits{wanted, {}} : Limits{60, std::chrono::seconds(90)};
  const BatchReport report = run_many({}, limits, number_of("CUMULUS_FIRST_SEED", 1));
  std::printf("%llu seeds\n", static_cast<unsigned long long>(report.seeds));
  for (const auto& [name, amount] : report.tally.counts()) {
    std::printf("  %-40s %llu\n", name.c_str(), static_cast<unsigned long long>(amount));
    if (wanted >= 1000 && name != "beyond repair") {
      EXPECT_NE(amount, 0u) << "never happened: " << name;
    }
  }
  ASSERT_FALSE(report.failure.has_value())
      << "simulator_test --seed " << report.failure->seed << ": " << report.failure->what;
  EXPECT_GT(report.seeds, 0u);
}

}  // namespace

// One seed, in this process: for a debugger.
int run_one(std::uint64_t seed) {
  SimulationOptions options;
  options.seed = seed;
  options.tell = true;
  auto* simulation = new Simulation(options);
  simulation->run();
  if (!simulation->violation()) std::printf("no violation\n");
  return simulation->violation() ? 1 : 0;
}

}  // namespace cumulus

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (std::getenv("CUMULUS_VERBOSE") == nullptr) cumulus::log_to_file("/dev/null");
  if (argc == 3 && std::string_view(argv[1]) == "--seed")
    return cumulus::run_one(std::strtoull(argv[2], nullptr, 10));
  return RUN_ALL_TESTS();
}
