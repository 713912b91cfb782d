#include "tests/sim/seed_batches.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <deque>
#include <poll.h>
#include <signal.h>
#include <string_view>
#include <sys/wait.h>
#include <unistd.h>

#include "objectstore/base/format.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kBatch = 10;
constexpr std::chrono::seconds kProgressEvery{5};
using Clock = std::chrono::steady_clock;

struct SeedRange {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
};

// --- the child: what happens to each seed goes down the pipe, a line at a time ---

void run_in_child(SimulationOptions options, SeedRange seeds, std::FILE* out) {
  for (std::uint64_t seed = seeds.first; seed <= seeds.last; ++seed) {
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
    if (simulation->beyond_repair()) {
      std::fprintf(out, "beyond repair\n");
      std::fflush(out);
      continue;
    }
    for (const auto& [name, amount] : simulation->tally().counts())
      if (amount != 0)
        std::fprintf(out, "count %llu %s\n", static_cast<unsigned long long>(amount), name.c_str());
    std::fprintf(out, "end\n");
    std::fflush(out);
  }
}

// --- the parent's side of one batch ---

class Batch {
 public:
  // Nothing when no process could be made.
  static std::optional<Batch> start(const SimulationOptions& options, SeedRange seeds) {
    int ends[2];
    if (pipe(ends) != 0) return std::nullopt;
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
      close(ends[0]);
      dup2(ends[1], STDERR_FILENO);  // what a failed CHECK says
      std::FILE* out = fdopen(ends[1], "w");
      run_in_child(options, seeds, out);
      std::fclose(out);
      _exit(0);
    }
    close(ends[1]);
    if (child < 0) {
      close(ends[0]);
      return std::nullopt;
    }
    return Batch(child, ends[0], seeds);
  }

  int pipe_end() const { return pipe_; }

  // Takes what the child has said; false when it has ended.
  bool hear(SeedReport& into, bool tell_each) {
    char buffer[16 << 10];
    const ssize_t got = read(pipe_, buffer, sizeof buffer);
    if (got > 0) {
      pending_.append(buffer, static_cast<std::size_t>(got));
      take_lines(into, tell_each);
      return true;
    }
    if (got < 0 && errno == EINTR) return true;
    close(pipe_);
    int status = 0;
    waitpid(child_, &status, 0);
    if (inside_ || (status != 0 && !failed_))
      note_failure(into, tell_each, format("the program died (status {})", status));
    return false;
  }

  void kill_it() {
    ::kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    close(pipe_);
  }

  // What is left to do after a seed that failed.
  std::optional<SeedRange> rest() const {
    if (!failed_ || at_ >= seeds_.last) return std::nullopt;
    return SeedRange{at_ + 1, seeds_.last};
  }

 private:
  Batch(pid_t child, int end, SeedRange seeds) : child_(child), pipe_(end), seeds_(seeds), at_(seeds.first) {}

  void take_lines(SeedReport& into, bool tell_each) {
    std::size_t begin = 0;
    for (std::size_t end; (end = pending_.find('\n', begin)) != std::string::npos; begin = end + 1)
      take_line(std::string_view(pending_).substr(begin, end - begin), into, tell_each);
    pending_.erase(0, begin);
  }

  void take_line(std::string_view line, SeedReport& into, bool tell_each) {
    const auto after = [line](std::string_view word) { return std::string(line.substr(word.size())); };
    if (line.starts_with("begin ")) {
      at_ = std::stoull(after("begin "));
      inside_ = true;
      story_.clear();
      counts_ = {};
    } else if (line == "end") {
      inside_ = false;
      ++into.passed;
      into.tally.add(counts_);
      if (tell_each) tell("passed");
    } else if (line == "beyond repair") {
      inside_ = false;
      ++into.beyond_repair;
      if (tell_each) tell("beyond repair, not counted");
    } else if (line.starts_with("count ")) {
      const auto space = line.find(' ', 6);
      counts_.add(std::string(line.substr(space + 1)), std::stoull(std::string(line.substr(6, space - 6))));
    } else if (line.starts_with("violation ")) {
      note_failure(into, tell_each, after("violation "));
    } else {
      story_ += line.starts_with("story ") ? after("story ") : std::string(line);
      story_ += '\n';
    }
  }

  void note_failure(SeedReport& into, bool tell_each, std::string what) {
    inside_ = false;
    failed_ = true;
    if (tell_each) tell("FAILED");
    into.failures.push_back({at_, std::move(what), std::move(story_)});
    story_.clear();
  }

  void tell(const char* how) const {
    std::printf("seed %llu %s\n", static_cast<unsigned long long>(at_), how);
    std::fflush(stdout);
  }

  pid_t child_;
  int pipe_;
  SeedRange seeds_;
  std::uint64_t at_;
  bool inside_ = false;
  bool failed_ = false;
  Tally counts_;
  std::string pending_;
  std::string story_;
};

