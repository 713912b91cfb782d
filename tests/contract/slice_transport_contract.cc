#include "tests/contract/slice_transport_contract.h"

#include <algorithm>

#include "objectstore/crypto/merkle.h"
#include "objectstore/io/sync.h"
#include "tests/fakes/sample_formats.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kLeaf = 4096;

SegmentId log_segment(Sequence sequence) { return {SegmentKind::log, 1, sequence}; }

SlicePut put_of(const SampleSegment& segment, std::uint16_t index) {
  SlicePut put;
  put.slice = {segment.manifest.id(), index};
  put.manifest = segment.encoded;
  put.data = *segment.slices[index];
  put.owner = segment.slices[index];
  return put;
}

SliceRead read_of(const SliceId& slice, std::uint64_t offset, std::uint64_t length) {
  SliceRead read;
  read.slice = slice;
  read.offset = offset;
  read.length = length;
  auto into = std::make_shared<Bytes>(length);
  read.into = *into;
  read.owner = into;
  return read;
}

ByteView bytes_of(const SliceRead& read) { return read.into; }

SliceRead proof_read_of(const SliceId& slice, std::uint64_t offset, std::uint64_t length) {
  SliceRead read;
  read.slice = slice;
  read.offset = offset;
  read.length = length;
  read.with_proof = true;
  return read;
}

template <class T>
void expect_error(const T& result, ErrorKind kind) {
  ASSERT_FALSE(result.has_value()) << "expected " << to_string(kind);
  EXPECT_EQ(result.error().kind(), kind) << result.error().message();
}

}  // namespace

void SliceTransportContract::run(std::function<Task<void>()> body) {
  const auto whole = [](std::function<Task<void>()> test, TransportHarness& harness) -> Task<void> {
    co_await test();
    co_await harness.tear_down();
  };
  harness_->run(whole(std::move(body), *harness_));
}

TEST_P(SliceTransportContract, WhatWasPutIsRead) {
  run([this]() -> Task<void> {
    const SampleSegment segment = sample_segment(log_segment(1));
    for (std::uint16_t index = 0; index < 3; ++index) {
      const SlicePut put = put_of(segment, index);
      const Status stored = co_await transport().put(miner(index), put, soon());
      EXPECT_TRUE(stored) << stored.error().message();
    }
    for (std::uint16_t index = 0; index < 3; ++index) {
      const Bytes& data = *segment.slices[index];
      SliceRead read = read_of({segment.manifest.id(), index}, 0, data.size());
      read.with_manifest = true;
      const auto answer = co_await transport().read(miner(index), read, soon());
      EXPECT_TRUE(answer) << answer.error().message();
      if (!answer) continue;
      EXPECT_TRUE(equal(bytes_of(read), data));
      EXPECT_EQ(answer->manifest, *segment.encoded);
    }
  });
}

TEST_P(SliceTransportContract, PutIsIdempotentAndImmutable) {
  run([this]() -> Task<void> {
    const SampleSegment segment = sample_segment(log_segment(1));
    const SampleSegment other = sample_segment(log_segment(1), 1, 2);
    EXPECT_TRUE(co_await transport().put(miner(0), put_of(segment, 0), soon()));
    EXPECT_TRUE(co_await transport().put(miner(0), put_of(segment, 0), soon()));
    const Status refused = co_await transport().put(miner(0), put_of(other, 0), soon());
    expect_error(refused, ErrorKind::exists);
    // Equal bytes, of a segment that differs elsewhere: listed, they would count for the wrong one.
    SampleSegment variant = segment;
    variant.manifest.roots[1] = other.manifest.roots[1];
    sign_manifest(variant.manifest, sample_key());
    variant.encoded = std::make_shared<const Bytes>(variant.manifest.encode());
    const Status listed = co_await transport().put(miner(0), put_of(variant, 0), soon());
    expect_error(listed, ErrorKind::exists);
    const SliceRead read = read_of({segment.manifest.id(), 0}, 0, 100);
    EXPECT_TRUE(co_await transport().read(miner(0), read, soon()));
    EXPECT_TRUE(equal(bytes_of(read), ByteView(*segment.slices[0]).first(100)));
  });
}

