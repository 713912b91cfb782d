// The Committer over a real log in a directory and an index on the ordered map: what is accepted is written
// in time, and never waits for a place on the disk that only something behind it would make.
#include "objectstore/store/committer.h"

#include <filesystem>
#include <gtest/gtest.h>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/metrics.h"
#include "objectstore/cache/slot_store.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/uring_file_system.h"
#include "tests/fakes/map_engine.h"

namespace cumulus {
namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t kSegment = 256u << 10;

class CommitterOnDisk : public testing::Test {
 public:
  CommitterOnDisk() {
    std::string name = testing::TempDir() + "/committer_test_XXXXXX";
    directory_ = ::mkdtemp(name.data());
  }
  ~CommitterOnDisk() override { std::filesystem::remove_all(directory_); }

  Task<void> open(std::uint64_t budget) {
    SlotStoreOptions slots;
    slots.segment_size = kSegment;
    slots.budget_bytes = budget;
    auto opened = co_await SlotStore::open(reactor_, *files_, directory_, keys_.volume_id(), slots, metrics_);
    CHECK(opened);
    slots_ = std::move(*opened);
    MapEngineOptions late;
    late.late_one_in = 1;  // whatever is not in memory is waited for
    auto engine = std::make_unique<MapEngine>(reactor_, std::make_shared<MapEngineDisk>(), late);
    auto index = co_await Index::open(reactor_, std::move(engine), {}, metrics_);
    CHECK(index);
    index_ = std::move(*index);
    LogStart start;
    start.instance.bytes[0] = 1;
    LogOptions options;
    options.segment_size = kSegment;
    log_ = LogWriter::make(reactor_, *slots_, keys_, keys_.volume_id(), start, options, metrics_,
                           [this](SealedSegment segment) { sealed_.push_back(segment.header.id); });
    committer_ = std::make_unique<Committer>(
        reactor_, *index_, *log_, options_,
        [this](std::uint64_t bytes) -> Status {
          if (slots_->has_room_for(bytes)) return {};
          return fail(room_error_);
        },
        [](const auto&) -> Task<Result<bool>> { co_return false; });
    committer_->start();
    const Committer::BuildChanges build = [] {
      change::CreateDataset create;
      create.id = 1;
      create.chunk_log2 = 16;
      create.name = "d";
      return Result<std::vector<Change>>({create});
    };
    const auto made = co_await committer_->commit_changes(build, false);
    CHECK(made);
  }
  Task<void> close() {
    Status done = co_await committer_->close();
    EXPECT_TRUE(done) << done.error().message();
    done = co_await log_->close();
    EXPECT_TRUE(done) << done.error().message();
    done = co_await index_->close();
    EXPECT_TRUE(done) << done.error().message();
    co_await slots_->close();
  }
  Task<void> commit(Transaction transaction) {
    const auto done = co_await committer_->commit(std::move(transaction));
    EXPECT_TRUE(done) << done.error().message();
  }
  // Until it holds, or for ten seconds.
  template <class Condition>
  Task<bool> comes_true(Condition condition) {
    for (const TimePoint until = reactor_.now() + 10s; reactor_.now() < until;) {
      if (condition()) co_return true;
      co_await reactor_.sleep_until(reactor_.now() + 5ms);
    }
    co_return condition();
  }

