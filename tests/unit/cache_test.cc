// The slots: what may be evicted and what never, waiting when everything is dirty, the reserve, what a
// restart finds, and that a restored segment ends where it ends.
#include <algorithm>
#include <array>
#include <gtest/gtest.h>
#include <map>

#include "objectstore/base/check.h"
#include "objectstore/cache/slot_store.h"
#include "tests/fakes/sim_disk.h"
#include "tests/fakes/sim_runtime.h"
#include "tests/fakes/volatile_disk.h"

namespace cumulus {
namespace {

constexpr std::uint32_t kSegmentSize = 256u << 10;
constexpr std::uint32_t kBudgetSlots = 6;
constexpr std::uint64_t kStepsMax = 1'000'000;
const std::string kDirectory = "/segments";

// A store over a simulated disk, in virtual time. Test bodies are coroutines run to their end.
class CacheTest : public testing::Test {
 public:
  using Body = Task<void> (*)(CacheTest&);

  void run(Body body) {
    bool ended = false;
    process_.spawn(body(*this), [&ended] { ended = true; });
    ASSERT_TRUE(world_.run_until([&ended] { return ended; }, kStepsMax)) << "the test's body does not end";
  }

  Task<void> open() {
    auto opened = co_await try_open();
    CHECK(opened);
    slots_ = std::move(*opened);
  }
  Task<Result<std::unique_ptr<SlotStore>>> try_open() {
    SlotStoreOptions options;
    options.segment_size = kSegmentSize;
    options.budget_bytes = std::uint64_t{kBudgetSlots} * kSegmentSize;
    options.reserve = 2;
    co_return co_await SlotStore::open(process_, disk_, kDirectory, VolumeId{}, options, metrics_);
  }
  Task<void> close() {
    co_await slots_->close();
    slots_.reset();
  }

  static SegmentHeader header_of(SegmentKind kind, Sequence sequence) {
    SegmentHeader header;
    header.id = {kind, 1, sequence};
    return header;
  }
  static SegmentId log_id(Sequence sequence) { return {SegmentKind::log, 1, sequence}; }

  // A whole segment's bytes: its header, then `fill`.
  static std::shared_ptr<Buffer> bytes_of(const SegmentHeader& header, std::uint8_t fill) {
    auto buffer = std::make_shared<Buffer>(kSegmentSize);
    std::ranges::fill(buffer->view(), fill);
    Bytes encoded;
    header.encode(encoded);
    std::ranges::copy(encoded, buffer->data());
    return buffer;
  }

  // As the log does: takes a slot, writes the segment, assigns it.
  Task<void> write_log_segment(Sequence sequence) {
    auto taken = co_await slots_->take(false);
    CHECK(taken);
    const auto buffer = bytes_of(header_of(SegmentKind::log, sequence), static_cast<std::uint8_t>(sequence));
    const Status written = co_await (*taken)->file().write_at(0, buffer->view());
    CHECK(written);
    const Status durable = co_await (*taken)->file().datasync();
    CHECK(durable);
    slots_->assign(**taken, log_id(sequence));
  }

  Task<void> take_and_note(bool urgent, bool& got) {
    const auto taken = co_await slots_->take(urgent);
    got = taken.has_value();
    held_.push_back(got ? *taken : nullptr);
  }

  bool here(Sequence sequence) const { return slots_->has_whole(log_id(sequence)); }