TEST_P(SliceTransportContract, BytesThatTheManifestDoesNotNameAreRefused) {
  run([this]() -> Task<void> {
    const SampleSegment segment = sample_segment(log_segment(1));
    auto altered = std::make_shared<Bytes>(*segment.slices[0]);
    (*altered)[777] ^= 1;
    SlicePut put = put_of(segment, 0);
    put.data = *altered;
    put.owner = altered;
    const Status wrong = co_await transport().put(miner(0), put, soon());
    expect_error(wrong, ErrorKind::corrupt);

    put = put_of(segment, 0);
    put.data = put.data.first(put.data.size() - 1);
    const Status cut = co_await transport().put(miner(0), put, soon());
    EXPECT_FALSE(cut);

    put = put_of(segment, 0);
    put.slice.segment.sequence = 2;
    const Status misnamed = co_await transport().put(miner(0), put, soon());
    expect_error(misnamed, ErrorKind::invalid);

    auto broken = std::make_shared<Bytes>(*segment.encoded);
    broken->back() ^= 1;
    put = put_of(segment, 0);
    put.manifest = broken;
    EXPECT_FALSE(co_await transport().put(miner(0), put, soon()));
    // None of that left anything behind.
    std::vector<SliceId> asked{{log_segment(1), 0}, {log_segment(2), 0}};
    const auto have = co_await transport().have(miner(0), asked, soon());
    EXPECT_TRUE(have);
    if (have) {
      EXPECT_EQ(*have, std::vector<std::optional<Digest>>(2));
    }
  });
}

TEST_P(SliceTransportContract, RangesAreExact) {
  run([this]() -> Task<void> {
    const SampleSegment segment = sample_segment(log_segment(1));
    EXPECT_TRUE(co_await transport().put(miner(0), put_of(segment, 1), soon()));
    const Bytes& data = *segment.slices[1];
    const SliceId slice{segment.manifest.id(), 1};
    const std::pair<std::uint64_t, std::uint64_t> ranges[] = {
        {0, 1}, {1, 1}, {4095, 2}, {4096, 4096}, {100, 9000}, {data.size() - 1, 1}, {0, data.size()}};
    for (const auto& [offset, length] : ranges) {
      const SliceRead read = read_of(slice, offset, length);
      const auto answer = co_await transport().read(miner(0), read, soon());
      EXPECT_TRUE(answer) << offset << "+" << length;
      EXPECT_TRUE(equal(bytes_of(read), ByteView(data).subspan(offset, length))) << offset << "+" << length;
    }
    const std::pair<std::uint64_t, std::uint64_t> outside[] = {
        {data.size(), 1}, {data.size() - 1, 2}, {UINT64_MAX - 10, 5}};
    for (const auto& [offset, length] : outside) {
      const SliceRead read = read_of(slice, offset, length);
      const auto answer = co_await transport().read(miner(0), read, soon());
      expect_error(answer, ErrorKind::invalid);
    }
  });
}

TEST_P(SliceTransportContract, ProofsVerify) {
  run([this]() -> Task<void> {
    const SampleSegment segment = sample_segment(log_segment(1));
    EXPECT_TRUE(co_await transport().put(miner(0), put_of(segment, 1), soon()));
    const Bytes& data = *segment.slices[1];
    const SliceId slice{segment.manifest.id(), 1};
    const std::pair<std::uint64_t, std::uint64_t> ranges[] = {
        {0, 1}, {4095, 2}, {5000, 100}, {data.size() - 1, 1}, {0, data.size()}};
    for (const auto& [offset, length] : ranges) {
      const auto answer = co_await transport().read(miner(0), proof_read_of(slice, offset, length), soon());
      EXPECT_TRUE(answer) << offset << "+" << length;
      if (!answer) continue;
      EXPECT_LE(answer->leaves_offset, offset);
      EXPECT_EQ(answer->leaves_offset % kLeaf, 0u);
      EXPECT_GE(answer->leaves_offset + answer->leaves.size(), offset + length);
      const auto verified = [&](ByteView leaves) {
        return merkle_verify(segment.manifest.roots[1], data.size(), answer->leaves_offset / kLeaf, leaves,
                             answer->proof);
      };
      EXPECT_TRUE(verified(answer->leaves)) << offset << "+" << length;
      Bytes altered = answer->leaves;
      altered[0] ^= 1;
      EXPECT_FALSE(verified(altered));
    }
    const SliceChallenge challenge{slice, 2};
    const auto answer = co_await transport().challenge(miner(0), challenge, soon());
    EXPECT_TRUE(answer);
    if (answer) {
      EXPECT_EQ(answer->leaves_offset, 2 * kLeaf);
      EXPECT_TRUE(merkle_verify(segment.manifest.roots[1], data.size(), 2, answer->leaves, answer->proof));
    }
    const SliceChallenge beyond{slice, 1000};
    EXPECT_FALSE(co_await transport().challenge(miner(0), beyond, soon()));
  });
}

