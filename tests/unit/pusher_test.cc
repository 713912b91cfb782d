// The pusher: whatever miners do, every segment ends up as k + m slices, and the tail says so only then.
#include "objectstore/store/pusher.h"

#include "objectstore/cache/slot_store.h"
#include "objectstore/erasure/geometry.h"
#include "objectstore/log/log_writer.h"
#include "tests/unit/push_world.h"

namespace cumulus {
namespace {

TEST(Pusher, StoresEverySliceOnItsOwnMinerAndAdvancesTheTail) {
  PushWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    Pusher& pusher = world.start_pusher();
    SealedSegment last;
    for (int i = 0; i < 10; ++i) {
      last = world.make(i % 2 == 0 ? PushWorld::kSegment : 1000 + 37u * static_cast<unsigned>(i));
      pusher.push(last);
    }
    EXPECT_GT(pusher.dirty_bytes(), 0u);
    EXPECT_OK(co_await pusher.wait_remote(100));
    EXPECT_EQ(pusher.dirty_bytes(), 0u);
    EXPECT_EQ(pusher.remote(), 100u);
    EXPECT_EQ(world.home.tail->accepted().tail.chain, last.chain);
    EXPECT_EQ(world.placed.size(), 10u);
    for (const auto& [id, where] : world.placed) {
      EXPECT_EQ(world.present(where), 6u);
      EXPECT_EQ(PushWorld::distinct(where), 6u);
    }
    EXPECT_EQ(pusher.crowded(), 0u);
    co_await world.end();
  });
}

// A data slice is the segment's own bytes, so that a small read touches one miner.
TEST(Pusher, DataSlicesAreTheSegmentItself) {
  PushWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    Pusher& pusher = world.start_pusher();
    const SealedSegment segment = world.make(50'000);
    pusher.push(segment);
    EXPECT_OK(co_await pusher.wait_remote(10));
    const change::Placed where = world.placed.begin()->second;
    Bytes joined;
    for (std::uint16_t i = 0; i < 4; ++i) {
      const std::uint64_t length = SliceGeometry::of(50'000, 4, 2).stored_length(i);
      const SliceId id{where.segment, i};
      const auto whole = world.find(where.miners[i])->read(world.where_volume(), id, 0, length, false, true);
      CO_ASSERT(whole);
      joined.insert(joined.end(), whole->bytes.begin(), whole->bytes.end());
      const auto manifest = Manifest::decode(whole->manifest);
      CO_ASSERT(manifest);
      EXPECT_EQ(manifest->chain(), segment.chain);
      EXPECT_EQ(merkle_root(whole->bytes), manifest->roots[i]);
    }
    EXPECT_TRUE(equal(joined, segment.memory->view(0, segment.length)));
    co_await world.end();
  });
}

TEST(Pusher, DeadFullAndReadOnlyMinersArePassedOver) {
  PushWorld world(9);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    Pusher& pusher = world.start_pusher();
    world.network.kill(0);
    world.network.miner(1).set_capacity(1000);
    world.network.miner(2).set_read_only(true);
    for (int i = 0; i < 12; ++i) pusher.push(world.make());
    EXPECT_OK(co_await pusher.wait_remote(120));
    for (const auto& [id, where] : world.placed) {
      EXPECT_EQ(world.present(where), 6u);
      EXPECT_EQ(PushWorld::distinct(where), 6u);
      for (std::size_t at = 0; at < 3; ++at)
        EXPECT_EQ(std::ranges::count(where.miners, world.network.miner(at).id()), 0);
    }
    co_await world.end();
  });
}

TEST(Pusher, ASilentMinerDelaysNothingForLong) {
  PushWorld world(7);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    Pusher& pusher = world.start_pusher();
    world.network.set_silent(3, true);
    for (int i = 0; i < 20; ++i) pusher.push(world.make());
    const TimePoint began = world.reactor.now();
    EXPECT_OK(co_await pusher.wait_remote(200));
    EXPECT_LT(world.reactor.now() - began, 3s);
    EXPECT_EQ(pusher.obstacle(), "");
    world.network.set_silent(3, false);
    co_await world.end();
  });
}

TEST(Pusher, SlicesDoubleUpWithFewMiners) {
  PushWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    Pusher& pusher = world.start_pusher();
    world.network.kill(0);
    world.network.kill(1);
    for (int i = 0; i < 3; ++i) pusher.push(world.make());
    EXPECT_OK(co_await pusher.wait_remote(30));
    for (const auto& [id, where] : world.placed) {
      EXPECT_EQ(world.present(where), 6u);
      EXPECT_LE(PushWorld::most_on_one(where), 2u);  // m
    }
    EXPECT_EQ(pusher.crowded(), 3u);
    co_await world.end();
  });
}

