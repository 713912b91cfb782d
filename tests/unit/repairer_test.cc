// Repairer, checker and destroyer: exactly what is missing or wrong is found and rebuilt, and nothing else is
// touched.
#include "objectstore/store/repairer.h"

#include "objectstore/store/checker.h"
#include "objectstore/store/destroyer.h"
#include "tests/fakes/placed_index.h"
#include "tests/unit/push_world.h"

namespace cumulus {
namespace {

class CareWorld : public PushWorld {
 public:
  using PushWorld::PushWorld;

  // A claimed volume with `count` stored segments.
  Task<Status> fill(std::uint8_t k, std::uint8_t m, unsigned count) {
    CO_TRY_OK(co_await open(k, m));
    start_pusher();
    for (unsigned i = 0; i < count; ++i) pusher->push(make(i % 3 == 2 ? 5000 + i : kSegment));
    CO_TRY_OK(co_await pusher->wait_remote(count * 10));
    index.segments = placed;
    co_return Status();
  }
  Task<Result<RepairReport>> repair(Progress progress = {}) {
    Repairer::Note note = [this](change::Placed now) -> Task<Status> {
      index.segments[now.segment] = now;
      noted.push_back(now.segment);
      co_return Status();
    };
    Repairer::Keep keep = [this](std::optional<SegmentId> through) -> Task<void> {
      kept = through;
      ++keeps;
      co_return;
    };
    Repairer repairer(reactor, index, home.transport, keys.volume_id(), 300ms, std::move(note),
                      std::move(keep));
    const std::optional<SegmentId> after = kept;
    auto report = co_await repairer.repair(after, std::move(progress));
    damaged = repairer.damaged();
    co_return report;
  }
  Task<Result<CheckReport>> check() {
    Checker checker(reactor, index, home.transport, keys.volume_id(), 300ms);
    co_return co_await checker.check(true, {});
  }
  bool all_whole() {
    return std::ranges::all_of(index.segments, [this](const auto& entry) {
      return present(entry.second) == entry.second.miners.size();
    });
  }
  std::size_t total_slices() {
    std::size_t slices = 0;
    for (std::size_t at = 0; at < network.size(); ++at)
      slices += network.miner(at).slice_count(keys.volume_id());
    return slices;
  }

  PlacedIndex index;
  std::vector<SegmentId> noted;
  std::optional<SegmentId> kept;  // by an interrupted run
  unsigned keeps = 0;
  std::set<SegmentId> damaged;
};

TEST(Repairer, AHealthyVolumeIsLeftAlone) {
  CareWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.fill(4, 2, 5));
    const auto report = co_await world.repair();
    CO_ASSERT(report);
    EXPECT_EQ(report->segments, 5u);
    EXPECT_EQ(report->rebuilt, 0u);
    EXPECT_EQ(report->unrepairable, 0u);
    EXPECT_TRUE(report->problems.empty());
    EXPECT_TRUE(world.noted.empty());
    EXPECT_EQ(world.total_slices(), 30u);
    const auto check = co_await world.check();
    CO_ASSERT(check);
    EXPECT_TRUE(check->clean());
    EXPECT_EQ(check->slices, 30u);
    co_await world.end();
  });
}

TEST(Repairer, RebuildsExactlyWhatIsMissing) {
  CareWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.fill(4, 2, 6));
    // Two slices of the first segment, one of the third.
    const change::Placed first = world.index.segments.begin()->second;
    const change::Placed third = std::next(world.index.segments.begin(), 2)->second;
    CO_ASSERT(world.find(first.miners[0])->remove(world.where_volume(), {{first.segment, 0}}));
    CO_ASSERT(world.find(first.miners[5])->remove(world.where_volume(), {{first.segment, 5}}));
    CO_ASSERT(world.find(third.miners[3])->remove(world.where_volume(), {{third.segment, 3}}));
    const auto before = co_await world.check();
    CO_ASSERT(before);
    EXPECT_EQ(before->slices_missing, 3u);
    EXPECT_EQ(before->slices_wrong, 0u);
    EXPECT_FALSE(before->clean());

    const auto report = co_await world.repair();
    CO_ASSERT(report);
    EXPECT_EQ(report->rebuilt, 3u);
    EXPECT_TRUE(world.all_whole());
    EXPECT_EQ(world.total_slices(), 36u);
    EXPECT_TRUE(world.noted.empty());  // each went back to the miner that had lost it
    const auto after = co_await world.check();
    CO_ASSERT(after);
    EXPECT_TRUE(after->clean());
    co_await world.end();
  });
}