TEST_P(SliceTransportContract, WhatIsNotThereIsNotFound) {
  run([this]() -> Task<void> {
    const SliceId slice{log_segment(9), 0};
    const auto answer = co_await transport().read(miner(0), read_of(slice, 0, 1), soon());
    expect_error(answer, ErrorKind::not_found);
    const SliceChallenge challenge{slice, 0};
    const auto challenged = co_await transport().challenge(miner(0), challenge, soon());
    expect_error(challenged, ErrorKind::not_found);
  });
}

TEST_P(SliceTransportContract, ListingIsCompleteAndOrdered) {
  run([this]() -> Task<void> {
    std::vector<SliceId> expected;
    for (Sequence sequence = 40; sequence > 0; --sequence) {  // put out of order
      const SampleSegment segment = sample_segment(log_segment(sequence), 1, 1, 4096);
      for (std::uint16_t index = 0; index < 3; index += 2) {
        EXPECT_TRUE(co_await transport().put(miner(0), put_of(segment, index), soon()));
        expected.push_back({segment.manifest.id(), index});
      }
    }
    std::ranges::sort(expected);
    std::vector<SliceId> listed;
    std::optional<Bytes> from;
    for (int pages = 0; pages < 200; ++pages) {
      auto page = co_await transport().list(miner(0), from, soon());
      EXPECT_TRUE(page);
      if (!page) break;
      for (const SliceListing& slice : page->slices) {
        const auto manifest = Manifest::decode(slice.manifest);
        EXPECT_TRUE(manifest);
        if (manifest) listed.push_back({manifest->id(), slice.index});
      }
      from = page->next;
      if (!from) break;
    }
    EXPECT_FALSE(from);
    EXPECT_EQ(listed, expected);
  });
}

TEST_P(SliceTransportContract, HaveAndRemove) {
  run([this]() -> Task<void> {
    const SampleSegment segment = sample_segment(log_segment(1));
    for (std::uint16_t index = 0; index < 3; ++index)
      EXPECT_TRUE(co_await transport().put(miner(0), put_of(segment, index), soon()));
    const SliceId first{segment.manifest.id(), 0};
    const SliceId third{segment.manifest.id(), 2};
    const SliceId absent{log_segment(5), 1};
    const std::vector<SliceId> asked{third, absent, first};
    auto have = co_await transport().have(miner(0), asked, soon());
    EXPECT_TRUE(have);
    if (have) {
      EXPECT_EQ((*have)[0], segment.manifest.roots[2]);
      EXPECT_EQ((*have)[1], std::nullopt);
      EXPECT_EQ((*have)[2], segment.manifest.roots[0]);
    }
    const std::vector<SliceId> gone{third, absent};
    EXPECT_TRUE(co_await transport().remove(miner(0), gone, soon()));
    EXPECT_TRUE(co_await transport().remove(miner(0), gone, soon()));
    have = co_await transport().have(miner(0), asked, soon());
    EXPECT_TRUE(have);
    if (have) {
      EXPECT_EQ((*have)[0], std::nullopt);
      EXPECT_EQ((*have)[2], segment.manifest.roots[0]);
    }
    const auto answer = co_await transport().read(miner(0), read_of(third, 0, 1), soon());
    expect_error(answer, ErrorKind::not_found);
  });
}