TEST(Pusher, WaitsForMinersAndLosesNothing) {
  PushWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    Pusher& pusher = world.start_pusher();
    for (std::size_t at = 0; at < 6; ++at) world.network.kill(at);
    for (int i = 0; i < 8; ++i) pusher.push(world.make());
    EXPECT_EQ(pusher.obstacle(), "");
    co_await world.reactor.sleep_for(700ms);
    EXPECT_EQ(pusher.remote(), 0u);
    EXPECT_NE(pusher.obstacle().find("miner"), std::string::npos) << pusher.obstacle();
    EXPECT_EQ(pusher.dirty_bytes(), 8 * PushWorld::kSegment);
    for (std::size_t at = 0; at < 6; ++at) world.network.start(at);
    std::uint64_t seen = 0;
    EXPECT_OK(co_await pusher.wait_remote(80, [&](std::uint64_t done, std::uint64_t total) {
      EXPECT_GE(done, seen);
      EXPECT_EQ(total, 8 * PushWorld::kSegment);
      seen = done;
      return true;
    }));
    EXPECT_EQ(seen, 8 * PushWorld::kSegment);
    for (const auto& [id, where] : world.placed) EXPECT_EQ(world.present(where), 6u);
    co_await world.end();
  });
}

// The transport knows that nobody answers and does not even begin: nothing is lost, and nobody spins.
TEST(Pusher, KnowsWhenWhatWasUnderWayHasArrived) {
  PushWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    Pusher& pusher = world.start_pusher();
    EXPECT_OK(co_await pusher.wait_for_those_under_way(1s));
    for (std::size_t at = 0; at < 6; ++at) world.network.kill(at);
    pusher.push(world.make());
    co_await world.reactor.sleep_for(10ms);
    const Status stuck = co_await pusher.wait_for_those_under_way(500ms);
    EXPECT_FALSE(stuck);
    EXPECT_EQ(stuck.error().kind(), ErrorKind::unavailable);
    for (std::size_t at = 0; at < 6; ++at) world.network.start(at);
    EXPECT_OK(co_await pusher.wait_for_those_under_way(20s));
    EXPECT_EQ(world.placed.size(), 1u);
    co_await world.end();
  });
}

TEST(Pusher, WaitsForMinersThatRefuseAtOnce) {
  PushWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    Pusher& pusher = world.start_pusher();
    world.home.transport.refuse_at_once(true);
    for (std::size_t at = 0; at < 6; ++at) world.network.kill(at);
    for (int i = 0; i < 3; ++i) pusher.push(world.make());
    co_await world.reactor.sleep_for(500ms);
    EXPECT_EQ(pusher.remote(), 0u);
    EXPECT_LT(world.network.faults()[static_cast<std::size_t>(SimFault::connection_refused)], 1000u);
    for (std::size_t at = 0; at < 6; ++at) world.network.start(at);
    EXPECT_OK(co_await pusher.wait_remote(30, {}));
    for (const auto& [id, where] : world.placed) EXPECT_EQ(world.present(where), 6u);
    co_await world.end();
  });
}

TEST(Pusher, CloseWhileNothingCanMove) {
  PushWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    Pusher& pusher = world.start_pusher();
    for (std::size_t at = 0; at < 6; ++at) world.network.kill(at);
    for (int i = 0; i < 8; ++i) pusher.push(world.make());
    co_await world.reactor.sleep_for(50ms);
    const Status interrupted =
        co_await pusher.wait_remote(80, [](std::uint64_t, std::uint64_t) { return false; });
    EXPECT_FALSE(interrupted);
    const TimePoint began = world.reactor.now();
    co_await world.end();
    EXPECT_LT(world.reactor.now() - began, 1s);
  });
}

