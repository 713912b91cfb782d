// The log under kills, power cuts and failing disks. Several openings in a row write random groups; each ends
// with the disk dying at a random operation. What the checker knows: every group's content, what was written
// when append() returned, and what was durable when make_durable() returned. After each recovery: what was
// durable (power cut) or written (kill) is there byte for byte, in order, without gaps; whole groups only.
#include <gtest/gtest.h>
#include <map>
#include <set>

#include "objectstore/base/check.h"
#include "objectstore/base/log.h"
#include "objectstore/cache/slot_store.h"
#include "objectstore/crypto/aead.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/log/log_writer.h"
#include "objectstore/log/replay.h"
#include "objectstore/log/segment_reader.h"
#include "tests/fakes/sim_runtime.h"
#include "tests/fakes/volatile_disk.h"

namespace cumulus {
namespace {

constexpr std::uint32_t kSegmentSize = 64u << 10;
constexpr std::uint64_t kStepsMax = 10'000'000;
const std::string kDirectory = "/segments";

struct Faults {
  unsigned write_per_mille = 0;
  unsigned sync_per_mille = 0;
  bool ignore_syncs = false;
  std::uint64_t capacity = ~std::uint64_t{0};
  std::uint64_t budget = 4u << 20;
};

struct Outcome {
  std::string wrong;  // empty: every promise was kept
  std::uint64_t groups = 0;
  std::uint64_t cut = 0;
  std::uint64_t failures = 0;
  std::uint64_t read_only = 0;
};

class CrashRun {
 public:
  CrashRun(Runtime& runtime, std::uint64_t seed, Faults faults)
      : runtime_(runtime), random_(seed), faults_(faults), disk_(runtime, seed * 7 + 1) {
    disk_.ignore_syncs(faults.ignore_syncs);
    disk_.set_capacity(faults.capacity);
  }

  Task<Outcome> run(int openings) {
    for (int i = 0; i < openings && outcome_.wrong.empty(); ++i) {
      co_await open_write_and_die();
      const bool power_cut = random_() % 2 == 0;
      disk_.revive(power_cut);
      must_have_ = std::max(must_have_, power_cut ? durable_ : written_);
      if (outcome_.wrong.empty() && random_() % 2 == 0) co_await recover_in_vain();
      if (outcome_.wrong.empty()) co_await recover_and_check();
    }
    if (slots_) co_await slots_->close();
    outcome_.groups = next_to_check_;
    outcome_.failures = disk_.failures();
    co_return outcome_;
  }

 private:
  struct Content {
    Bytes records;
    std::vector<Bytes> runs;
    bool operator==(const Content&) const = default;
  };

  void wrong(std::string what) {
    if (outcome_.wrong.empty()) outcome_.wrong = std::move(what);
  }

  Task<void> open_slots() {
    SlotStoreOptions options;
    options.segment_size = kSegmentSize;
    options.budget_bytes = faults_.budget;
    auto opened = co_await SlotStore::open(runtime_, disk_, kDirectory, keys_.volume_id(), options, metrics_);
    if (!opened) {
      wrong("slots: " + opened.error().message());
      co_return;
    }
    slots_ = *std::move(opened);
  }

  GroupDraft draft(Content& content) {
    GroupDraft draft;
    const auto fill = [this](Bytes& bytes) {
      for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random_());
    };
    content.records.resize(random_() % 600);
    fill(content.records);
    draft.records = content.records;
    for (unsigned runs = random_() % 3; runs > 0; --runs) {
      auto plain = std::make_shared<Bytes>(1 + random_() % 5000);
      fill(*plain);
      content.runs.push_back(*plain);
      draft.runs.push_back({*plain, static_cast<std::uint8_t>(9 + random_() % 5), plain});
    }
    return draft;
  }

  Task<void> caller(LogWriter& log, std::uint64_t seed) {
    std::mt19937_64 choices(seed);
    for (int i = 0; i < 25 && !disk_.dead(); ++i) {
      auto content = std::make_shared<Content>();
      GroupDraft next = draft(*content);
      const bool waits = choices() % 4 == 0;
      next.awaited = waits && choices() % 4 != 0;
      for (const CellSource& run : next.runs) CHECK(!run.plain.empty());
      const auto appended = co_await log.append(std::move(next));
      if (!appended) {
        if (!disk_.dead()) ++outcome_.read_only;
        co_return;
      }
      contents_[appended->number] = content;
      if (disk_.dead()) co_return;
      written_ = std::max(written_, appended->number);
      if (waits) {
        const Status durable = co_await log.make_durable(appended->number);
        if (!durable || disk_.dead()) co_return;
        durable_ = std::max(durable_, appended->number);
      } else if (choices() % 8 == 0) {
        const LogPosition upto = log.written();
        const Status durable = log.make_durable_blocking();
        if (durable && !disk_.dead()) durable_ = std::max(durable_, upto);
      } else if (choices() % 16 == 0) {
        const Status sealed = co_await log.seal();
        if (!sealed) co_return;
      }
    }
  }

