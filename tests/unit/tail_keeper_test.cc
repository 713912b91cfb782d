// The tail keeper: one writer at a time, whatever holders, homes and machines do.
#include "objectstore/store/tail_keeper.h"

#include "tests/unit/store_world.h"

namespace cumulus {
namespace {

ErrorKind kind_of(const Status& status) { return status ? ErrorKind::invalid : status.error().kind(); }

TEST(TailKeeper, CreatesAndAdvances) {
  StoreWorld world(6);
  Home home(world, "a", 1);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await home.create(4, 2));
    for (Sequence s = 1; s <= 20; ++s) EXPECT_OK(co_await home.set_tail(s));
    EXPECT_EQ(home.tail->accepted().tail.position, 200u);
    const auto seen = co_await home.survey();
    CO_ASSERT(seen && seen->newest);
    EXPECT_EQ(seen->newest->tail.position, 200u);
    EXPECT_TRUE(seen->quorum_reached);
    EXPECT_TRUE(home.file.record().wrote(*seen->newest));
    // The same volume cannot be made twice.
    Home other(world, "b", 2);
    EXPECT_EQ(kind_of(co_await other.create(4, 2)), ErrorKind::exists);
    co_await other.end();
    co_await home.end();
  });
}

// Each record costs every holder a signature check and a synced file: a tail that moves a hundred times a
// second is not a hundred records, unless somebody waits for one.
TEST(TailKeeper, PacesTailsThatNobodyAwaits) {
  StoreWorld world(6);
  Home home(world, "a", 1);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await home.create(4, 2));
    const Counter& proposals = world.metrics.counter("cumulus_superblock_proposals_total");
    const auto tail_at = [](Sequence sequence) {
      return Tail{{SegmentKind::log, 1, sequence}, {}, sequence * 10};
    };
    const std::uint64_t before = proposals.value();
    const TimePoint began = world.reactor.now();
    Sequence last = 0;
    while (world.reactor.now() < began + 1s) {
      home.tail->advance(tail_at(++last));
      co_await world.reactor.sleep_for(5ms);
    }
    EXPECT_GT(last, 20u);
    EXPECT_LE(proposals.value() - before, 6u);
    EXPECT_GE(proposals.value() - before, 2u);
    // It catches up by itself, and at once for somebody who waits.
    while (home.tail->accepted().tail.position < last * 10) co_await home.tail->changed().wait();
    const TimePoint accepted = world.reactor.now();
    home.tail->advance(tail_at(++last));
    {
      const TailKeeper::Awaited awaited(*home.tail, last * 10);
      while (home.tail->accepted().tail.position < last * 10) co_await home.tail->changed().wait();
    }
    EXPECT_LT(world.reactor.now() - accepted, 150ms);
    co_await home.end();
  });
}

TEST(TailKeeper, QuorumsHoldWithTwoOfSixAway) {
  StoreWorld world(6);
  Home home(world, "a", 1);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await home.create(4, 2));
    world.network.kill(0);
    world.network.set_silent(1, true);
    EXPECT_OK(co_await home.set_tail(1));
    world.network.kill(2);  // three away: no quorum of four
    home.tail->update([](TailKeeper::Intent& intent) { intent.tail.position = 20; });
    EXPECT_EQ(kind_of(co_await home.tail->settled(300ms)), ErrorKind::unavailable);
    EXPECT_EQ(home.tail->accepted().tail.position, 10u);
    world.network.start(2);  // comes back: the proposal goes on by itself
    EXPECT_OK(co_await home.tail->settled(2s));
    EXPECT_EQ(home.tail->accepted().tail.position, 20u);
    world.network.set_silent(1, false);
    co_await home.end();
  });
}

TEST(TailKeeper, RestartOnTheSameHomeGoesOn) {
  StoreWorld world(6);
  Home home(world, "a", 1);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await home.create(4, 2));
    EXPECT_OK(co_await home.set_tail(3));
    for (int round = 0; round < 3; ++round) {
      co_await home.close();
      EXPECT_OK(co_await home.open(Adopt::own, false));
      EXPECT_EQ(home.tail->ballot().epoch, 1u);
      EXPECT_EQ(home.tail->accepted().tail.position, 30u);
    }
    EXPECT_OK(co_await home.set_tail(4));
    co_await home.end();
  });
}

