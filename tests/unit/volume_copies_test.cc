// A home whose disk was put back to an older copy, as an administrator does with a machine's snapshot: what
// it wrote after the copy and before it was put back is on the miners under the names of what it writes now.
#include "tests/unit/volume_world.h"

namespace cumulus {
namespace {

// The first life's segment is whole on three miners when the copy is put back, under the name, the key and
// the salt of the one that the second life stores. Found by the simulator.
Task<> recover_after_an_older_copy(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  transport.set_miners(world.network.entries());
  auto volume = co_await Volume::create(world.parts(transport, "a"), {4, 2, 20}, small_options());
  ASSERT_WELL(volume);
  auto dataset = co_await (*volume)->create_dataset("main", {});
  ASSERT_WELL(dataset);
  const Bytes first = pattern(50'000, 1);
  auto id = co_await put_object(**volume, *dataset, first);
  ASSERT_WELL(id);
  ASSERT_WELL(co_await (*volume)->flush(Durability::local, {}));
  std::filesystem::copy(world.directory / "a", world.directory / "copy",
                        std::filesystem::copy_options::recursive);

  for (const std::size_t miner : {0, 1, 2, 3}) world.network.kill(miner);  // two slices find no place
  ASSERT_WELL(co_await put_object(**volume, *dataset, pattern(200'000, 2)));
  const TimePoint patience = world.reactor.now() + std::chrono::seconds(3);
  const Status abandoned = co_await (*volume)->flush(
      Durability::remote, [&](std::uint64_t, std::uint64_t) { return world.reactor.now() < patience; });
  EXPECT_FALSE(abandoned);
  const auto status = co_await (*volume)->status(false);
  ASSERT_WELL(status);
  EXPECT_LT(status->remote, status->durable);
  std::uint64_t left_behind = 0;
  for (const std::size_t miner : {4, 5})
    left_behind += world.network.miner(miner).slice_count(world.keys.volume_id());
  EXPECT_EQ(left_behind, 4u);
  const Status cut_off = co_await (*volume)->close();
  static_cast<void>(cut_off);
  volume->reset();

  std::filesystem::remove_all(world.directory / "a");
  std::filesystem::rename(world.directory / "copy", world.directory / "a");
  for (const std::size_t miner : {0, 1, 2, 3}) world.network.start(miner);
  volume = co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write);
  ASSERT_WELL(volume);
  ASSERT_WELL(co_await (*volume)->flush(Durability::remote, {}));
  // The note of where the segment is reaches the miners with the next.
  const Bytes second = pattern(1'500'000, 3);
  auto later = co_await put_object(**volume, *dataset, second);
  ASSERT_WELL(later);
  ASSERT_WELL(co_await (*volume)->flush(Durability::remote, {}));
  ASSERT_WELL(co_await (*volume)->close());
  volume->reset();

  FakeTransport other(world.reactor, world.network, 1, world.keys.volume_id());
  other.set_miners(world.network.entries());
  volume =
      co_await Volume::recover(world.parts(other, "b"), small_options(), OpenMode::read_write, false, {});
  ASSERT_WELL(volume);
  ASSERT_WELL(co_await (*volume)->drop_cache());
  const auto back = co_await get_object(**volume, *dataset, *id, first.size());
  ASSERT_WELL(back);
  EXPECT_TRUE(*back == first);
  const auto checked = co_await (*volume)->check(true, {});
  ASSERT_WELL(checked);
  EXPECT_TRUE(checked->clean()) << (checked->problems.empty() ? "" : checked->problems.front());
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
  co_await other.close();
}
TEST(VolumeCopies, WhatAnEarlierLifeLeftOnTheMinersIsNotTaken) { play(recover_after_an_older_copy); }

}  // namespace
}  // namespace cumulus