  Reactor reactor_{1};
  std::unique_ptr<FileSystem> files_ = make_worker_file_system(reactor_);
  Metrics metrics_;
  const KeyTree keys_{SecretKey{}};
  std::string directory_;
  std::unique_ptr<SlotStore> slots_;
  std::unique_ptr<Index> index_;
  std::unique_ptr<LogWriter> log_;
  std::unique_ptr<Committer> committer_;
  std::vector<SegmentId> sealed_;
  VolumeOptions options_;
  Error room_error_{ErrorKind::unavailable, "the log is full of what no miner has"};
};

// Each of several truncations looks at rows that are not in memory: the first transaction of a group is then
// staged in steps, and whoever closes groups by the clock may look at it in between.
TEST_F(CommitterOnDisk, WritesByTheClockWhatWasStagedInSteps) {
  const auto body = [](CommitterOnDisk& t) -> Task<void> {
    co_await t.open(4u << 20);
    Transaction first;
    for (ObjectId object = 1; object <= 3; ++object) {
      first.create({1, object}, {});
      first.write({1, object}, (object - 1) * 20000, Bytes(10000, 1));
    }
    co_await t.commit(std::move(first));
    const Status written = co_await t.committer_->durable(t.committer_->accepted());
    EXPECT_TRUE(written);
    Transaction cuts;
    for (ObjectId object = 1; object <= 3; ++object) cuts.truncate({1, object}, 0);
    co_await t.commit(std::move(cuts));
    const auto all_written = [&t] { return t.log_->written() == t.committer_->accepted(); };
    const bool in_time = co_await t.comes_true(all_written);
    EXPECT_TRUE(in_time) << "written up to " << t.log_->written() << " of " << t.committer_->accepted();
    co_await t.close();
  };
  reactor_.run(body(*this));
}

// No miner takes anything, the cache is full, and many write. Then the miners are back: that they have a
// segment must get into the log, which has no place left for those who wait.
TEST_F(CommitterOnDisk, BookkeepingFindsAPlaceInAFullCache) {
  const auto body = [](CommitterOnDisk& t) -> Task<void> {
    co_await t.open(8 * kSegment);
    Transaction create;
    create.create({1, 1}, {});
    co_await t.commit(std::move(create));
    std::size_t done = 0;
    constexpr std::size_t kWriters = 64;
    TaskGroup writers(t.reactor_);
    for (std::size_t i = 0; i < kWriters; ++i) {
      writers.spawn([&t, &done, i]() -> Task<void> {
        Transaction write;
        write.write({1, 1}, i * 100'000, Bytes(100'000, static_cast<std::uint8_t>(i)));
        co_await t.commit(std::move(write));
        ++done;
      });
    }
    // Until everything that can be written is, and the others wait.
    LogPosition before = 0;
    for (int still = 0; still < 20;) {
      co_await t.reactor_.sleep_until(t.reactor_.now() + 20ms);
      still = t.log_->written() == before ? still + 1 : 0;
      before = t.log_->written();
    }
    EXPECT_LT(done, kWriters);
    const Committer::BuildChanges build = [] {
      return Result<std::vector<Change>>({change::SetQuota{.id = 1, .bytes = 1u << 30}});
    };
    const auto noted = co_await t.committer_->commit_changes(build, true);
    CHECK(noted);
    const bool in_time = co_await t.comes_true([&] { return t.log_->written() >= noted->position; });
    EXPECT_TRUE(in_time) << "written up to " << t.log_->written() << ", the bookkeeping is "
                         << noted->position;
    t.slots_->set_replay_floor(1000);
    const auto store = [&] {  // what miners would do
      for (const SegmentId& segment : t.sealed_) t.slots_->mark_stored(segment);
      return done == kWriters;
    };
    const bool all = co_await t.comes_true(store);
    EXPECT_TRUE(all) << done;
    co_await writers.join();
    co_await t.close();
  };
  reactor_.run(body(*this));
}

// The disk itself is full: each write waits as long as was asked for and then fails alone; what was
// acknowledged stays, and once there is room the next one goes through.
TEST_F(CommitterOnDisk, AFullDiskIsToldInTimeAndPasses) {
  options_.outage_wait = 200ms;
  room_error_ = {ErrorKind::no_space, "No space left on device"};
  const auto body = [](CommitterOnDisk& t) -> Task<void> {
    co_await t.open(8 * kSegment);
    Transaction create;
    create.create({1, 1}, {});
    co_await t.commit(std::move(create));
    std::vector<ErrorKind> refused;
    std::size_t done = 0;
    const auto write_all = [&]() -> Task<void> {
      TaskGroup writers(t.reactor_);
      for (std::size_t i = 0; i < 64; ++i) {
        writers.spawn([&t, &done, &refused, i]() -> Task<void> {
          Transaction write;
          write.write({1, 1}, i * 100'000, Bytes(100'000, static_cast<std::uint8_t>(i)));
          const auto committed = co_await t.committer_->commit(std::move(write));
          if (committed) ++done;
          if (!committed) refused.push_back(committed.error().kind());
        });
      }
      co_await writers.join();
    };
    const TimePoint began = t.reactor_.now();
    co_await write_all();
    EXPECT_LT(t.reactor_.now() - began, 5s);
    EXPECT_GT(done, 0u);
    EXPECT_EQ(done + refused.size(), 64u);
    for (const ErrorKind kind : refused) EXPECT_EQ(kind, ErrorKind::no_space);
    const Status durable = co_await t.committer_->durable(t.committer_->accepted());
    EXPECT_TRUE(durable) << durable.error().message();
    t.slots_->set_replay_floor(1000);
    for (const SegmentId& segment : t.sealed_) t.slots_->mark_stored(segment);
    Transaction small;
    small.write({1, 1}, 0, Bytes(1000, 1));
    co_await t.commit(std::move(small));
    co_await t.close();
  };
  reactor_.run(body(*this));
}

}  // namespace
}  // namespace cumulus