TEST(TailKeeper, StrangerNeedsCleanCloseOrSteal) {
  StoreWorld world(6);
  Home first(world, "first", 1);
  Home second(world, "second", 2);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await first.create(4, 2));
    EXPECT_OK(co_await first.set_tail(1));
    const Status refused = co_await second.open(Adopt::own_or_closed, true);
    EXPECT_EQ(kind_of(refused), ErrorKind::fenced);
    const std::string why = refused ? "" : refused.error().message();
    EXPECT_NE(why.find("first@host since"), std::string::npos) << why;
    co_await second.close();

    // A refused stranger has promised its ballot already: the writer is fenced off for good, so it opens
    // again. That is why a volume looks (survey) before it claims; here the claim itself is under test.
    co_await first.close();
    EXPECT_OK(co_await first.open(Adopt::any, true));
    EXPECT_OK(co_await first.tail->close_cleanly(2s));
    co_await first.close();
    EXPECT_OK(co_await second.open(Adopt::own_or_closed, true));
    EXPECT_FALSE(second.tail->accepted().closed_cleanly);
    EXPECT_EQ(second.tail->accepted().tail.position, 10u);
    co_await second.end();
    co_await first.end();
  });
}

TEST(TailKeeper, StealFencesTheFirstWriter) {
  StoreWorld world(6);
  Home first(world, "first", 1);
  Home second(world, "second", 2);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await first.create(4, 2));
    EXPECT_OK(co_await first.set_tail(1));
    EXPECT_OK(co_await second.open(Adopt::any, true));
    EXPECT_OK(co_await second.set_tail(2));
    EXPECT_EQ(kind_of(co_await first.set_tail(3)), ErrorKind::fenced);
    CO_ASSERT(first.fenced);
    EXPECT_NE(first.fenced->message().find("second@host since"), std::string::npos)
        << first.fenced->message();
    EXPECT_FALSE(first.tail->claimed());
    EXPECT_EQ(second.tail->accepted().tail.position, 20u);
    // It stays fenced when it comes back, and says so.
    co_await first.close();
    EXPECT_EQ(kind_of(co_await first.open(Adopt::own, false)), ErrorKind::fenced);
    co_await second.end();
    co_await first.end();
  });
}

// Both open at once, many times: never two writers, and what one of them was told is accepted stays.
TEST(TailKeeper, RacingHomesOneWriter) {
  for (int round = 0; round < 8; ++round) {
    StoreWorld world(6);
    Home first(world, "first", 1);
    Home second(world, "second", 2);
    world.run([&]() -> Task<void> {
      EXPECT_OK(co_await first.create(4, 2));
      co_await first.close();
      Status a;
      Status b;
      TaskGroup race(world.reactor);
      race.spawn([&]() -> Task<void> {
        a = co_await first.open(Adopt::any, true);
        if (a) a = co_await first.set_tail(1);
      });
      race.spawn([&]() -> Task<void> {
        b = co_await second.open(Adopt::any, true);
        if (b) b = co_await second.set_tail(2);
      });
      co_await race.join();
      EXPECT_TRUE(a || b);
      // Whoever proposes once more: at most one succeeds.
      Status more_a = a;
      Status more_b = b;
      if (a) more_a = co_await first.set_tail(11);
      if (b) more_b = co_await second.set_tail(12);
      EXPECT_FALSE(more_a && more_b);
      const auto seen = co_await first.survey();
      CO_ASSERT(seen && seen->newest);
      EXPECT_TRUE(!more_b || seen->newest->tail.position == 120u);
      EXPECT_TRUE(!more_a || seen->newest->tail.position == 110u);
      co_await first.end();
      co_await second.end();
    });
  }
}