// The index names other miners for one segment than those that hold it: it is found, not given up, and noted.
void expect_found(const std::function<void(std::vector<MinerId>&)>& misname) {
  CareWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.fill(4, 2, 2));
    change::Placed& first = world.index.segments.begin()->second;
    const change::Placed known = first;
    misname(first.miners);
    const auto check = co_await world.check();
    CO_ASSERT(check);
    EXPECT_TRUE(check->clean());
    const auto report = co_await world.repair();
    CO_ASSERT(report);
    EXPECT_EQ(report->unrepairable, 0u);
    EXPECT_EQ(report->rebuilt, 0u);
    EXPECT_EQ(world.noted, std::vector<SegmentId>{known.segment});
    EXPECT_EQ(world.index.segments.begin()->second, known);
    co_await world.end();
  });
}

// After a recovery without some miners nobody knows what those hold.
TEST(Repairer, SlicesWhoseMinersAreNotKnownAreFound) {
  expect_found([](std::vector<MinerId>& miners) {
    for (const std::size_t slice : {0, 2, 5}) miners[slice] = MinerId{};  // one more than may be lost
  });
}

// A repair that was killed before it could write down where it put slices: the named miners have others.
TEST(Repairer, SlicesThatNamedMinersDoNotHaveAreLookedForElsewhere) {
  expect_found([](std::vector<MinerId>& miners) {
    std::rotate(miners.begin(), miners.begin() + 1, miners.begin() + 3);
  });
}

TEST(Repairer, RottenSlicesAreReplaced) {
  CareWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.fill(4, 2, 4));
    EXPECT_EQ(world.network.miner(1).rot(4), 4u);
    EXPECT_EQ(world.network.miner(4).rot(2), 2u);
    const auto before = co_await world.check();
    CO_ASSERT(before);
    EXPECT_EQ(before->slices_wrong + before->slices_missing, 6u);
    const auto report = co_await world.repair();
    CO_ASSERT(report);
    EXPECT_EQ(report->rebuilt, 6u);
    EXPECT_TRUE(world.all_whole());
    co_await world.end();
  });
}

TEST(Repairer, ADeadMinersSlicesMoveToOthers) {
  CareWorld world(8);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.fill(4, 2, 8));
    world.network.kill(2);
    std::size_t lost = 0;
    for (const auto& [id, where] : world.index.segments)
      lost += static_cast<std::size_t>(std::ranges::count(where.miners, world.network.miner(2).id()));
    EXPECT_GT(lost, 0u);
    const auto report = co_await world.repair();
    CO_ASSERT(report);
    EXPECT_EQ(report->rebuilt, lost);
    EXPECT_EQ(world.noted.size(), lost);
    for (const auto& [id, where] : world.index.segments) {
      EXPECT_EQ(std::ranges::count(where.miners, world.network.miner(2).id()), 0);
      EXPECT_EQ(PushWorld::distinct(where), 6u);
      EXPECT_EQ(world.present(where), 6u);
    }
    co_await world.end();
  });
}

TEST(Repairer, CrowdedSegmentsAreSpreadWhenMinersReturn) {
  CareWorld world(6);
  world.run([&]() -> Task<void> {
    CO_ASSERT(co_await world.open(4, 2));
    world.start_pusher();
    world.network.kill(0);
    world.network.kill(1);
    for (int i = 0; i < 3; ++i) world.pusher->push(world.make());
    EXPECT_OK(co_await world.pusher->wait_remote(30));
    world.index.segments = world.placed;
    const auto early = co_await world.repair();
    CO_ASSERT(early);
    EXPECT_EQ(early->spread, 0u);
    world.network.start(0);
    world.network.start(1);
    const auto report = co_await world.repair();
    CO_ASSERT(report);
    EXPECT_GT(report->spread, 0u);
    EXPECT_EQ(report->rebuilt, 0u);
    for (const auto& [id, where] : world.index.segments) {
      EXPECT_EQ(PushWorld::distinct(where), 6u);
      EXPECT_EQ(world.present(where), 6u);
    }
    co_await world.end();
  });
}