TEST_P(SliceTransportContract, HoldersFollowTheRule) {
  run([this]() -> Task<void> {
    const auto empty = co_await transport().superblock(miner(0), soon());
    EXPECT_TRUE(empty);
    if (empty) {
      EXPECT_FALSE(empty->accepted || empty->promised);
    }
    const BallotClaim claim = sample_claim();
    const auto promised = co_await transport().promise(miner(0), claim, soon());
    EXPECT_TRUE(promised && promised->accepted);
    Superblock record = sample_superblock();  // under the same ballot
    const auto accepted = co_await transport().accept(miner(0), record, soon());
    EXPECT_TRUE(accepted && accepted->accepted);
    const auto state = co_await transport().superblock(miner(0), soon());
    EXPECT_TRUE(state);
    if (state) {
      EXPECT_EQ(state->promised, claim);
      EXPECT_EQ(state->accepted, record);
    }
    const Superblock before = record;
    record.ballot.open_number = 1;
    record.version = 100;
    sign_superblock(record, sample_key());
    const auto fenced = co_await transport().accept(miner(0), record, soon());
    EXPECT_TRUE(fenced);
    if (fenced) {
      EXPECT_FALSE(fenced->accepted);
      EXPECT_EQ(fenced->state.accepted, before);
    }
  });
}

TEST_P(SliceTransportContract, ADestroyedVolumeTakesNoSlices) {
  run([this]() -> Task<void> {
    Superblock record = sample_superblock();
    record.destroyed = true;
    sign_superblock(record, sample_key());
    const auto accepted = co_await transport().accept(miner(0), record, soon());
    EXPECT_TRUE(accepted && accepted->accepted);
    const SampleSegment segment = sample_segment(log_segment(1));
    const Status refused = co_await transport().put(miner(0), put_of(segment, 0), soon());
    expect_error(refused, ErrorKind::fenced);
  });
}

TEST_P(SliceTransportContract, VolumesDoNotSeeEachOther) {
  run([this]() -> Task<void> {
    const SampleSegment segment = sample_segment(log_segment(1));
    EXPECT_TRUE(co_await transport().put(miner(0), put_of(segment, 0), soon()));
    SliceTransport& other = harness_->transport(2);
    const SliceId slice{segment.manifest.id(), 0};
    const auto read = co_await other.read(miner(0), read_of(slice, 0, 1), soon());
    EXPECT_FALSE(read);
    const auto page = co_await other.list(miner(0), std::nullopt, soon());
    EXPECT_TRUE(page);
    if (page) {
      EXPECT_TRUE(page->slices.empty());
    }
    const std::vector<SliceId> gone{slice};
    EXPECT_TRUE(co_await other.remove(miner(0), gone, soon()));
    EXPECT_TRUE(co_await transport().read(miner(0), read_of(slice, 0, 1), soon()));
    // Nor may it store slices in the other's name.
    const Status stolen = co_await other.put(miner(0), put_of(segment, 1), soon());
    expect_error(stolen, ErrorKind::invalid);
  });
}

TEST_P(SliceTransportContract, StatusCountsTheVolume) {
  run([this]() -> Task<void> {
    const auto before = co_await transport().status(miner(0), soon());
    EXPECT_TRUE(before) << before.error().message();
    const SampleSegment segment = sample_segment(log_segment(1));
    EXPECT_TRUE(co_await transport().put(miner(0), put_of(segment, 0), soon()));
    const auto after = co_await transport().status(miner(0), soon());
    EXPECT_TRUE(before && after);
    if (!before || !after) co_return;
    EXPECT_EQ(after->volume_slices, before->volume_slices + 1);
    EXPECT_GE(after->volume_used, before->volume_used + segment.slices[0]->size());
    EXPECT_GT(after->capacity, 0u);
    EXPECT_FALSE(after->version.empty());
  });
}

TEST_P(SliceTransportContract, WhatWasPutSurvivesACrash) {
  run([this]() -> Task<void> {
    const SampleSegment segment = sample_segment(log_segment(1));
    EXPECT_TRUE(co_await transport().put(miner(0), put_of(segment, 0), soon()));
    const auto accepted = co_await transport().accept(miner(0), sample_superblock(), soon());
    EXPECT_TRUE(accepted && accepted->accepted);
    co_await harness_->stop_miner(0);
    const TimePoint deadline = harness_->runtime().now() + std::chrono::milliseconds(300);
    const auto down = co_await transport().status(miner(0), deadline);
    expect_error(down, ErrorKind::unavailable);
    // The others answer meanwhile.
    EXPECT_TRUE(co_await transport().status(miner(1), soon()));
    co_await harness_->start_miner(0);
    // The first calls may still find the way back closed.
    Result<HolderState> state = fail(ErrorKind::unavailable, "not asked");
    for (int tries = 0; tries < 100 && !state; ++tries) {
      state = co_await transport().superblock(miner(0), soon());
      if (!state) co_await harness_->runtime().sleep_for(std::chrono::milliseconds(50));
    }
    EXPECT_TRUE(state) << state.error().message();
    if (state) {
      EXPECT_EQ(state->accepted, sample_superblock());
    }
    const SliceRead read = read_of({segment.manifest.id(), 0}, 0, segment.slices[0]->size());
    EXPECT_TRUE(co_await transport().read(miner(0), read, soon()));
    EXPECT_TRUE(equal(bytes_of(read), *segment.slices[0]));
  });
}