TEST(TailKeeper, ClonedMachineIsFenced) {
  StoreWorld world(6);
  Home home(world, "a", 1);
  Home clone(world, "b", 2);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await home.create(4, 2));
    EXPECT_OK(co_await home.set_tail(1));
    // The same instance goes on twice: same ballot, same versions.
    HomeRecord copy = home.file.record();
    EXPECT_OK(co_await clone.file.save(copy));
    const Superblock known = home.tail->accepted();
    TailKeeper& twin = clone.keeper(known);
    const Status claimed = co_await twin.claim(home.tail->ballot(), Adopt::own, 2s);
    if (claimed) (void)co_await clone.set_tail(5);
    (void)co_await home.set_tail(6);
    (void)co_await clone.set_tail(7);
    (void)co_await home.set_tail(8);
    EXPECT_TRUE(home.fenced.has_value() || clone.fenced.has_value());
    co_await clone.end();
    co_await home.end();
  });
}

TEST(TailKeeper, RestoredHomeIsRefused) {
  StoreWorld world(6);
  Home home(world, "a", 1);
  Home other(world, "b", 2);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await home.create(4, 2));
    const HomeRecord old = home.file.record();
    co_await home.close();
    EXPECT_OK(co_await other.open(Adopt::any, true));
    EXPECT_OK(co_await other.set_tail(9));
    EXPECT_OK(co_await home.file.save(old));
    EXPECT_EQ(kind_of(co_await home.open(Adopt::own, false)), ErrorKind::fenced);
    co_await other.end();
    co_await home.end();
  });
}

TEST(TailKeeper, RolledBackMinersAreRefused) {
  StoreWorld world(3);
  Home home(world, "a", 1);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await home.create(2, 1));
    EXPECT_OK(co_await home.set_tail(1));
    const Superblock old = home.tail->accepted();
    EXPECT_OK(co_await home.set_tail(2));
    co_await home.close();
    for (std::size_t at = 0; at < 3; ++at) {
      world.network.miner(at).wipe();
      CO_ASSERT(world.network.miner(at).accept(old.volume, old));
    }
    const auto seen = co_await home.survey();
    CO_ASSERT(!seen);
    EXPECT_EQ(seen.error().kind(), ErrorKind::corrupt);
    co_await home.end();
  });
}

TEST(TailKeeper, OneLiarOfSixCannotHideTheNewestRecord) {
  StoreWorld world(6);
  Home home(world, "a", 1);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await home.create(4, 2));
    EXPECT_OK(co_await home.set_tail(1));
    SimMinerLies lies;
    lies.old_state = 1000;
    world.network.miner(4).set_lies(lies);
    for (Sequence s = 2; s < 8; ++s) EXPECT_OK(co_await home.set_tail(s));
    co_await home.close();
    world.network.kill(0);
    world.network.kill(1);
    const auto seen = co_await home.survey();
    CO_ASSERT(seen && seen->newest);
    EXPECT_TRUE(seen->quorum_reached);
    EXPECT_EQ(seen->newest->tail.position, 70u);
    co_await home.end();
  });
}

TEST(TailKeeper, WorksOfflineAndClaimsLater) {
  StoreWorld world(6);
  Home home(world, "a", 1);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await home.create(4, 2));
    EXPECT_OK(co_await home.set_tail(1));
    co_await home.close();
    for (std::size_t at = 0; at < 6; ++at) world.network.kill(at);
    EXPECT_OK(co_await home.load());
    CO_ASSERT(home.file.record().seen);
    TailKeeper& tail = home.keeper(*home.file.record().seen);
    tail.start(home.file.record().next_ballot({}, false, random_instance(world.reactor)), Adopt::own);
    tail.update([](TailKeeper::Intent& intent) { intent.tail.position = 20; });
    EXPECT_EQ(kind_of(co_await tail.settled(100ms)), ErrorKind::unavailable);
    EXPECT_FALSE(tail.claimed());
    for (std::size_t at = 0; at < 6; ++at) world.network.start(at);
    EXPECT_OK(co_await tail.wait_claimed());
    EXPECT_OK(co_await tail.settled(2s));
    EXPECT_EQ(tail.accepted().tail.position, 20u);
    co_await home.end();
  });
}

