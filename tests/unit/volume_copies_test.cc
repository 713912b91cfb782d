// A home whose disk was put back to an older copy, as an administrator does with a machine's snapshot: what
// it wrote after the copy and before it was put back is on the miners under the names of what it writes now.
#include "tests/unit/volume_world.h"

namespace cumulus {
namespace {

constexpr std::size_t kMiners = 6;

void start_all(World& world) {
  for (std::size_t miner = 0; miner < kMiners; ++miner) world.network.start(miner);
}
void kill_all(World& world) {
  for (std::size_t miner = 0; miner < kMiners; ++miner) world.network.kill(miner);
}

// Ends without a word to the miners, as a power cut does.
Task<> cut_off(World& world, std::unique_ptr<Volume>& volume) {
  kill_all(world);
  const Status told = co_await volume->close();
  static_cast<void>(told);
  volume.reset();
}

Task<Result<std::unique_ptr<Volume>>> make(World& world, FakeTransport& transport, DatasetId& dataset) {
  transport.set_miners(world.network.entries());
  CO_TRY(auto volume, co_await Volume::create(world.parts(transport, "a"), {4, 2, 20}, small_options()));
  CO_TRY(dataset, co_await volume->create_dataset("main", {}));
  co_return volume;
}

void copy_home(World& world) {
  std::filesystem::copy(world.directory / "a", world.directory / "copy",
                        std::filesystem::copy_options::recursive);
}
void put_copy_back(World& world) {
  std::filesystem::remove_all(world.directory / "a");
  std::filesystem::rename(world.directory / "copy", world.directory / "a");
}

Task<> expect_object(Volume& volume, DatasetId dataset, ObjectId id, const Bytes& data) {
  const auto back = co_await get_object(volume, dataset, id, data.size());
  ASSERT_WELL(back);
  EXPECT_TRUE(*back == data) << id;
}

// The first life's segment is whole on three miners when the copy is put back, under the name, the key and
// the salt of the one that the second life stores. Found by the simulator.
Task<> recover_after_an_older_copy(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  DatasetId dataset = 0;
  auto volume = co_await make(world, transport, dataset);
  ASSERT_WELL(volume);
  const Bytes first = pattern(50'000, 1);
  auto id = co_await put_object(**volume, dataset, first);
  ASSERT_WELL(id);
  ASSERT_WELL(co_await (*volume)->flush(Durability::local, {}));
  copy_home(world);

  for (const std::size_t miner : {0, 1, 2, 3}) world.network.kill(miner);  // two slices find no place
  ASSERT_WELL(co_await put_object(**volume, dataset, pattern(200'000, 2)));
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
  co_await cut_off(world, *volume);
  put_copy_back(world);
  start_all(world);
  volume = co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write);
  ASSERT_WELL(volume);
  ASSERT_WELL(co_await (*volume)->flush(Durability::remote, {}));
  // The note of where the segment is reaches the miners with the next.
  const Bytes second = pattern(1'500'000, 3);
  auto later = co_await put_object(**volume, dataset, second);
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
  co_await expect_object(**volume, dataset, *id, first);
  const auto checked = co_await (*volume)->check(true, {});
  ASSERT_WELL(checked);
  EXPECT_TRUE(checked->clean()) << (checked->problems.empty() ? "" : checked->problems.front());
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
  co_await other.close();
}
TEST(VolumeCopies, WhatAnEarlierLifeLeftOnTheMinersIsNotTaken) { play(recover_after_an_older_copy); }

// The first life's tail went on while the copy lay still; the second life begins without miners. What it
// writes is never called Remote, and the volume then goes on with what is.
Task<> open_an_older_copy_offline(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  DatasetId dataset = 0;
  auto volume = co_await make(world, transport, dataset);
  ASSERT_WELL(volume);
  ASSERT_WELL(co_await put_object(**volume, dataset, pattern(50'000, 1)));
  ASSERT_WELL(co_await (*volume)->flush(Durability::remote, {}));
  copy_home(world);
  const Bytes stored = pattern(3'000'000, 2);
  auto id = co_await put_object(**volume, dataset, stored);
  ASSERT_WELL(id);
  ASSERT_WELL(co_await (*volume)->flush(Durability::remote, {}));
  co_await cut_off(world, *volume);
  put_copy_back(world);

  volume = co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write);
  ASSERT_WELL(volume);
  ASSERT_WELL(co_await put_object(**volume, dataset, pattern(60'000, 3)));
  ASSERT_WELL(co_await (*volume)->flush(Durability::local, {}));
  start_all(world);
  const TimePoint patience = world.reactor.now() + std::chrono::seconds(20);
  const Status remote = co_await (*volume)->flush(
      Durability::remote, [&](std::uint64_t, std::uint64_t) { return world.reactor.now() < patience; });
  EXPECT_FALSE(remote);
  if (!remote) {
    EXPECT_EQ(remote.error().kind(), ErrorKind::fenced) << remote.error().message();
  }
  const Status told = co_await (*volume)->close();
  static_cast<void>(told);
  volume->reset();

  volume = co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write);
  ASSERT_WELL(volume);
  co_await expect_object(**volume, dataset, *id, stored);
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
}
TEST(VolumeCopies, ALifeWithoutMinersIsNotTakenForTheOneTheyHold) { play(open_an_older_copy_offline); }

// Only the mark is lost that says where the needed log begins: what left the cache is not fetched back into
// it.
Task<> lose_the_replay_mark(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  DatasetId dataset = 0;
  auto volume = co_await make(world, transport, dataset);
  ASSERT_WELL(volume);
  const Bytes data = pattern(12'000'000, 1);
  auto id = co_await put_object(**volume, dataset, data);
  ASSERT_WELL(id);
  ASSERT_WELL(co_await (*volume)->flush(Durability::remote, {}));
  ASSERT_WELL(co_await (*volume)->drop_cache());
  const auto before = co_await (*volume)->status(false);
  ASSERT_WELL(before);
  EXPECT_LT(before->cache_bytes, 4u << 20);
  ASSERT_WELL(co_await (*volume)->close());
  volume->reset();
  EXPECT_TRUE(std::filesystem::remove(world.directory / "a" / "replay"));

  volume = co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write);
  ASSERT_WELL(volume);
  const auto after = co_await (*volume)->status(false);
  ASSERT_WELL(after);
  EXPECT_LT(after->cache_bytes, 6u << 20);
  co_await expect_object(**volume, dataset, *id, data);
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
}
TEST(VolumeCopies, ALostReplayMarkFetchesNothing) { play(lose_the_replay_mark); }

}  // namespace
}  // namespace cumulus