// --- all batches ---

class SeedRunner {
 public:
  explicit SeedRunner(const SeedRun& run) : run_(run), next_(run.first), begin_(Clock::now()) {
    report_.tally = Simulation::all_names();
  }

  SeedReport go() {
    while (start_batches() || !batches_.empty()) {
      hear();
      tell_progress();
      if (!report_.failures.empty() && !run_.past_failures) break;
    }
    for (Batch& batch : batches_) batch.kill_it();
    std::ranges::sort(report_.failures, {}, &FailedSeed::seed);
    return std::move(report_);
  }

 private:
  std::optional<SeedRange> next_seeds() {
    if (!again_.empty()) {
      const SeedRange seeds = again_.front();
      again_.pop_front();
      return seeds;
    }
    const bool late = run_.time_most.count() != 0 && Clock::now() - begin_ > run_.time_most;
    const std::uint64_t last = run_.last + (run_.make_up ? report_.beyond_repair : 0);
    if (next_ > last || (late && next_ - run_.first >= run_.seeds_least)) return std::nullopt;
    const SeedRange seeds{next_, std::min(last, next_ + kBatch - 1)};
    next_ = seeds.last + 1;
    return seeds;
  }

  // True when one was started.
  bool start_batches() {
    bool any = false;
    while (batches_.size() < std::max(1u, run_.children)) {
      const auto seeds = next_seeds();
      if (!seeds) break;
      auto batch = Batch::start(run_.options, *seeds);
      if (!batch) {
        report_.failures.push_back({seeds->first, std::string("no child process: ") + strerror(errno), ""});
        break;
      }
      batches_.push_back(std::move(*batch));
      any = true;
    }
    return any;
  }

  void hear() {
    std::vector<pollfd> ends;
    for (const Batch& batch : batches_) ends.push_back({batch.pipe_end(), POLLIN, 0});
    if (poll(ends.data(), ends.size(), 1000) <= 0) return;
    for (std::size_t i = ends.size(); i-- > 0;) {
      if (ends[i].revents == 0 || batches_[i].hear(report_, run_.tell_each)) continue;
      if (const auto rest = batches_[i].rest(); rest && run_.past_failures) again_.push_back(*rest);
      batches_.erase(batches_.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }

  void tell_progress() {
    const auto now = Clock::now();
    if (!run_.progress || now - told_ < kProgressEvery) return;
    told_ = now;
    const std::uint64_t done = report_.passed + report_.failures.size();
    const std::uint64_t all = run_.last - run_.first + 1;
    const double seconds = std::chrono::duration<double>(now - begin_).count();
    const double rate = static_cast<double>(done) / std::max(seconds, 0.001);
    std::string left = "?";
    if (done != 0) left = format("{:.0f} min", static_cast<double>(all - done) / rate / 60);
    std::printf("%s\n", format("{} of {} seeds, {:.2f} a second, {} left, {} failed", done, all, rate, left,
                               report_.failures.size())
                            .c_str());
    std::fflush(stdout);
  }

  const SeedRun& run_;
  SeedReport report_;
  std::uint64_t next_;
  std::deque<SeedRange> again_;
  std::vector<Batch> batches_;
  const Clock::time_point begin_;
  Clock::time_point told_ = begin_;
};

}  // namespace

SeedReport run_seeds(const SeedRun& run) { return SeedRunner(run).go(); }

std::optional<std::uint64_t> parse_seed(const char* text) {
  const char* end = text + std::strlen(text);
  std::uint64_t value = 0;
  const auto [at, error] = std::from_chars(text, end, value);
  if (error != std::errc() || at != end || value == 0) return std::nullopt;
  return value;
}

std::optional<std::pair<std::uint64_t, std::uint64_t>> parse_seed_range(const char* text) {
  const std::string whole(text);
  const auto dash = whole.find('-');
  if (dash == std::string::npos) return std::nullopt;
  const auto first = parse_seed(whole.substr(0, dash).c_str());
  const auto last = parse_seed(whole.substr(dash + 1).c_str());
  if (!first || !last || *last < *first) return std::nullopt;
  return std::pair(*first, *last);
}

}  // namespace cumulus