// A proposal that its writer did not finish lies on one holder. Whoever opens next finds it, but a sync must
// not take it for stored before a quorum has it.
TEST(TailKeeper, AnUnfinishedRecordIsNotRemote) {
  StoreWorld world(6);
  Home home(world, "a", 1);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await home.create(4, 2));
    EXPECT_OK(co_await home.set_tail(1));
    EXPECT_EQ(home.tail->remote_tail().position, 10u);
    Superblock unfinished = home.tail->accepted();
    co_await home.close();
    ++unfinished.version;
    unfinished.tail.position = 20;
    sign_superblock(unfinished, world.keys.signing_key());
    EXPECT_OK(co_await home.load());
    CO_ASSERT(home.file.record().seen);
    for (std::size_t at = 0; at < 6; ++at) world.network.kill(at);
    TailKeeper& tail = home.keeper(unfinished);
    tail.start(home.file.record().next_ballot({}, false, random_instance(world.reactor)), Adopt::own);
    EXPECT_EQ(tail.accepted().tail.position, 20u);
    EXPECT_EQ(tail.remote_tail().position, 10u);
    for (std::size_t at = 0; at < 6; ++at) world.network.start(at);
    EXPECT_OK(co_await tail.wait_claimed());
    EXPECT_EQ(tail.remote_tail().position, 20u);
    co_await home.end();
  });
}

TEST(TailKeeper, OfflineHomeFindsAnotherWriter) {
  StoreWorld world(6);
  Home home(world, "a", 1);
  Home other(world, "b", 2);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await home.create(4, 2));
    co_await home.close();
    EXPECT_OK(co_await other.open(Adopt::any, true));
    world.network.cut_all(1);
    EXPECT_OK(co_await home.load());
    TailKeeper& tail = home.keeper(*home.file.record().seen);
    tail.start(home.file.record().next_ballot({}, false, random_instance(world.reactor)), Adopt::own);
    co_await world.reactor.sleep_for(50ms);
    world.network.mend_all();
    EXPECT_EQ(kind_of(co_await tail.wait_claimed()), ErrorKind::fenced);
    EXPECT_OK(co_await other.set_tail(1));
    co_await other.end();
    co_await home.end();
  });
}

// A minority record of an earlier opening, with a higher version than any that the quorum showed.
TEST(TailKeeper, OutbidsAForgottenMinorityRecord) {
  StoreWorld world(3);
  Home home(world, "a", 1);
  Home other(world, "b", 2);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await home.create(2, 1));
    Superblock stray = home.tail->accepted();
    stray.version += 5000;
    stray.tail.position = 777;
    sign_superblock(stray, world.keys.signing_key());
    co_await home.close();
    world.network.cut(2, 2);
    CO_ASSERT(world.network.miner(2).accept(stray.volume, stray));
    EXPECT_OK(co_await other.open(Adopt::any, true));  // never saw it
    world.network.mend_all();
    world.network.cut(2, 0);  // now it is needed for a quorum
    EXPECT_OK(co_await other.set_tail(2));
    EXPECT_GT(other.tail->accepted().version, stray.version);
    EXPECT_EQ(other.tail->accepted().tail.position, 20u);
    co_await other.end();
    co_await home.end();
  });
}