  Task<void> open_write_and_die() {
    if (!slots_) co_await open_slots();
    if (!slots_) co_return;
    LogStart start = start_;
    for (auto& byte : start.instance.bytes) byte = static_cast<std::uint8_t>(random_());
    LogOptions options;
    options.segment_size = kSegmentSize;
    auto log = LogWriter::make(runtime_, *slots_, keys_, keys_.volume_id(), start, options, metrics_,
                               [this](SealedSegment segment) { note_sealed(segment); });
    disk_.die_after(20 + random_() % 300);
    disk_.set_failures(faults_.write_per_mille, faults_.sync_per_mille);
    TaskGroup callers(runtime_);
    for (int i = 0; i < 3; ++i) callers.spawn(caller(*log, random_()));
    co_await wait_for(callers);
    disk_.die();
    TaskGroup closing(runtime_);
    closing.spawn(close_log(*log));
    co_await slots_->close();
    co_await callers.join();
    co_await closing.join();
    log.reset();
    slots_.reset();
  }

  Task<void> close_log(LogWriter& log) {
    const Status closed = co_await log.close();
    if (!closed) co_return;
  }

  // Callers may hang in take() once the disk died: the slots' close() lets them go.
  Task<void> wait_for(TaskGroup& callers) {
    while (callers.running() != 0 && !disk_.dead())
      co_await runtime_.sleep_for(std::chrono::microseconds(200));
  }

  void note_sealed(const SealedSegment& segment) {
    if (disk_.dead()) return;
    if (segment.last_group > durable_) durable_ = segment.last_group;  // handed on: durable by contract
    if (segment.memory == nullptr) wrong("a sealed segment came without its memory");
  }

  Task<Status> check_group(const ReplayedGroup& group) {
    const LogPosition number = group.header.number;
    if (number != next_to_check_ + 1) wrong("group " + std::to_string(number) + " is out of order");
    next_to_check_ = number;
    const auto known = contents_.find(number);
    if (known == contents_.end()) co_return Status();  // its append never returned: any outcome is right
    if (!equal(known->second->records, group.records))
      wrong("group " + std::to_string(number) + " has other records");
    co_return Status();
  }

  // A recovery that a failing disk and then a power cut end. An index keeps what it was shown (R1), so the
  // next recovery must have it.
  Task<void> recover_in_vain() {
    co_await open_slots();
    if (!slots_) co_return;
    LogPosition shown = 0;
    const GroupVisitor visit = [&shown](const ReplayedGroup& group) -> Task<Status> {
      shown = group.header.number;
      co_return Status();
    };
    FetchSegment none;
    disk_.die_after(1 + random_() % 12);
    const auto recovered = co_await recover_local_log(runtime_, keys_, *slots_, ReplayStart{}, none, visit);
    disk_.die();
    co_await slots_->close();
    slots_.reset();
    disk_.revive(true);
    must_have_ = std::max(recovered ? must_have_ : durable_, shown);
  }

  Task<void> recover_and_check() {
    co_await open_slots();
    if (!slots_) co_return;
    next_to_check_ = 0;
    const GroupVisitor visit = [this](const ReplayedGroup& group) { return check_group(group); };
    FetchSegment none;
    auto recovered = co_await recover_local_log(runtime_, keys_, *slots_, ReplayStart{}, none, visit);
    if (!recovered) {
      wrong("recovery: " + recovered.error().message());
      co_return;
    }
    if (next_to_check_ < must_have_)
      wrong("recovered up to group " + std::to_string(next_to_check_) + ", but group " +
            std::to_string(must_have_) + " was promised");
    if (recovered->cut_whole_groups) ++outcome_.cut;
    start_ = recovered->next;
    if (start_.next_group != next_to_check_ + 1) wrong("the log goes on at another group than it ended");
    // What recovery returned is durable; the rest never was.
    contents_.erase(contents_.upper_bound(next_to_check_), contents_.end());
    written_ = durable_ = must_have_ = next_to_check_;
    note_nonces();
  }

