// How a volume ends, or a miner's part in one: destroyed, interrupted, taken away.
#include "tests/unit/volume_world.h"

namespace cumulus {
namespace {

// A volume of home `a` with one object that is on the miners, closed.
Task<Result<ObjectId>> make_closed(World& world, FakeTransport& transport) {
  transport.set_miners(world.network.entries());
  CO_TRY(const auto volume,
         co_await Volume::create(world.parts(transport, "a"), {4, 2, 20}, small_options()));
  CO_TRY(const DatasetId dataset, co_await volume->create_dataset("main", {}));
  const Bytes data = pattern(300'000, 1);
  CO_TRY(const ObjectId id, co_await put_object(*volume, dataset, data));
  CO_TRY_OK(co_await volume->flush(Durability::remote, {}));
  CO_TRY_OK(co_await volume->close());
  co_return id;
}

std::size_t slices_left(World& world) {
  std::size_t count = 0;
  for (std::size_t at = 0; at < world.network.size(); ++at)
    count += world.network.miner(at).slice_count(world.keys.volume_id());
  return count;
}

// Too few holders: no miner heard of it, and the volume lives.
Task<> destroy_without_miners(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  const auto id = co_await make_closed(world, transport);
  ASSERT_WELL(id);
  for (std::size_t at = 0; at < 3; ++at) world.network.kill(at);
  const auto left = co_await Volume::destroy(world.parts(transport, "a"), small_options(), {});
  EXPECT_FALSE(left);
  if (!left) {
    EXPECT_EQ(left.error().kind(), ErrorKind::unavailable);
    EXPECT_NE(left.error().message().find("nothing was destroyed"), std::string::npos);
  }
  for (std::size_t at = 0; at < 3; ++at) world.network.start(at);
  for (int life = 0; life < 2; ++life) {
    auto volume = co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write);
    ASSERT_WELL(volume);
    const DatasetId dataset = (*volume)->find_dataset("main")->id;
    auto back = co_await get_object(**volume, dataset, *id, 300'000);
    ASSERT_WELL(back);
    EXPECT_TRUE(*back == pattern(300'000, 1));
    const Bytes data = pattern(100'000, 2);
    ASSERT_WELL(co_await put_object(**volume, dataset, data));
    ASSERT_WELL(co_await (*volume)->flush(Durability::remote, {}));
    ASSERT_WELL(co_await (*volume)->close());
  }
  co_await transport.close();
}
TEST(Volume, DestroyingWithoutAQuorumDestroysNothing) { play(destroy_without_miners); }

void expect_closed_for_good(const Result<std::unique_ptr<Volume>>& volume) {
  EXPECT_FALSE(volume);
  if (volume) return;
  EXPECT_EQ(volume.error().kind(), ErrorKind::fenced);
  EXPECT_NE(volume.error().message().find("'cumulus volume destroy'"), std::string::npos);
}

// With two miners away, interrupted, and from another home: again, until nothing is left.
Task<> destroy_to_the_end(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  ASSERT_WELL(co_await make_closed(world, transport));
  FakeTransport far(world.reactor, world.network, 1, world.keys.volume_id());
  far.set_miners(world.network.entries());
  auto other =
      co_await Volume::recover(world.parts(far, "b"), small_options(), OpenMode::read_write, false, {});
  ASSERT_WELL(other);
  ASSERT_WELL(co_await (*other)->close());

  world.network.kill(1);
  world.network.kill(4);
  const Progress interrupt = [](std::uint64_t, std::uint64_t) { return false; };
  const auto stopped = co_await Volume::destroy(world.parts(transport, "a"), small_options(), interrupt);
  EXPECT_FALSE(stopped);
  if (!stopped) {
    EXPECT_EQ(stopped.error().kind(), ErrorKind::closed);
  }
  auto left = co_await Volume::destroy(world.parts(transport, "a"), small_options(), {});
  ASSERT_WELL(left);
  EXPECT_EQ(left->size(), 2u);
  expect_closed_for_good(
      co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write));
  world.network.start(1);
  world.network.start(4);
  EXPECT_GT(slices_left(world), 0u);
  expect_closed_for_good(co_await Volume::open(world.parts(far, "b"), small_options(), OpenMode::steal));
  left = co_await Volume::destroy(world.parts(far, "b"), small_options(), {});
  ASSERT_WELL(left);
  EXPECT_TRUE(left->empty());
  EXPECT_EQ(slices_left(world), 0u);
  left = co_await Volume::destroy(world.parts(transport, "a"), small_options(), {});
  ASSERT_WELL(left);
  EXPECT_TRUE(left->empty());
  co_await transport.close();
  co_await far.close();
}
TEST(Volume, DestroyingGoesOnUntilNothingIsLeft) { play(destroy_to_the_end); }

// The home died between its note and the first holder's answer: nobody knows what the holders have.
Task<> destroy_begun(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  ASSERT_WELL(co_await make_closed(world, transport));
  const Bytes nothing;
  ASSERT_WELL(co_await world.disk->replace_file((world.directory / "a" / "destroying").string(), nothing));
  expect_closed_for_good(
      co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write));
  const auto left = co_await Volume::destroy(world.parts(transport, "a"), small_options(), {});
  ASSERT_WELL(left);
  EXPECT_EQ(slices_left(world), 0u);
  co_await transport.close();
}
TEST(Volume, ADestroyThatBeganIsOnlyFinished) { play(destroy_begun); }

// Called off in the middle: the next one needs no leave to take over what was never opened.
Task<> interrupt_a_recovery(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  const auto id = co_await make_closed(world, transport);
  ASSERT_WELL(id);
  const Progress interrupt = [](std::uint64_t, std::uint64_t) { return false; };
  const auto stopped = co_await Volume::recover(world.parts(transport, "b"), small_options(),
                                                OpenMode::read_write, false, interrupt);
  EXPECT_FALSE(stopped);
  if (!stopped) {
    EXPECT_EQ(stopped.error().kind(), ErrorKind::closed) << stopped.error().message();
  }
  auto volume =
      co_await Volume::recover(world.parts(transport, "c"), small_options(), OpenMode::read_write, false, {});
  ASSERT_WELL(volume);
  const DatasetId dataset = (*volume)->find_dataset("main")->id;
  auto back = co_await get_object(**volume, dataset, *id, 300'000);
  ASSERT_WELL(back);
  EXPECT_TRUE(*back == pattern(300'000, 1));
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
}
TEST(Volume, AnInterruptedRecoveryIsDoneAgainByAnybody) { play(interrupt_a_recovery); }

void expect_refused(const Status& status, ErrorKind kind) {
  EXPECT_FALSE(status);
  if (!status) {
    EXPECT_EQ(status.error().kind(), kind) << status.error().message();
  }
}

// Miners go when nothing of the volume is on them, or when they are said to be lost; enough must stay.
Task<> take_miners_away(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  ASSERT_WELL(co_await make_closed(world, transport));
  auto volume = co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write);
  ASSERT_WELL(volume);
  std::vector<MinerEntry> miners = world.network.entries();
  miners.pop_back();
  expect_refused(co_await (*volume)->set_miners(miners), ErrorKind::denied);
  EXPECT_EQ(transport.miners().size(), 6u);
  ASSERT_WELL(co_await (*volume)->set_miners(miners, true));
  EXPECT_EQ(transport.miners().size(), 5u);
  miners.resize(2);
  expect_refused(co_await (*volume)->set_miners(miners, true), ErrorKind::invalid);
  EXPECT_EQ(transport.miners().size(), 5u);
  // After a repair nothing is on the one that went: it may come and go.
  const auto repaired = co_await (*volume)->repair({}, {});
  ASSERT_WELL(repaired);
  ASSERT_WELL(co_await (*volume)->set_miners(world.network.entries()));
  miners = world.network.entries();
  miners.pop_back();
  ASSERT_WELL(co_await (*volume)->set_miners(miners));
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
}
TEST(Volume, AMinerWithSlicesIsNotTakenAway) { play(take_miners_away); }

}  // namespace
}  // namespace cumulus