// A miner that answers everything rightly but what it is read: its slices go to another, and only once.
TEST(Repairer, AMinerThatLiesOnlyWhenReadLosesItsSlices) {
  CareWorld world(7);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.fill(4, 2, 6));
    SimMinerLies lies;
    lies.wrong_bytes = 1000;
    world.network.miner(2).set_lies(lies);
    const MinerId liar = world.network.miner(2).id();
    std::size_t held = 0;
    for (const auto& [id, where] : world.index.segments)
      held += static_cast<std::size_t>(std::ranges::count(where.miners, liar));
    EXPECT_GT(held, 0u);
    const auto report = co_await world.repair();
    CO_ASSERT(report);
    EXPECT_EQ(report->rebuilt, held);
    EXPECT_TRUE(report->whole());
    EXPECT_TRUE(world.damaged.empty());
    for (const auto& [id, where] : world.index.segments) {
      EXPECT_EQ(std::ranges::count(where.miners, liar), 0);
      EXPECT_EQ(PushWorld::distinct(where), 6u);
    }
    const auto again = co_await world.repair();
    CO_ASSERT(again);
    EXPECT_EQ(again->rebuilt, 0u);
    co_await world.end();
  });
}

// What cannot be done is said, and is not called whole.
TEST(Repairer, TooFewMinersForNowIsNotWhole) {
  CareWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.fill(4, 2, 3));
    world.network.kill(1);
    const auto report = co_await world.repair();
    CO_ASSERT(report);
    EXPECT_EQ(report->rebuilt, 3u);
    EXPECT_EQ(report->unspread, 3u);
    EXPECT_FALSE(report->whole());
    EXPECT_EQ(report->problems.size(), 1u);
    world.network.start(1);
    const auto later = co_await world.repair();
    CO_ASSERT(later);
    EXPECT_EQ(later->spread, 3u);
    EXPECT_TRUE(later->whole());
    co_await world.end();
  });
}

TEST(Repairer, AnInterruptedRunIsGoneOnWith) {
  CareWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.fill(4, 2, 12));
    const Progress until_six = [](std::uint64_t done, std::uint64_t) { return done < 6; };
    const auto cut = co_await world.repair(until_six);
    EXPECT_FALSE(cut);
    // A second has not passed: nothing may have been kept. What was kept is believed.
    world.kept = std::next(world.index.segments.begin(), 7)->first;
    // Something in danger is looked at wherever it lies.
    const change::Placed first = world.index.segments.begin()->second;
    CO_ASSERT(world.find(first.miners[0])->remove(world.where_volume(), {{first.segment, 0}}));
    const auto report = co_await world.repair();
    CO_ASSERT(report);
    EXPECT_EQ(report->segments, 12u);
    EXPECT_EQ(report->resumed, 7u);
    EXPECT_EQ(report->rebuilt, 1u);
    EXPECT_TRUE(world.all_whole());
    EXPECT_FALSE(world.kept);  // through: the next begins anew
    const auto next = co_await world.repair();
    CO_ASSERT(next);
    EXPECT_EQ(next->resumed, 0u);
    co_await world.end();
  });
}

// The position is handed out once a second, and never passes a segment that was not looked at.
TEST(Repairer, KeepsHowFarItHasCome) {
  CareWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.fill(4, 2, 20));
    for (std::size_t at = 0; at < 6; ++at) world.network.set_speed(at, 120ms, 0ms);
    std::uint64_t looked_at = 0;
    const Progress count = [&](std::uint64_t done, std::uint64_t) {
      looked_at = done;
      if (world.kept) {
        const auto found = world.index.segments.find(*world.kept);
        EXPECT_LE(static_cast<std::uint64_t>(std::distance(world.index.segments.begin(), found)), done);
      }
      return true;
    };
    const auto report = co_await world.repair(count);
    CO_ASSERT(report);
    EXPECT_EQ(looked_at, 20u);
    EXPECT_GT(world.keeps, 1u);
    EXPECT_FALSE(world.kept);
    co_await world.end();
  });
}

TEST(Repairer, ADrainingMinerIsEmptied) {
  CareWorld world(7);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.fill(4, 2, 6));
    std::vector<MinerEntry> miners = world.home.transport.miners();
    miners[3].weight = 0;
    world.home.transport.set_miners(miners);
    const auto report = co_await world.repair();
    CO_ASSERT(report);
    EXPECT_GT(report->spread, 0u);
    EXPECT_TRUE(report->whole());
    for (const auto& [id, where] : world.index.segments)
      EXPECT_EQ(std::ranges::count(where.miners, miners[3].id), 0);
    co_await world.end();
  });
}