TEST(TailKeeper, HolderSetMovesJointly) {
  StoreWorld world(9);
  Home home(world, "a", 1);
  world.run([&]() -> Task<void> {
    std::vector<MinerEntry> old_list(world.network.entries().begin(), world.network.entries().begin() + 3);
    std::vector<MinerEntry> new_list(world.network.entries().begin() + 2,
                                     world.network.entries().begin() + 5);
    EXPECT_OK(co_await home.load());
    Superblock first = world.first_record(2, 1);
    first.holders = choose_holders(old_list, 1, {});
    home.transport.set_miners(old_list);
    TailKeeper& tail = home.keeper(first);
    EXPECT_OK(co_await tail.claim({1, 1, random_instance(world.reactor)}, Adopt::own, 2s));
    EXPECT_OK(co_await home.set_tail(1));

    home.transport.set_miners(world.network.entries());
    EXPECT_OK(co_await tail.set_miners(new_list, 2s));
    EXPECT_EQ(tail.accepted().holders.size(), 3u);
    EXPECT_TRUE(tail.accepted().next_holders.empty());
    EXPECT_EQ(tail.accepted().holder_generation, 2u);
    for (const MinerEntry& entry : new_list)
      EXPECT_NE(std::ranges::find(tail.accepted().holders, entry.id), tail.accepted().holders.end());
    home.transport.set_miners(new_list);
    EXPECT_OK(co_await home.set_tail(2));
    co_await home.close();

    // A home that only knows the old list still finds the new holders through the joint record.
    home.transport.set_miners(world.network.entries());
    const auto seen = co_await home.survey();
    CO_ASSERT(seen && seen->newest);
    EXPECT_EQ(seen->newest->tail.position, 20u);
    EXPECT_EQ(open_miners(world.keys, seen->newest->sealed_miners), new_list);
    co_await home.end();
  });
}

// The miners that the volume was moving to died in the middle of it: the old ones take it back.
TEST(TailKeeper, AMoveToHoldersThatDiedIsTakenBack) {
  StoreWorld world(9);
  Home home(world, "a", 1);
  world.run([&]() -> Task<void> {
    const std::vector<MinerEntry> all = world.network.entries();
    const std::vector<MinerEntry> old_list(all.begin(), all.begin() + 4);
    const std::vector<MinerEntry> dead(all.begin() + 4, all.begin() + 8);
    EXPECT_OK(co_await home.load());
    Superblock first = world.first_record(2, 1);
    first.holders = choose_holders(old_list, 1, {});
    TailKeeper& tail = home.keeper(first);
    EXPECT_OK(co_await tail.claim({1, 1, random_instance(world.reactor)}, Adopt::own, 2s));
    for (std::size_t at = 4; at < 8; ++at) world.network.kill(at);
    EXPECT_EQ(kind_of(co_await tail.set_miners(dead, 300ms)), ErrorKind::unavailable);
    EXPECT_EQ(kind_of(co_await home.set_tail(1)), ErrorKind::unavailable);

    EXPECT_OK(co_await tail.set_miners(old_list, 2s));
    EXPECT_EQ(tail.accepted().tail.position, 10u);
    EXPECT_TRUE(tail.accepted().next_holders.empty());
    EXPECT_EQ(tail.accepted().holders, first.holders);
    EXPECT_OK(co_await home.set_tail(2));
    // A move to others that live needs no way back in between.
    EXPECT_EQ(kind_of(co_await tail.set_miners(dead, 300ms)), ErrorKind::unavailable);
    const std::vector<MinerEntry> living(all.begin() + 1, all.begin() + 4);
    EXPECT_OK(co_await tail.set_miners(living, 2s));
    EXPECT_EQ(tail.accepted().holders, choose_holders(living, 1, {}));
    co_await home.close();

    const auto seen = co_await home.survey();
    CO_ASSERT(seen && seen->newest);
    EXPECT_EQ(seen->newest->tail.position, 20u);
    EXPECT_EQ(open_miners(world.keys, seen->newest->sealed_miners), living);
    co_await home.end();
  });
}

