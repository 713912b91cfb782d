// The log room: change records round trip and refuse what is malformed; groups written by the LogWriter come
// back from the slots; torn tails are cut and rot is told. The crash suite (tests/crash) has the disk's part.
#include <cstdlib>
#include <filesystem>
#include <gtest/gtest.h>
#include <random>

#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"
#include "objectstore/cache/slot_store.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/uring_file_system.h"
#include "objectstore/log/change.h"
#include "objectstore/log/coalesce.h"
#include "objectstore/log/log_writer.h"
#include "objectstore/log/replay.h"
#include "tests/unit/random_changes.h"

namespace cumulus {
namespace {

const StagedOffset kNothingStaged = [](const cumulus::Run&) -> std::uint32_t { return 0; };

TEST(Change, RoundTripsEveryTypeAndField) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    std::vector<Change> changes;
    Bytes encoded;
    for (std::size_t i = 0; i < 40; ++i) {
      changes.push_back(random_change(random, i % std::variant_size_v<Change>));
      encode_change(changes.back(), kNothingStaged, encoded);
    }
    const auto decoded = decode_changes(encoded, {});
    ASSERT_TRUE(decoded) << decoded.error().message();
    EXPECT_EQ(*decoded, changes);
  }
}

TEST(Change, EveryPrefixOfARecordIsCorrupt) {
  std::mt19937_64 random(7);
  for (std::size_t type = 0; type < std::variant_size_v<Change>; ++type) {
    Bytes encoded;
    encode_change(random_change(random, type), kNothingStaged, encoded);
    for (std::size_t cut = 1; cut < encoded.size(); ++cut) {
      const auto decoded = decode_changes(ByteView(encoded).first(cut), {});
      ASSERT_FALSE(decoded) << "type " << type << " cut at " << cut;
      EXPECT_EQ(decoded.error().kind(), ErrorKind::corrupt);
    }
  }
}

TEST(Change, StagedRunsBecomeAbsoluteInTheirGroup) {
  change::Write write{.object = {3, 9}, .offset = 100, .length = 5000, .skip = 7};
  write.run = {.segment = {kStagedKind, 0, 77}, .plain_length = 6000, .cell_log2 = 12};
  Bytes encoded;
  encode_change(
      write, [](const cumulus::Run& run) { return run.segment.sequence == 77 ? 4112u : 0u; }, encoded);
  const CellArea area{{SegmentKind::log, 2, 31}, 1000, 0xABCDEF};
  const auto decoded = decode_changes(encoded, area);
  ASSERT_TRUE(decoded) << decoded.error().message();
  write.run.segment = area.segment;
  write.run.base = 5112;
  write.run.nonce = area.nonce;
  EXPECT_EQ(decoded->at(0), Change(write));
}

TEST(Change, UnknownRecordsAreSkippedOnlyWhenOptional) {
  const Bytes optional{200, 0, 2, 1, 2};
  Bytes with_known = optional;
  encode_change(change::Remove{{1, 2}}, kNothingStaged, with_known);
  const auto decoded = decode_changes(with_known, {});
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->size(), 1u);
  const auto required = decode_changes(Bytes{200, 1, 0}, {});
  ASSERT_FALSE(required);
  EXPECT_EQ(required.error().kind(), ErrorKind::unsupported);
  EXPECT_EQ(decode_changes(Bytes{200, 2, 0}, {}).error().kind(), ErrorKind::unsupported);
  EXPECT_EQ(decode_changes(Bytes{0, 1, 0}, {}).error().kind(), ErrorKind::corrupt);
  EXPECT_EQ(decode_changes(Bytes{5, 0, 2, 1, 2}, {}).error().kind(),
            ErrorKind::corrupt);  // known, flag missing
}