// The tail covers a segment only when it and all before it are stored.
TEST(Pusher, TheTailNeverRunsAhead) {
  PushWorld world(6);
  SimWeather weather;
  weather.slow_share = 200;
  weather.slow_max = 100ms;
  weather.request_lost = 30;
  world.network.set_weather(weather);
  world.run([&]() -> Task<void> {
    CO_ASSERT(co_await world.open(4, 2));
    Pusher& pusher = world.start_pusher();
    std::vector<SegmentId> ids;
    for (int i = 0; i < 24; ++i) {
      SealedSegment segment = world.make(8 << 10);
      ids.push_back(segment.header.id);
      pusher.push(std::move(segment));
    }
    while (pusher.remote() < 240) {
      // Read at the miners, as another home would.
      for (std::size_t at = 0; at < 6; ++at) {
        const HolderState* state = world.network.miner(at).holder_state(world.where_volume());
        if (state == nullptr || !state->accepted) continue;
        for (const SegmentId& id : ids) {
          if (id.sequence > state->accepted->tail.through.sequence) continue;
          CO_ASSERT(world.placed.contains(id));
          EXPECT_EQ(world.present(world.placed[id]), 6u);
        }
      }
      co_await world.reactor.sleep_for(5ms);
    }
    co_await world.end();
  });
}

TEST(Pusher, NothingIsSentBeforeTheVolumeIsClaimed) {
  PushWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    co_await world.home.close();
    EXPECT_OK(co_await world.home.load());
    TailKeeper& tail = world.home.keeper(*world.home.file.record().seen);
    Pusher& pusher = world.start_pusher();
    pusher.push(world.make());
    co_await world.reactor.sleep_for(100ms);
    for (std::size_t at = 0; at < 6; ++at)
      EXPECT_EQ(world.network.miner(at).slice_count(world.where_volume()), 0u);
    tail.start(world.home.file.record().next_ballot({}, false, random_instance(world.reactor)), Adopt::own);
    EXPECT_OK(co_await pusher.wait_remote(10));
    co_await world.end();
  });
}

TEST(Pusher, AFencedWriterSendsNothingMore) {
  PushWorld world(6);
  Home thief(world, "thief", 2);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    Pusher& pusher = world.start_pusher();
    EXPECT_OK(co_await thief.open(Adopt::any, true));
    pusher.push(world.make());
    const Status remote = co_await pusher.wait_remote(10);
    EXPECT_FALSE(remote);
    EXPECT_EQ(remote.error().kind(), ErrorKind::fenced);
    EXPECT_EQ(thief.tail->accepted().tail.position, 0u);
    pusher.push(world.make());
    co_await world.reactor.sleep_for(50ms);
    EXPECT_EQ(world.placed.count({SegmentKind::log, 1, 2}), 0u);
    co_await thief.end();
    co_await world.end();
  });
}

// The newest record that this home could see says nothing of it; only what miners answer does.
TEST(Pusher, AWriterLearnsThatItsVolumeWasDestroyed) {
  PushWorld world(6);
  Home thief(world, "thief", 2);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    Pusher& pusher = world.start_pusher();
    EXPECT_OK(co_await thief.open(Adopt::any, true));
    thief.tail->update([](TailKeeper::Intent& intent) { intent.destroyed = true; });
    EXPECT_OK(co_await thief.tail->settled(2s));
    pusher.push(world.make());
    const TimePoint give_up = world.reactor.now() + 60s;
    const Progress patience = [&](std::uint64_t, std::uint64_t) { return world.reactor.now() < give_up; };
    const Status remote = co_await pusher.wait_remote(10, patience);
    EXPECT_FALSE(remote);
    EXPECT_EQ(remote.error().kind(), ErrorKind::fenced) << remote.error().message();
    EXPECT_NE(remote.error().message().find("destroyed"), std::string::npos) << remote.error().message();
    co_await thief.end();
    co_await world.end();
  });
}

// A second opening finds what the first one left half done, and sends only the rest.
TEST(Pusher, PushAgainSendsOnlyWhatIsMissing) {
  PushWorld world(8);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    Pusher& pusher = world.start_pusher();
    const SealedSegment segment = world.make();
    pusher.push(segment);
    EXPECT_OK(co_await pusher.wait_remote(10));
    co_await pusher.close();
    const change::Placed before = world.placed.begin()->second;
    CO_ASSERT(world.find(before.miners[2])->remove(world.where_volume(), {{before.segment, 2}}));
    std::size_t slices = 0;
    for (std::size_t at = 0; at < 8; ++at)
      slices += world.network.miner(at).slice_count(world.where_volume());
    EXPECT_EQ(slices, 5u);

    world.placed.clear();
    Pusher& again = world.start_pusher();
    again.push_again(segment);
    const SealedSegment next = world.make();
    again.push_again(next);
    EXPECT_OK(co_await again.wait_remote(20));
    CO_ASSERT(world.placed.contains(before.segment));
    EXPECT_EQ(world.present(world.placed[before.segment]), 6u);
    slices = 0;
    for (std::size_t at = 0; at < 8; ++at)
      slices += world.network.miner(at).slice_count(world.where_volume());
    EXPECT_EQ(slices, 12u);  // nothing was sent twice
    co_await world.end();
  });
}