TEST(TailKeeper, LossyNetworkNeverLosesAnAcceptedTail) {
  StoreWorld world(6);
  SimWeather weather;
  weather.request_lost = 150;
  weather.answer_lost = 150;
  weather.duplicated = 200;
  weather.duplicate_after_max = 100ms;
  world.network.set_weather(weather);
  Home first(world, "first", 1);
  Home second(world, "second", 2);
  world.run([&]() -> Task<void> {
    Home* homes[] = {&first, &second};
    Status created = co_await first.create(4, 2);
    CO_ASSERT(created);
    LogPosition accepted = 0;
    Sequence next = 1;
    for (int turn = 0; turn < 4; ++turn) {
      Home& writer = *homes[turn % 2];
      if (turn > 0) {
        co_await writer.close();
        const Status opened = co_await writer.open(Adopt::any, true);
        if (!opened) continue;
        EXPECT_GE(writer.tail->accepted().tail.position, accepted);
        next = std::max<Sequence>(next, writer.tail->accepted().tail.position / 10 + 1);
      }
      for (int i = 0; i < 5; ++i) {
        const Sequence sequence = next++;
        if (co_await writer.set_tail(sequence)) accepted = sequence * 10;
      }
    }
    EXPECT_GT(accepted, 0u);
    co_await first.end();
    co_await second.end();
  });
}

TEST(TailKeeper, DestroyedIsForEver) {
  StoreWorld world(6);
  Home home(world, "a", 1);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await home.create(4, 2));
    home.tail->update([](TailKeeper::Intent& intent) { intent.destroyed = true; });
    EXPECT_OK(co_await home.tail->settled(2s));
    co_await home.close();
    const Status opened = co_await home.open(Adopt::any, true);
    EXPECT_EQ(kind_of(opened), ErrorKind::fenced);
    co_await home.end();
  });
}

// Kills all holders but `alive`, and offers them the mark.
Task<void> mark_minority(StoreWorld& world, Home& home, std::size_t alive) {
  for (std::size_t at = alive; at < world.network.size(); ++at) world.network.kill(at);
  home.tail->update([](TailKeeper::Intent& intent) { intent.destroyed = true; });
  EXPECT_EQ(kind_of(co_await home.tail->settled(300ms)), ErrorKind::unavailable);
  co_await home.close();
}

// Destroying again counts those that took the mark before: they promise and accept nothing more.
TEST(TailKeeper, AMarkThatReachedTooFewIsFinished) {
  StoreWorld world(6);
  Home home(world, "a", 1);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await home.create(4, 2));
    co_await mark_minority(world, home, 2);
    for (std::size_t at = 2; at < 6; ++at) world.network.start(at);
    EXPECT_EQ(kind_of(co_await home.open(Adopt::own, false)), ErrorKind::fenced);
    co_await home.close();
    EXPECT_OK(co_await home.open(Adopt::destroyed, false));
    EXPECT_TRUE(home.tail->accepted().destroyed);
    co_await home.close();
    // And once more, when nobody promises anything to anybody.
    EXPECT_OK(co_await home.open(Adopt::destroyed, false));
    EXPECT_TRUE(home.tail->accepted().destroyed);
    co_await home.end();
  });
}

// The mark lies at one holder that was away while another home went on; the newest record is not destroyed.
TEST(TailKeeper, AnOldMarkIsFinishedOnlyByWhoMayEndTheVolume) {
  StoreWorld world(6);
  Home first(world, "a", 1);
  Home second(world, "b", 2);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await first.create(4, 2));
    EXPECT_OK(co_await first.set_tail(1));
    co_await mark_minority(world, first, 1);
    world.network.kill(0);
    for (std::size_t at = 1; at < 6; ++at) world.network.start(at);
    EXPECT_OK(co_await second.open(Adopt::any, true));
    EXPECT_OK(co_await second.set_tail(2));
    world.network.start(0);
    // It is in use by the second home, whatever the one holder has.
    EXPECT_EQ(kind_of(co_await first.open(Adopt::destroyed, false)), ErrorKind::fenced);
    co_await first.close();
    co_await second.close();
    EXPECT_OK(co_await second.open(Adopt::destroyed, false));
    second.tail->update([](TailKeeper::Intent& intent) { intent.destroyed = true; });
    EXPECT_OK(co_await second.tail->settled(2s));
    EXPECT_TRUE(second.tail->accepted().destroyed);
    EXPECT_EQ(second.tail->accepted().tail.through.sequence, 2u);
    co_await first.end();
    co_await second.end();
  });
}

}  // namespace
}  // namespace cumulus