TEST(Repairer, SaysWhatItCannotMend) {
  CareWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.fill(4, 2, 3));
    for (std::size_t at = 0; at < 3; ++at) world.network.miner(at).wipe();
    const auto report = co_await world.repair();
    CO_ASSERT(report);
    EXPECT_EQ(report->unrepairable, 3u);
    EXPECT_EQ(report->rebuilt, 0u);
    EXPECT_EQ(report->problems.size(), 3u);
    const auto check = co_await world.check();
    CO_ASSERT(check);
    EXPECT_EQ(check->slices_missing, 9u);
    EXPECT_EQ(check->problems.size(), 12u);
    co_await world.end();
  });
}

// Bytes that a liar alters on the way never reach another miner.
TEST(Repairer, LiarsDoNotPoisonARepair) {
  CareWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.fill(4, 2, 4));
    SimMinerLies lies;
    lies.wrong_bytes = 1000;
    world.network.miner(5).set_lies(lies);
    CO_ASSERT(world.index.segments.size() == 4);
    for (const auto& [id, where] : world.index.segments) {
      const auto at = std::ranges::find(where.miners, world.network.miner(0).id()) - where.miners.begin();
      CO_ASSERT(world.network.miner(0).remove(world.where_volume(), {{id, static_cast<std::uint16_t>(at)}}));
    }
    const auto report = co_await world.repair();
    CO_ASSERT(report);
    EXPECT_EQ(report->unrepairable, 0u);
    EXPECT_TRUE(world.all_whole());
    co_await world.end();
  });
}

TEST(Repairer, MostEndangeredFirstAndInterruptible) {
  CareWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.fill(4, 2, 9));
    const change::Placed worst = world.index.segments.rbegin()->second;
    for (const std::uint16_t i : {1, 4})
      CO_ASSERT(world.find(worst.miners[i])->remove(world.where_volume(), {{worst.segment, i}}));
    const auto report = co_await world.repair([](std::uint64_t done, std::uint64_t) { return done < 2; });
    CO_ASSERT(!report);
    EXPECT_EQ(report.error().kind(), ErrorKind::closed);
    EXPECT_EQ(world.present(worst), 6u);
    co_await world.end();
  });
}

TEST(Checker, AnUnsoundIndexIsAProblem) {
  CareWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.fill(4, 2, 1));
    world.index.soundness = fail(ErrorKind::corrupt, "a row does not decode");
    const auto check = co_await world.check();
    CO_ASSERT(check);
    EXPECT_FALSE(check->clean());
    CO_ASSERT(check->problems.size() == 1);
    EXPECT_EQ(check->problems[0], "index: a row does not decode");
    co_await world.end();
  });
}

TEST(Destroyer, DeletesEverythingAndNamesWhoDidNotAnswer) {
  CareWorld world(6);
  world.run([&]() -> Task<void> {
    EXPECT_OK(co_await world.fill(4, 2, 7));
    for (std::size_t at = 0; at < 6; ++at) world.network.miner(at).set_page_slices(3);
    world.network.kill(3);
    world.home.tail->update([](TailKeeper::Intent& intent) { intent.destroyed = true; });
    EXPECT_OK(co_await world.home.tail->settled(2s));
    Destroyer destroyer(world.reactor, world.home.transport, world.home.tail->accepted(), 300ms);
    std::uint64_t deleted = 0;
    const Progress progress = [&](std::uint64_t done, std::uint64_t) {
      deleted = done;
      return true;
    };
    const auto left = co_await destroyer.delete_slices(progress);
    CO_ASSERT(left);
    CO_ASSERT(left->size() == 1);
    EXPECT_NE((*left)[0].find(world.network.entries()[3].address), std::string::npos);
    EXPECT_EQ(deleted, 35u);
    EXPECT_EQ(world.total_slices(), world.network.miner(3).slice_count(world.where_volume()));
    // Again, when it answers: the rest.
    world.network.start(3);
    const auto rest = co_await destroyer.delete_slices({});
    CO_ASSERT(rest);
    EXPECT_TRUE(rest->empty());
    EXPECT_EQ(world.total_slices(), 0u);
    co_await world.pusher->close();
    // Nobody opens it again.
    Home other(world, "other", 2);
    const Status opened = co_await other.open(Adopt::any, true);
    EXPECT_FALSE(opened);
    co_await other.end();
    co_await world.end();
  });
}

}  // namespace
}  // namespace cumulus