TEST(Change, ImpossibleValuesAreCorrupt) {
  const auto refused = [](const Change& change) {
    Bytes encoded;
    encode_change(change, kNothingStaged, encoded);
    const auto decoded = decode_changes(encoded, {});
    return !decoded && decoded.error().kind() == ErrorKind::corrupt;
  };
  const cumulus::Run run{
      .segment = {SegmentKind::log, 1, 1}, .base = 512, .plain_length = 100, .cell_log2 = 12};
  EXPECT_FALSE(refused(change::Write{{1, 1}, 0, 100, 0, run}));
  EXPECT_TRUE(refused(change::Write{{1, 1}, 0, 100, 1, run}));  // past the run's end
  EXPECT_TRUE(refused(change::Write{{1, 0}, 0, 100, 0, run}));  // object 0
  EXPECT_TRUE(refused(change::Write{{1, kObjectIdMax + 1}, 0, 100, 0, run}));
  cumulus::Run far = run;
  far.base = ~0u - 50;
  EXPECT_TRUE(refused(change::Write{{1, 1}, 0, 100, 0, far}));  // past 32-bit offsets
  cumulus::Run coarse = run;
  coarse.cell_log2 = 21;
  EXPECT_TRUE(refused(change::Write{{1, 1}, 0, 100, 0, coarse}));
  EXPECT_TRUE(refused(change::SetXattr{{1, 1}, Bytes(256), {}}));
  EXPECT_TRUE(refused(change::SetOmap{{1, 1}, Bytes(1025), {}}));
  EXPECT_TRUE(refused(change::Zero{{1, 1}, (1ull << 63) - 1, 1, false, false}));
}

// FORMAT.md, "Change records", has these very bytes.
TEST(Change, WorkedExample) {
  Bytes encoded;
  encode_change(change::Create{{1, 300}, {'h', 'i'}}, kNothingStaged, encoded);
  change::Write write{.object = {1, 300}, .offset = 4096, .length = 10, .skip = 0};
  write.run = {.segment = {kStagedKind, 0, 1}, .plain_length = 10, .cell_log2 = 14};
  encode_change(write, kNothingStaged, encoded);
  EXPECT_EQ(to_hex(encoded),
            "040106"
            "01ac02026869"
            "01010c"
            "01ac0280200a0000000a0e00");
}

TEST(Coalescing, LeavesTheLastHeaderAndTheSumOfUsage) {
  using namespace change;
  const ObjectRef file{1, 10};
  const ObjectRef folder{1, 2};
  const Bytes a{1};
  const Bytes b{2};
  const Bytes c{3};
  std::vector<Change> changes{Create{file, a},
                              SetHeader{folder, a},
                              AddUsage{1, 0, 0, 1},
                              SetXattr{file, a, b},
                              AddUsage{1, 7, 5, 1},
                              SetHeader{file, b},
                              AddUsage{1, 0, 9, 0},
                              SetHeader{folder, b},
                              CreateSnapshot{1, "s", 5},
                              SetHeader{folder, c},
                              AddUsage{1, 0, 1, 1},
                              AddUsage{1, 0, -1, -1},
                              SetHeader{file, c},
                              Remove{file},
                              AddUsage{1, 0, INT64_MAX, 0},
                              SetHeader{folder, a},
                              AddUsage{1, 0, INT64_MAX, 0}};
  coalesce(changes);
  const std::vector<Change> expected{
      Create{file, b},      SetHeader{folder, b},         AddUsage{1, 0, 9, 1},
      SetXattr{file, a, b}, AddUsage{1, 7, 5, 1},         CreateSnapshot{1, "s", 5},
      SetHeader{folder, a}, AddUsage{1, 0, INT64_MAX, 0}, SetHeader{file, c},
      Remove{file},         AddUsage{1, 0, INT64_MAX, 0}};
  EXPECT_EQ(changes, expected);
}

TEST(Group, HeaderRoundTripsAndRefuses) {
  GroupHeader header{.number = 7,
                     .written_at = 1234567,
                     .durable_upto = 5,
                     .bookkeeping = true,
                     .total_length = 512,
                     .records_length = 100,
                     .cells_length = 200,
                     .previous_tag = {1, 2, 3}};
  const auto plain = header.encode();
  const auto decoded = GroupHeader::decode(plain, 9);
  ASSERT_TRUE(decoded) << decoded.error().message();
  EXPECT_EQ(*decoded, header);
  const auto refused = [](GroupHeader bad) { return !GroupHeader::decode(bad.encode(), 9); };
  GroupHeader bad = header;
  bad.total_length = 1024;
  EXPECT_TRUE(refused(bad));
  bad = header;
  bad.durable_upto = 7;
  EXPECT_TRUE(refused(bad));
  bad = header;
  bad.number = 0;
  EXPECT_TRUE(refused(bad));
  for (std::size_t at : {12u, 13u, 56u, 79u}) {  // flags, reserved
    auto bytes = plain;
    bytes[at] ^= 0x80;
    EXPECT_FALSE(GroupHeader::decode(bytes, 9)) << at;
  }
}