  // No two groups under one key share a nonce with different ciphertext.
  void note_nonces() {
    for (const LocalSegments::Found& found : slots_->log_segments()) {
      const std::string path = format("{}/slot-{:06}", kDirectory, found.slot);
      const Bytes bytes = disk_.content(path);
      const auto opened = open_segment_bytes(keys_, bytes, bytes.size(), std::nullopt, true);
      if (!opened) continue;
      std::uint64_t at = std::uint64_t{1} << found.header.align_log2;
      for (const OpenedGroup& group : opened->groups) {
        const auto key = std::tuple(found.header.salt, group.area.nonce, at);
        const auto tag = group.header.encode();
        const auto [known, fresh] = nonces_.emplace(key, tag);
        if (!fresh && known->second != tag) wrong("a nonce was used for two different groups");
        at += group.header.total_length;
      }
    }
  }

  Runtime& runtime_;
  std::mt19937_64 random_;
  const Faults faults_;
  VolatileDisk disk_;
  const KeyTree keys_{SecretKey{}};
  Metrics metrics_;
  std::unique_ptr<SlotStore> slots_;
  LogStart start_;
  std::map<LogPosition, std::shared_ptr<Content>> contents_;
  LogPosition written_ = 0;
  LogPosition durable_ = 0;
  LogPosition must_have_ = 0;
  LogPosition next_to_check_ = 0;
  std::map<std::tuple<std::array<std::uint8_t, 16>, std::uint64_t, std::uint64_t>,
           std::array<std::uint8_t, kGroupHeaderSize>>
      nonces_;
  Outcome outcome_;
};

Task<void> run_once(Runtime& runtime, std::uint64_t seed, Faults faults, int openings, Outcome& into) {
  CrashRun run(runtime, seed, faults);
  into = co_await run.run(openings);
}

// In virtual time: the seed alone decides what happens.
Outcome crash_run(std::uint64_t seed, Faults faults, int openings = 5) {
  Outcome outcome;
  bool ended = false;
  SimWorld world(seed);
  SimProcess& process = world.start_process("log");
  process.spawn(run_once(process, seed, faults, openings, outcome), [&ended] { ended = true; });
  if (!world.run_until([&ended] { return ended; }, kStepsMax)) outcome.wrong = "the run does not end";
  return outcome;
}

class LogCrash : public testing::Test {
 protected:
  LogCrash() {
    const char* only = std::getenv("CRASH_SEED");
    if (only != nullptr) first_ = last_ = std::strtoull(only, nullptr, 10);
    const char* last = std::getenv("CRASH_SEED_LAST");  // a range, for long searches
    if (only != nullptr && last != nullptr) last_ = std::strtoull(last, nullptr, 10);
    log_level_min(first_ == last_ ? LogLevel::debug : LogLevel::error);
    log_to_file(first_ == last_ ? "" : "/dev/null");
  }
  std::uint64_t first_ = 1;
  std::uint64_t last_ = 60;
};

TEST_F(LogCrash, KillsAndPowerCuts) {
  std::uint64_t groups = 0;
  for (std::uint64_t seed = first_; seed <= last_; ++seed) {
    const Outcome outcome = crash_run(seed, {});
    ASSERT_EQ(outcome.wrong, "") << "CRASH_SEED=" << seed;
    groups += outcome.groups;
  }
  EXPECT_GE(groups, (last_ - first_ + 1) * 16);
}

TEST_F(LogCrash, FailingWritesAndSyncs) {
  std::uint64_t failures = 0;
  for (std::uint64_t seed = first_; seed <= last_; ++seed) {
    Faults faults;
    faults.write_per_mille = seed % 3 == 0 ? 30 : 5;
    faults.sync_per_mille = seed % 2 == 0 ? 60 : 5;
    const Outcome outcome = crash_run(seed, faults);
    ASSERT_EQ(outcome.wrong, "") << "CRASH_SEED=" << seed;
    failures += outcome.failures;
  }
  EXPECT_GE(failures, last_ - first_ + 1);
}

// The canary: a disk that lies about syncs must be found out.
TEST_F(LogCrash, ADiskThatIgnoresSyncsIsCaught) {
  Faults lying;
  lying.ignore_syncs = true;
  bool caught = false;
  for (std::uint64_t seed = 1; seed <= 20 && !caught; ++seed) caught = !crash_run(seed, lying).wrong.empty();
  EXPECT_TRUE(caught);
}

}  // namespace
}  // namespace cumulus