TEST_P(SliceTransportContract, CallsEndByTheirDeadline) {
  run([this]() -> Task<void> {
    co_await harness_->stop_miner(1);
    const TimePoint begin = harness_->runtime().now();
    const auto late = co_await transport().status(miner(1), begin + std::chrono::milliseconds(200));
    expect_error(late, ErrorKind::unavailable);
    const auto past = co_await transport().status(miner(0), begin - std::chrono::seconds(1));
    expect_error(past, ErrorKind::unavailable);
    EXPECT_LT(harness_->runtime().now() - begin, std::chrono::seconds(2));
    MinerId nobody;
    nobody.bytes.fill(0xEE);
    const auto unknown = co_await transport().status(nobody, soon());
    expect_error(unknown, ErrorKind::unavailable);
  });
}

TEST_P(SliceTransportContract, ManyCallsAtOnce) {
  run([this]() -> Task<void> {
    TaskGroup group(harness_->runtime());
    int good = 0;
    constexpr int kCalls = 200;
    for (int i = 0; i < kCalls; ++i) {
      group.spawn([this, i, &good]() -> Task<void> {
        const std::uint64_t size = i % 10 == 0 ? 512 * 1024 : 4096;
        const SampleSegment segment = sample_segment(log_segment(static_cast<Sequence>(i + 1)), 1, 1, size);
        const MinerId at = miner(static_cast<std::size_t>(i % 3));
        const TimePoint deadline = harness_->runtime().now() + std::chrono::seconds(60);
        const Status stored = co_await transport().put(at, put_of(segment, 0), deadline);
        EXPECT_TRUE(stored) << stored.error().message();
        const Bytes& data = *segment.slices[0];
        const SliceRead read = read_of({segment.manifest.id(), 0}, 7, data.size() - 7);
        const auto answer = co_await transport().read(at, read, deadline);
        EXPECT_TRUE(answer) << answer.error().message();
        if (stored && answer && equal(bytes_of(read), ByteView(data).subspan(7))) ++good;
      });
    }
    co_await group.join();
    EXPECT_EQ(good, kCalls);
  });
}

TEST_P(SliceTransportContract, LatencyIsPositiveAndAFailingMinersGrows) {
  run([this]() -> Task<void> {
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(co_await transport().status(miner(0), soon()));
    const Duration good = transport().expected_latency(miner(0));
    EXPECT_GT(good, Duration(0));
    EXPECT_LT(good, std::chrono::seconds(2));
    co_await harness_->stop_miner(0);
    for (int i = 0; i < 5; ++i) {
      const TimePoint deadline = harness_->runtime().now() + std::chrono::milliseconds(50);
      EXPECT_FALSE(co_await transport().status(miner(0), deadline));
    }
    EXPECT_GT(transport().expected_latency(miner(0)), good);
  });
}

TEST_P(SliceTransportContract, CloseEndsWhatIsInFlight) {
  run([this]() -> Task<void> {
    co_await harness_->stop_miner(0);  // so that the call has something to wait for
    TaskGroup group(harness_->runtime());
    int ended = 0;
    for (int i = 0; i < 3; ++i) {
      group.spawn([this, &ended]() -> Task<void> {
        const auto answer = co_await transport().status(miner(0), soon());
        EXPECT_FALSE(answer);
        ++ended;
      });
    }
    co_await transport().close();
    co_await group.join();
    EXPECT_EQ(ended, 3);
    const auto after = co_await transport().status(miner(1), soon());
    expect_error(after, ErrorKind::closed);
  });
}

}  // namespace cumulus