// A volume's log on a real directory.
class LogOnDisk : public testing::Test {
 public:
  LogOnDisk() {
    std::string name = testing::TempDir() + "/log_test_XXXXXX";
    directory_ = ::mkdtemp(name.data());
  }
  ~LogOnDisk() override { std::filesystem::remove_all(directory_); }

  struct Written {
    LogPosition number;
    Bytes records;
    std::vector<Bytes> runs;
  };

  void run(Task<void> task) { reactor_.run(std::move(task)); }

  Task<void> open_slots() {
    SlotStoreOptions options;
    options.segment_size = 256u << 10;
    options.budget_bytes = 16u << 20;
    auto opened =
        co_await SlotStore::open(reactor_, *files_, directory_, keys_.volume_id(), options, metrics_);
    CHECK(opened);
    slots_ = std::move(*opened);
  }

  std::unique_ptr<LogWriter> writer(LogStart start) {
    LogOptions options;
    options.segment_size = 256u << 10;
    start.instance.bytes[0] = 9;
    return LogWriter::make(reactor_, *slots_, keys_, keys_.volume_id(), start, options, metrics_,
                           [this](SealedSegment segment) { sealed_.push_back(std::move(segment)); });
  }

  GroupDraft draft(std::mt19937_64& random, Written& written) {
    GroupDraft draft;
    written.records.resize(random() % 3000);
    for (auto& byte : written.records) byte = static_cast<std::uint8_t>(random());
    draft.records = written.records;
    for (unsigned runs = random() % 4; runs > 0; --runs) {
      auto plain = std::make_shared<Bytes>(1 + random() % 20000);
      for (auto& byte : *plain) byte = static_cast<std::uint8_t>(random());
      written.runs.push_back(*plain);
      draft.runs.push_back({*plain, static_cast<std::uint8_t>(9 + random() % 6), plain});
    }
    return draft;
  }

  Task<void> append_some(LogWriter& log, std::mt19937_64& random, int count) {
    for (int i = 0; i < count; ++i) {
      Written written;
      GroupDraft next = draft(random, written);
      const auto appended = co_await log.append(std::move(next));
      CHECK(appended);
      written.number = appended->number;
      written_.push_back(std::move(written));
    }
  }

  Task<Result<RecoveredLog>> recover(ReplayStart start, FetchSegment fetch, std::vector<ReplayedGroup>& seen,
                                     std::vector<Bytes>& records) {
    const GroupVisitor visit = [&](const ReplayedGroup& group) -> Task<Status> {
      return note(group, seen, records);
    };
    co_return co_await recover_local_log(reactor_, keys_, *slots_, start, std::move(fetch), visit);
  }
  static Task<Status> note(const ReplayedGroup& group, std::vector<ReplayedGroup>& seen,
                           std::vector<Bytes>& records) {
    seen.push_back(group);
    records.emplace_back(group.records.begin(), group.records.end());
    co_return Status();
  }

  Reactor reactor_{1};
  std::unique_ptr<FileSystem> files_ = make_worker_file_system(reactor_);
  Metrics metrics_;
  const KeyTree keys_{SecretKey{}};
  std::string directory_;
  std::unique_ptr<SlotStore> slots_;
  std::vector<SealedSegment> sealed_;
  std::vector<Written> written_;
};