  SimWorld world_{11};
  SimProcess& process_ = world_.start_process("cache");
  VolatileDisk disk_{process_, 5};
  Metrics metrics_;
  std::unique_ptr<SlotStore> slots_;
  std::vector<std::shared_ptr<SegmentSlot>> held_;
};

TEST_F(CacheTest, WhenAllIsDirtyTakeWaitsUntilSomethingIsStored) {
  run([](CacheTest& t) -> Task<void> {
    co_await t.open();
    t.slots_->set_replay_floor(100);
    for (Sequence s = 1; s <= kBudgetSlots; ++s) co_await t.write_log_segment(s);
    bool got = false;
    TaskGroup waiting(t.process_);
    waiting.spawn(t.take_and_note(false, got));
    co_await t.process_.sleep_for(std::chrono::seconds(10));
    EXPECT_FALSE(got);
    for (Sequence s = 1; s <= kBudgetSlots; ++s) EXPECT_TRUE(t.here(s)) << s;
    t.slots_->mark_stored(log_id(2));
    co_await waiting.join();
    EXPECT_TRUE(got);
    EXPECT_FALSE(t.here(2));
    EXPECT_TRUE(t.here(1) && t.here(3));
    t.held_.clear();
    co_await t.close();
  });
}

TEST_F(CacheTest, UrgentTakesUseTheReserveAndNoMore) {
  run([](CacheTest& t) -> Task<void> {
    co_await t.open();
    for (Sequence s = 1; s <= kBudgetSlots; ++s) co_await t.write_log_segment(s);
    bool got[3] = {};
    TaskGroup waiting(t.process_);
    for (bool& each : got) {
      waiting.spawn(t.take_and_note(true, each));
      co_await t.process_.sleep_for(std::chrono::seconds(3));
    }
    EXPECT_TRUE(got[0] && got[1]);
    EXPECT_FALSE(got[2]);
    co_await t.slots_->close();  // who waits is told
    co_await waiting.join();
    EXPECT_FALSE(got[2]);
    t.held_.clear();
    t.slots_.reset();
  });
}

TEST_F(CacheTest, WhatReplayNeedsAndWhatIsPinnedIsNotEvicted) {
  run([](CacheTest& t) -> Task<void> {
    co_await t.open();
    for (Sequence s = 1; s <= 3; ++s) {
      co_await t.write_log_segment(s);
      t.slots_->mark_stored(log_id(s));
    }
    t.slots_->drop_clean();
    EXPECT_TRUE(t.here(1) && t.here(2) && t.here(3));  // no floor yet
    t.slots_->set_replay_floor(3);
    auto pin = t.slots_->lookup(log_id(1), 0, 4096);
    EXPECT_NE(pin, nullptr);
    t.slots_->drop_clean();
    EXPECT_TRUE(t.here(1));
    EXPECT_FALSE(t.here(2));
    EXPECT_TRUE(t.here(3));
    const auto read = co_await pin->read(5000, 100);
    CHECK(read);
    EXPECT_TRUE(std::ranges::all_of(read->bytes, [](std::uint8_t byte) { return byte == 1; }));
    pin.reset();
    t.slots_->drop_clean();
    EXPECT_FALSE(t.here(1));
    co_await t.close();
  });
}

TEST_F(CacheTest, RangesAreFoundOnlyWhereTheyWereTakenIn) {
  run([](CacheTest& t) -> Task<void> {
    co_await t.open();
    co_await t.process_.sleep_for(std::chrono::seconds(1));  // slots ahead are made
    const auto owner = std::make_shared<Bytes>(kSegmentSize, std::uint8_t{0x5A});
    const SegmentId id = log_id(9);
    // 60 KiB to 200 KiB holds the whole ranges [64, 128) and [128, 192) KiB.
    co_await t.slots_->admit_range(id, 60u << 10, owner, ByteView(*owner).first(140u << 10));
    EXPECT_FALSE(t.slots_->has_whole(id));
    EXPECT_EQ(t.slots_->lookup(id, 60u << 10, 1), nullptr);
    EXPECT_EQ(t.slots_->lookup(id, 192u << 10, 1), nullptr);
    EXPECT_EQ(t.slots_->lookup(id, (192u << 10) - 1, 2), nullptr);
    const auto handle = t.slots_->lookup(id, 64u << 10, 128u << 10);
    CHECK(handle != nullptr);
    const auto read = co_await handle->read(100'000, 5000);
    CHECK(read);
    EXPECT_TRUE(std::ranges::all_of(read->bytes, [](std::uint8_t byte) { return byte == 0x5A; }));
    t.slots_->forget(id);
    EXPECT_EQ(t.slots_->lookup(id, 64u << 10, 1), nullptr);
    co_await t.close();
  });
}

TEST_F(CacheTest, AFullCacheTakesInOnlyWhatIsAskedForAgain) {
  run([](CacheTest& t) -> Task<void> {
    co_await t.open();
    t.slots_->set_replay_floor(100);
    for (Sequence s = 1; s <= 4; ++s) {
      co_await t.write_log_segment(s);
      t.slots_->mark_stored(log_id(s));
    }
    co_await t.process_.sleep_for(std::chrono::seconds(2));
    const auto bytes = bytes_of(header_of(SegmentKind::log, 50), 7);
    co_await t.slots_->admit_whole(log_id(50), bytes, kSegmentSize);
    EXPECT_FALSE(t.here(50));
    co_await t.slots_->admit_whole(log_id(50), bytes, kSegmentSize);
    EXPECT_TRUE(t.here(50));
    co_await t.close();
  });
}

TEST_F(CacheTest, ARestartFindsLogSegmentsDirtyUntilTheyAreClassified) {
  run([](CacheTest& t) -> Task<void> {
    co_await t.open();
    for (Sequence s = 1; s <= 3; ++s) co_await t.write_log_segment(s);
    co_await t.close();
    co_await t.open();
    EXPECT_EQ(t.slots_->log_segments().size(), 3u);
    EXPECT_EQ(t.slots_->stats().dirty_bytes, 3u * kSegmentSize);
    t.slots_->set_replay_floor(100);
    t.slots_->drop_clean();
    EXPECT_TRUE(t.here(1) && t.here(2) && t.here(3));
    t.slots_->classify([](const SegmentHeader& header) {
      if (header.id.sequence == 1) return SlotUse::stored;
      return header.id.sequence == 2 ? SlotUse::unknown : SlotUse::dirty;
    });
    EXPECT_TRUE(t.here(1));
    EXPECT_FALSE(t.here(2));
    t.slots_->drop_clean();
    EXPECT_FALSE(t.here(1));
    EXPECT_TRUE(t.here(3));
    co_await t.close();
  });
}

// A recycled slot may hold a longer copy of the very segment that is restored into it.
// A slot that was written and is damaged, or of a newer version, may hold the newest of the log: the store is
// not opened without it, and it is left as it is.
TEST_F(CacheTest, ASlotThatIsNotUnderstoodIsNotPassedOver) {
  run([](CacheTest& t) -> Task<void> {
    co_await t.open();
    co_await t.write_log_segment(1);
    co_await t.close();
    std::string path;
    Bytes good;
    const auto names = t.disk_.list(kDirectory);
    CHECK(names);
    for (const std::string& name : *names) {
      auto bytes = co_await t.disk_.read_file(kDirectory + "/" + name, kSegmentSize);
      CHECK(bytes);
      if ((*bytes)[0] == 0) continue;
      path = kDirectory + "/" + name;
      good = *bytes;
    }
    constexpr std::size_t kMagicAt = 0;
    constexpr std::size_t kVersionAt = 4;
    constexpr std::size_t kVolumeAt = 24;
    constexpr std::size_t kCut = ~std::size_t{0};
    for (const std::size_t at : {kMagicAt, kVersionAt, kVolumeAt, kCut}) {
      Bytes spoiled = good;
      if (at == kCut)
        spoiled.resize(kSegmentSize / 2);
      else
        spoiled[at] ^= 2;
      const Bytes before = spoiled;
      const Status replaced = co_await t.disk_.replace_file(path, std::move(spoiled));
      CHECK(replaced);
      const auto opened = co_await t.try_open();
      const std::string said = opened ? "it was opened" : opened.error().message();
      EXPECT_NE(said.find(path), std::string::npos) << at << ": " << said;
      const auto now = co_await t.disk_.read_file(path, kSegmentSize);
      EXPECT_TRUE(now && *now == before) << at;
    }
    const Status mended = co_await t.disk_.replace_file(path, std::move(good));
    CHECK(mended);
    t.disk_.fail_reads(true);
    const auto unread = co_await t.try_open();
    EXPECT_TRUE(!unread && unread.error().kind() == ErrorKind::io);
    t.disk_.fail_reads(false);
    co_await t.open();
    EXPECT_TRUE(t.here(1));
    co_await t.close();
  });
}

// What lets slots go again (the index, the home file) must still be written when the disk is small.
TEST_F(CacheTest, SlotsLeaveTheLastOfTheDisk) {
  run([](CacheTest& t) -> Task<void> {
    t.disk_.set_capacity(std::uint64_t{kBudgetSlots} * kSegmentSize);
    co_await t.open();
    std::array<bool, kBudgetSlots> got{};
    TaskGroup waiting(t.process_);
    for (bool& one : got) waiting.spawn(t.take_and_note(false, one));
    co_await t.process_.sleep_for(std::chrono::seconds(10));
    EXPECT_EQ(std::ranges::count(got, true), kBudgetSlots - 2);
    const auto space = t.disk_.space(kDirectory);
    EXPECT_TRUE(space && space->free == 2 * kSegmentSize);
    EXPECT_NE(t.slots_->refusal(), nullptr);
    t.held_.clear();
    co_await t.slots_->close();
    co_await waiting.join();
    t.held_.clear();
    t.slots_.reset();
  });
}

// A process that dies between making a slot's file and syncing it leaves one that is there, all zeros, and
// whose size may not outlive a power cut.
TEST_F(CacheTest, ASlotWhoseMakerDiedIsDurableBeforeItIsUsed) {
  run([](CacheTest& t) -> Task<void> {
    SimDisk disk(3);
    SimFileSystem files(t.process_, disk);
    OpenOptions how;
    how.write = true;
    how.create = true;
    const std::string path = kDirectory + "/slot-000000";
    auto file = files.open(path, how);
    CHECK(file);
    const Status allocated = co_await (*file)->allocate(kSegmentSize);
    CHECK(allocated);
    file->reset();
    SlotStoreOptions options;
    options.segment_size = kSegmentSize;
    auto slots = co_await SlotStore::open(t.process_, files, kDirectory, VolumeId{}, options, t.metrics_);
    CHECK(slots);
    auto taken = co_await (*slots)->take(false);
    CHECK(taken);
    EXPECT_EQ((*taken)->number(), 0u);
    const auto buffer = bytes_of(header_of(SegmentKind::log, 1), 1);
    const Status written = co_await (*taken)->file().write_at(0, buffer->view());
    CHECK(written);
    for (int cut = 0; cut < 20; ++cut) {
      const auto left = disk.image_after_power_cut();
      EXPECT_TRUE(left.contains(path) && left.at(path).size() == kSegmentSize) << cut;
    }
    taken->reset();
    co_await (*slots)->close();
  });
}

// Another volume's slot is no end of this log; it is not written over either.
TEST_F(CacheTest, ASlotOfAnotherVolumeIsLeftAlone) {
  run([](CacheTest& t) -> Task<void> {
    SegmentHeader header = header_of(SegmentKind::log, 1);
    header.volume.bytes[3] = 9;
    const std::string path = kDirectory + "/slot-000000";
    const auto buffer = bytes_of(header, 7);
    const Bytes before(buffer->data(), buffer->data() + kSegmentSize);
    Bytes bytes = before;
    const Status placed = co_await t.disk_.replace_file(path, std::move(bytes));
    CHECK(placed);
    co_await t.open();
    t.slots_->set_replay_floor(1000);
    for (Sequence s = 10; s < 10 + 3 * kBudgetSlots; ++s) {
      co_await t.write_log_segment(s);
      t.slots_->mark_stored(log_id(s));
    }
    co_await t.close();
    const auto now = co_await t.disk_.read_file(path, kSegmentSize);
    EXPECT_TRUE(now && *now == before);
  });
}

TEST_F(CacheTest, ARestoredSegmentHasOnlyZerosBehindItsEnd) {
  run([](CacheTest& t) -> Task<void> {
    co_await t.open();
    co_await t.process_.sleep_for(std::chrono::seconds(1));
    const SegmentHeader header = header_of(SegmentKind::log, 1);
    const auto bytes = bytes_of(header, 0xEE);
    std::vector<std::shared_ptr<SegmentSlot>> soiled;
    for (std::uint32_t i = 0; i < kBudgetSlots; ++i) {
      auto taken = co_await t.slots_->take(false);
      CHECK(taken);
      const Status written = co_await (*taken)->file().write_at(0, bytes->view());
      CHECK(written);
      soiled.push_back(*std::move(taken));
    }
    soiled.clear();  // free again, as they are
    const auto restored = co_await t.slots_->restore(header, bytes, 8192);
    CHECK(restored);
    const auto read = co_await t.slots_->read_slot(*restored);
    CHECK(read);
    const ByteView all = (*read)->view();
    EXPECT_EQ(all[8191], 0xEE);
    EXPECT_TRUE(std::ranges::all_of(all.subspan(8192), [](std::uint8_t byte) { return byte == 0; }));
    co_await t.close();
  });
}

// Killed with a full cache and its reserve in use: nothing is known to be stored before the log is recovered,
// so recovery must not wait for a slot to be evicted.
TEST_F(CacheTest, AFullCacheIsRecovered) {
  run([](CacheTest& t) -> Task<void> {
    co_await t.open();
    for (Sequence s = 1; s <= kBudgetSlots; ++s) co_await t.write_log_segment(s);
    for (Sequence s = kBudgetSlots + 1; s <= kBudgetSlots + 2; ++s) {
      const auto taken = co_await t.slots_->take(true);
      CHECK(taken);
      const auto buffer = bytes_of(header_of(SegmentKind::log, s), 1);
      const Status written = co_await (*taken)->file().write_at(0, buffer->view());
      CHECK(written);
      t.slots_->assign(**taken, log_id(s));
    }
    co_await t.close();
    co_await t.open();
    const auto found = t.slots_->log_segments();
    EXPECT_EQ(found.size(), kBudgetSlots + 2);
    for (const LocalSegments::Found& each : found) {
      const auto bytes = co_await t.slots_->read_slot(each.slot);
      CHECK(bytes);
      const auto restored = co_await t.slots_->restore(each.header, *bytes, kSegmentSize);
      CHECK(restored);
      EXPECT_NE(*restored, each.slot);
      const Status discarded = co_await t.slots_->discard(each.slot);
      CHECK(discarded);
    }
    EXPECT_EQ(t.slots_->log_segments().size(), kBudgetSlots + 2);
    co_await t.close();
  });
}

// The same with a cache that has filled its disk: the last room is kept for this.
TEST_F(CacheTest, ACacheThatFilledItsDiskIsRecovered) {
  run([](CacheTest& t) -> Task<void> {
    t.disk_.set_capacity(5 * kSegmentSize + kSegmentSize / 2);
    co_await t.open();
    for (Sequence s = 1; s <= 3; ++s) co_await t.write_log_segment(s);
    co_await t.close();
    co_await t.open();
    const auto found = t.slots_->log_segments();
    EXPECT_EQ(found.size(), 3u);
    for (const LocalSegments::Found& each : found) {
      const auto bytes = co_await t.slots_->read_slot(each.slot);
      CHECK(bytes);
      const auto restored = co_await t.slots_->restore(each.header, *bytes, kSegmentSize);
      EXPECT_TRUE(restored) << restored.error().message();
      if (!restored) break;
      const Status discarded = co_await t.slots_->discard(each.slot);
      CHECK(discarded);
    }
    co_await t.close();
  });
}

}  // namespace
}  // namespace cumulus