// Two miners that claim two slices each, of a segment that a restart sends again, have none: the others get
// enough of it.
TEST(Pusher, PushAgainBelievesEachMinerOnce) {
  PushWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    Pusher& pusher = world.start_pusher();
    const SealedSegment segment = world.make();
    pusher.push(segment);
    EXPECT_OK(co_await pusher.wait_remote(10));
    co_await pusher.close();
    struct Slice {
      Bytes manifest;
      Bytes data;
    };
    std::map<SliceId, Slice> slices;
    for (std::size_t at = 0; at < 6; ++at)
      world.network.miner(at).for_each_intact(
          world.where_volume(), [&](const SliceId& slice, ByteView manifest, ByteView data) {
            slices[slice] = {Bytes(manifest.begin(), manifest.end()), Bytes(data.begin(), data.end())};
          });
    CO_ASSERT(slices.size() == 6);
    for (const auto& [slice, bytes] : slices)
      for (std::size_t at = 0; at < 6; ++at) {
        const Status gone = world.network.miner(at).remove(world.where_volume(), {slice});
        static_cast<void>(gone);  // not every miner has it
      }
    SimMinerLies lies;
    lies.put_forgotten = 1000;
    for (std::uint16_t i = 0; i < 4; ++i) {
      SimMiner& liar = world.network.miner(i / 2);
      liar.set_lies(lies);
      const auto& [slice, bytes] = *std::next(slices.begin(), i);
      CO_ASSERT(liar.put(world.where_volume(), slice, bytes.manifest, bytes.data));
    }
    world.placed.clear();
    Pusher& again = world.start_pusher();
    again.push_again(segment);
    const TimePoint give_up = world.reactor.now() + 20s;
    while (!world.placed.contains(segment.header.id) && world.reactor.now() < give_up)
      co_await world.reactor.sleep_for(2ms);
    EXPECT_GE(world.present(world.placed[segment.header.id]), 4u);
    co_await world.end();
  });
}

TEST(Pusher, MinersThatWereReplacedGetTheNewSegments) {
  PushWorld world(12);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    std::vector<MinerEntry> fresh(world.network.entries().begin() + 6, world.network.entries().end());
    world.home.transport.set_miners({world.network.entries().begin(), world.network.entries().begin() + 6});
    Pusher& pusher = world.start_pusher();
    pusher.push(world.make());
    EXPECT_OK(co_await pusher.wait_remote(10));
    world.home.transport.set_miners(world.network.entries());
    EXPECT_OK(co_await world.home.tail->set_miners(fresh, 2s));
    world.home.transport.set_miners(fresh);
    pusher.push(world.make());
    EXPECT_OK(co_await pusher.wait_remote(20));
    for (const MinerId& id : world.placed[{SegmentKind::log, 1, 2}].miners)
      EXPECT_NE(std::ranges::find(fresh, id, &MinerEntry::id), fresh.end());
    co_await world.end();
  });
}

