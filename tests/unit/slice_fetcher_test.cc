// Reading from miners of which some are slow: the right bytes in time, and what the slow ones still owe is
// bounded.
#include "objectstore/store/slice_fetcher.h"

#include "tests/unit/push_world.h"

namespace cumulus {
namespace {

class SlowMiners : public testing::Test {
 protected:
  // Stores `count` segments on six miners, 4+2.
  Task<void> store(std::size_t count) {
    EXPECT_OK(co_await world_.open(4, 2));
    Pusher& pusher = world_.start_pusher();
    for (std::size_t i = 0; i < count; ++i) pusher.push(world_.make());
    EXPECT_OK(co_await pusher.wait_remote(count * 10));
  }
  SliceFetcher& fetcher(std::uint64_t memory) {
    fetcher_ = std::make_unique<SliceFetcher>(world_.reactor, world_.home.transport, world_.where_volume(),
                                              PushWorld::kSegment, 1s, MemoryShares(memory), world_.metrics);
    return *fetcher_;
  }
  Task<void> read_all() {
    for (const auto& [id, where] : world_.placed) {
      const auto got = co_await fetcher_->fetch(where, 0, PushWorld::kSegment, FetchTrust::plain, 10s);
      CO_ASSERT(got);
      EXPECT_TRUE(equal(got->bytes, world_.local[id]->view(0, PushWorld::kSegment)));
    }
  }

  PushWorld world_{6};
  std::unique_ptr<SliceFetcher> fetcher_;
};

TEST_F(SlowMiners, ReadsThatWereOvertakenAreCalledOffWhenTheyHoldTooMuch) {
  world_.run([&]() -> Task<void> {
    co_await store(60);
    fetcher(32 * 4 * PushWorld::kSegment);  // such reads may hold four segments
    // The tail's own requests would be counted with the reads.
    EXPECT_TRUE(co_await world_.home.tail->settled(5s));
    for (int i = 0; i < 5000 && world_.home.transport.under_way() != 0; ++i)
      co_await world_.reactor.sleep_for(1ms);
    world_.network.set_silent(0, true);
    world_.network.set_silent(1, true);
    co_await read_all();
    // A segment's read holds its own memory once, and a parity slice each.
    EXPECT_GT(world_.home.transport.under_way(), 0u);
    EXPECT_LE(world_.home.transport.under_way(), 16u);
    co_await fetcher_->close();
    EXPECT_EQ(world_.home.transport.under_way(), 0u);
    co_await world_.end();
  });
}

TEST_F(SlowMiners, AreLeftOutOnceTheyAreKnown) {
  world_.run([&]() -> Task<void> {
    co_await store(60);
    fetcher(32 * 4 * PushWorld::kSegment);
    world_.network.set_speed(0, 500ms, 0ms);
    world_.network.set_speed(1, 500ms, 0ms);
    const TimePoint begin = world_.reactor.now();
    co_await read_all();
    // Waiting for one of them each time would take 30 s.
    EXPECT_LT(world_.reactor.now() - begin, 15s);
    co_await fetcher_->close();
    co_await world_.end();
  });
}

}  // namespace
}  // namespace cumulus
