#include "tests/model/crash_seeds.h"

#include <cstdio>
#include <cstdlib>
#include <gtest/gtest.h>
#include <map>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

#include "objectstore/base/log.h"

namespace cumulus {
namespace {

struct SeedOutcome {
  std::string failure;  // empty: none
  std::vector<Counted> counts;
};

// A whole number from the environment.
std::uint64_t number_of(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

[[noreturn]] void run_and_say(CrashHistory& history, int end) {
  dup2(end, STDERR_FILENO);  // what a failed CHECK says
  const std::string failure = history.run();
  std::FILE* out = fdopen(end, "w");
  for (const Counted& one : history.counts())
    std::fprintf(out, "%llu %s\n", static_cast<unsigned long long>(one.times), one.what.c_str());
  std::fprintf(out, "\n%s", failure.c_str());
  std::fclose(out);
  std::fflush(stdout);
  _exit(failure.empty() ? 0 : 1);
}

// A child that dies is a failure, with what it said.
SeedOutcome run_in_child(const NewHistory& make, std::uint64_t seed, bool tell) {
  int ends[2];
  if (pipe(ends) != 0) return {"no pipe", {}};
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    run_and_say(*make(seed, tell), ends[1]);
  }
  close(ends[1]);
  std::string said;
  char piece[4096];
  for (ssize_t got = 0; (got = read(ends[0], piece, sizeof piece)) > 0;)
    said.append(piece, static_cast<std::size_t>(got));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  SeedOutcome outcome;
  if (status != 0) outcome.failure = said.empty() ? "the program died" : said;
  std::istringstream lines(said);
  Counted one;
  while (lines >> one.times && std::getline(lines >> std::ws, one.what)) outcome.counts.push_back(one);
  return outcome;
}

}  // namespace

void expect_every_seed_right(const NewHistory& make, std::uint64_t seeds_of_gate) {
  const std::uint64_t only = number_of("CUMULUS_SEED", 0);
  const std::uint64_t first = only != 0 ? only : number_of("CUMULUS_FIRST_SEED", 1);
  const std::uint64_t seeds = only != 0 ? 1 : number_of("CUMULUS_SEEDS", seeds_of_gate);
  std::map<std::string, std::uint64_t> all;
  for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
    const SeedOutcome outcome = run_in_child(make, seed, only != 0);
    ASSERT_EQ(outcome.failure, "") << "CUMULUS_SEED=" << seed;
    ASSERT_FALSE(outcome.counts.empty());
    for (const Counted& one : outcome.counts) all[one.what] += one.times;
  }
  for (const auto& [what, times] : all) {
    std::printf("  %-40s %llu\n", what.c_str(), static_cast<unsigned long long>(times));
    if (seeds >= seeds_of_gate) {
      EXPECT_GT(times, 0u) << "never happened: " << what;
    }
  }
}

void expect_caught(const NewHistory& make, const std::string& verdict) {
  std::string failure;
  std::uint64_t seed = 0;
  while (seed < 40 && failure.empty()) failure = run_in_child(make, ++seed, false).failure;
  EXPECT_NE(failure.find(verdict), std::string::npos) << "by seed " << seed << ": " << failure;
}

}  // namespace cumulus

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (std::getenv("CUMULUS_VERBOSE") == nullptr) cumulus::log_to_file("/dev/null");
  return RUN_ALL_TESTS();
}