TEST_F(LogOnDisk, WhatWasWrittenComesBackInOrderAcrossSegmentsAndReopenings) {
  const auto body = [](LogOnDisk& t) -> Task<void> {
    std::mt19937_64 random(3);
    LogStart start;
    for (int opening = 0; opening < 3; ++opening) {
      co_await t.open_slots();
      if (opening > 0) {
        std::vector<ReplayedGroup> seen;
        std::vector<Bytes> records;
        auto recovered = co_await t.recover({}, {}, seen, records);
        CHECK(recovered);
        EXPECT_EQ(seen.size(), t.written_.size());
        for (std::size_t i = 0; i < seen.size() && i < t.written_.size(); ++i) {
          EXPECT_EQ(seen[i].header.number, t.written_[i].number);
          EXPECT_EQ(records[i], t.written_[i].records);
        }
        EXPECT_EQ(recovered->segments.size(), t.sealed_.size());
        for (std::size_t i = 0; i < t.sealed_.size() && i < recovered->segments.size(); ++i) {
          EXPECT_EQ(recovered->segments[i].chain, t.sealed_[i].chain);
          EXPECT_EQ(recovered->segments[i].length, t.sealed_[i].length);
        }
        start = recovered->next;
      }
      auto log = t.writer(start);
      co_await t.append_some(*log, random, 40);
      const Status durable = co_await log->make_durable(log->written());
      EXPECT_TRUE(durable);
      EXPECT_EQ(log->durable(), log->written());
      const Status closed = co_await log->close();
      EXPECT_TRUE(closed);
      co_await t.slots_->close();
      log.reset();
      t.slots_.reset();
    }
    EXPECT_GT(t.sealed_.size(), 5u);
    for (std::size_t i = 1; i < t.sealed_.size(); ++i) {
      EXPECT_EQ(t.sealed_[i].header.previous_chain, t.sealed_[i - 1].chain);
      EXPECT_EQ(t.sealed_[i].first_group, t.sealed_[i - 1].last_group + 1);
    }
  };
  run(body(*this));
}

// A rescue's two copies after a power cut: the old file, whose removal did not last, and the one that the log
// went on in, which cannot be read at the moment.
class RescuedCopies final : public LocalSegments {
 public:
  static constexpr std::uint32_t kOld = 1000;

  RescuedCopies(LocalSegments& slots, std::size_t old_length) : slots_(slots), old_length_(old_length) {}
  std::vector<Found> log_segments() const override {
    std::vector<Found> found = slots_.log_segments();
    CHECK(found.size() == 1);
    found.push_back({found.front().header, kOld});
    return found;
  }
  Task<Result<std::shared_ptr<const Buffer>>> read_slot(std::uint32_t slot) override {
    if (slot != kOld && fails) co_return fail(ErrorKind::io, "read it: simulated I/O error");
    CO_TRY(auto whole, co_await slots_.read_slot(slots_.log_segments().front().slot));
    if (slot != kOld) co_return whole;
    const auto old = std::make_shared<Buffer>(whole->size());
    std::ranges::fill(old->view(), std::uint8_t{0});
    std::copy_n(whole->data(), old_length_, old->data());
    co_return std::shared_ptr<const Buffer>(old);
  }
  Task<Result<std::uint32_t>> restore(SegmentHeader header, std::shared_ptr<const Buffer> bytes,
                                      std::uint64_t length) override {
    return slots_.restore(header, std::move(bytes), length);
  }
  Task<Status> discard(std::uint32_t slot) override {
    if (slot == kOld) co_return Status();
    co_return co_await slots_.discard(slot);
  }

  bool fails = true;

 private:
  LocalSegments& slots_;
  const std::size_t old_length_;
};

TEST_F(LogOnDisk, ACopyThatCannotBeReadIsNotPassedOverForAnOlderOne) {
  const auto body = [](LogOnDisk& t) -> Task<void> {
    std::mt19937_64 random(4);
    co_await t.open_slots();
    auto log = t.writer({});
    co_await t.append_some(*log, random, 1);
    const std::size_t old_length = log->open_bytes() + 4096;
    co_await t.append_some(*log, random, 3);
    const Status closed = co_await log->close();
    CHECK(closed);
    co_await t.slots_->close();
    log.reset();
    co_await t.open_slots();
    RescuedCopies copies(*t.slots_, old_length);
    LogPosition seen = 0;
    const GroupVisitor visit = [&seen](const ReplayedGroup& group) -> Task<Status> {
      seen = group.header.number;
      co_return Status();
    };
    const auto without = co_await recover_local_log(t.reactor_, t.keys_, copies, {}, {}, visit);
    EXPECT_TRUE(!without && without.error().kind() == ErrorKind::io);
    EXPECT_EQ(seen, 0u) << "the shorter copy was taken for the log";
    copies.fails = false;
    const auto with = co_await recover_local_log(t.reactor_, t.keys_, copies, {}, {}, visit);
    EXPECT_TRUE(with);
    EXPECT_EQ(seen, t.written_.back().number);
    co_await t.slots_->close();
  };
  run(body(*this));
}

}  // namespace
}  // namespace cumulus