// Segments beyond the memory budget are read again from their slots, and every group in them must open.
TEST(Pusher, WaitingSegmentsComeBackFromTheDiskVerified) {
  PushWorld world(6);
  world.run([&]() -> Task<void> {
    CO_ASSERT(co_await world.open(4, 2));
    SlotStoreOptions slot_options;
    slot_options.segment_size = PushWorld::kSegment;
    slot_options.budget_bytes = 4 << 20;
    auto slots = co_await SlotStore::open(world.reactor, *world.disk, world.directory("slots"),
                                          world.keys.volume_id(), slot_options, world.metrics);
    CO_ASSERT(slots);
    std::vector<SealedSegment> sealed;
    LogOptions log_options;
    log_options.segment_size = PushWorld::kSegment;
    LogStart start;
    auto log =
        LogWriter::make(world.reactor, **slots, world.keys, world.keys.volume_id(), start, log_options,
                        world.metrics, [&](SealedSegment segment) { sealed.push_back(std::move(segment)); });
    while (sealed.size() < 6) {
      GroupDraft draft;
      draft.records.assign(9000, 1);
      const auto appended = co_await log->append(std::move(draft));
      CO_ASSERT(appended);
    }
    for (SealedSegment& segment : sealed) {
      auto bytes = std::make_shared<Buffer>(segment.length);
      std::ranges::copy(segment.memory->view(0, segment.length), bytes->data());
      world.local[segment.header.id] = bytes;
    }
    // The fourth has rotted on the local disk.
    const SegmentId rotten = sealed[3].header.id;
    auto bad = std::make_shared<Buffer>(sealed[3].length);
    std::ranges::copy(sealed[3].memory->view(0, sealed[3].length), bad->data());
    const auto good = world.local[rotten];
    bad->data()[sealed[3].length / 2] ^= 1;
    world.local[rotten] = bad;

    // Of the second only what no tag covers: bytes behind the header, and behind the last cell.
    const SealedSegment padded = sealed[1];
    auto worn = std::make_shared<Buffer>(padded.length);
    std::ranges::copy(padded.memory->view(0, padded.length), worn->data());
    EXPECT_EQ(std::exchange(worn->data()[300], std::uint8_t{1}), 0);
    EXPECT_EQ(std::exchange(worn->data()[padded.length - 1], std::uint8_t{1}), 0);
    world.local[padded.header.id] = worn;

    Pusher& pusher = world.start_pusher(0);  // no memory for waiting segments at all
    for (SealedSegment& segment : sealed) {
      segment.memory.reset();
      pusher.push(segment);
    }
    EXPECT_OK(co_await pusher.wait_remote(sealed[2].last_group));
    co_await world.reactor.sleep_for(200ms);
    EXPECT_EQ(pusher.remote(), sealed[2].last_group);  // the tail stops in front of it
    EXPECT_FALSE(world.placed.contains(rotten));
    EXPECT_NE(pusher.obstacle().find("rotted"), std::string::npos) << pusher.obstacle();
    world.local[rotten] = good;
    EXPECT_OK(co_await pusher.wait_remote(sealed[5].last_group));
    EXPECT_GE(world.loads, 6u);
    Bytes joined;
    for (std::uint16_t i = 0; i < 4; ++i) {
      const std::uint64_t length = SliceGeometry::of(padded.length, 4, 2).stored_length(i);
      const MinerId miner = world.placed[padded.header.id].miners[i];
      const SliceId slice{padded.header.id, i};
      const auto whole = world.find(miner)->read(world.where_volume(), slice, 0, length, false, true);
      CO_ASSERT(whole);
      joined.insert(joined.end(), whole->bytes.begin(), whole->bytes.end());
    }
    EXPECT_TRUE(equal(joined, padded.memory->view(0, padded.length)));
    for (const auto& [id, where] : world.placed) EXPECT_EQ(world.present(where), 6u);
    EXPECT_OK(co_await log->close());
    co_await (*slots)->close();
    co_await world.end();
  });
}

TEST(Pusher, ASegmentOfAnotherHistoryStopsTheTail) {
  PushWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    Pusher& pusher = world.start_pusher();
    pusher.push(world.make());
    EXPECT_OK(co_await pusher.wait_remote(10));
    SealedSegment foreign = world.make();
    foreign.header.previous_chain[0] ^= 1;
    pusher.push(foreign);
    co_await world.reactor.sleep_for(200ms);
    EXPECT_EQ(pusher.remote(), 10u);
    EXPECT_NE(pusher.obstacle().find("another history"), std::string::npos) << pusher.obstacle();
    co_await world.end();
  });
}

// A home that worked offline from an older record than its own newest one: the tail never goes back.
TEST(Pusher, TheAdoptedTailMayBeAhead) {
  PushWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.open(4, 2));
    const Superblock old = world.home.tail->accepted();
    Pusher& pusher = world.start_pusher();
    std::vector<SealedSegment> segments;
    for (int i = 0; i < 4; ++i) segments.push_back(world.make());
    for (int i = 0; i < 3; ++i) pusher.push(segments[static_cast<std::size_t>(i)]);
    EXPECT_OK(co_await pusher.wait_remote(30));
    co_await pusher.close();
    co_await world.home.close();

    TailKeeper& tail = world.home.keeper(old);
    Pusher& again = world.start_pusher();
    for (const SealedSegment& segment : segments) again.push_again(segment);
    tail.start(world.home.file.record().next_ballot({}, false, random_instance(world.reactor)), Adopt::own);
    LogPosition highest = 0;
    while (again.remote() < 40) {
      EXPECT_GE(again.remote(), highest);
      highest = again.remote();
      for (std::size_t at = 0; at < 6; ++at) {
        const HolderState* state = world.network.miner(at).holder_state(world.where_volume());
        EXPECT_GE(state->accepted->tail.position, 20u);
      }
      co_await world.reactor.sleep_for(2ms);
    }
    co_await world.end();
  });
}

}  // namespace
}  // namespace cumulus
