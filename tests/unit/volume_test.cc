// A whole Volume on the real disk, RocksDB and reactor, over miners in memory: what a user of the object API
// relies on.
#include <map>

#include "tests/fakes/map_engine.h"
#include "tests/unit/volume_world.h"

namespace cumulus {
namespace {

Task<> write_sync_drop_read(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  transport.set_miners(world.network.entries());
  auto volume = co_await Volume::create(world.parts(transport, "a"), {4, 2, 20}, small_options());
  ASSERT_WELL(volume);
  auto dataset = co_await (*volume)->create_dataset("main", {});
  ASSERT_WELL(dataset);
  std::map<ObjectId, Bytes> model;
  for (int i = 0; i < 12; ++i) {
    Bytes data = pattern(i * 500'000 + 17, i);
    auto id = co_await put_object(**volume, *dataset, data);
    ASSERT_WELL(id);
    model[*id] = std::move(data);
  }
  for (const auto& [id, data] : model) {
    auto back = co_await get_object(**volume, *dataset, id, data.size());
    ASSERT_WELL(back);
    EXPECT_TRUE(*back == data) << id;
  }
  ASSERT_WELL(co_await (*volume)->flush(Durability::remote, {}));
  ASSERT_WELL(co_await (*volume)->drop_cache());
  world.network.kill(1);
  world.network.kill(4);
  for (const auto& [id, data] : model) {
    auto back = co_await get_object(**volume, *dataset, id, data.size());
    ASSERT_WELL(back);
    EXPECT_TRUE(*back == data) << id;
  }
  world.network.start(1);
  world.network.start(4);
  ASSERT_WELL(co_await (*volume)->close());
  volume->reset();

  // The same home again.
  volume = co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write);
  ASSERT_WELL(volume);
  for (const auto& [id, data] : model) {
    auto back = co_await get_object(**volume, *dataset, id, data.size());
    ASSERT_WELL(back);
    EXPECT_TRUE(*back == data) << id;
  }
  auto checked = co_await (*volume)->check(true, {});
  ASSERT_WELL(checked);
  EXPECT_TRUE(checked->clean()) << (checked->problems.empty() ? "" : checked->problems.front());
  EXPECT_GT(checked->segments, 5u);
  ASSERT_WELL(co_await (*volume)->close());
  volume->reset();

  // Another home, from the miners alone, with two of them dead.
  world.network.kill(0);
  world.network.kill(3);
  FakeTransport other(world.reactor, world.network, 1, world.keys.volume_id());
  other.set_miners(world.network.entries());
  volume =
      co_await Volume::recover(world.parts(other, "b"), small_options(), OpenMode::read_write, false, {});
  ASSERT_WELL(volume);
  EXPECT_NE((*volume)->find_dataset("main"), nullptr);
  for (const auto& [id, data] : model) {
    auto back = co_await get_object(**volume, *dataset, id, data.size());
    ASSERT_WELL(back);
    EXPECT_TRUE(*back == data) << id;
  }
  // A third is refused while the second is open, and takes over when told to.
  FakeTransport third(world.reactor, world.network, 2, world.keys.volume_id());
  third.set_miners(world.network.entries());
  auto refused =
      co_await Volume::recover(world.parts(third, "c"), small_options(), OpenMode::read_write, false, {});
  EXPECT_FALSE(refused.has_value());
  if (!refused) {
    EXPECT_NE(refused.error().message().find("tester@b"), std::string::npos) << refused.error().message();
  }
  auto thief = co_await Volume::recover(world.parts(third, "c"), small_options(), OpenMode::steal, false, {});
  ASSERT_WELL(thief);
  Transaction late;
  auto late_id = (*volume)->allocate_object(*dataset);
  ASSERT_WELL(late_id);
  late.create({*dataset, *late_id}, {});
  auto late_commit = co_await (*volume)->commit(std::move(late));
  if (late_commit) {
    const Status late_flush = co_await (*volume)->flush(Durability::remote, {});
    EXPECT_FALSE(late_flush.has_value());
  }
  const Status fenced_close = co_await (*volume)->close();
  static_cast<void>(fenced_close);
  ASSERT_WELL(co_await (*thief)->close());
  co_await transport.close();
  co_await other.close();
  co_await third.close();
}

// What never reached the miners is sent after a second restart too, whatever happened between: the place
// where the log begins to be needed stands still until the tail has passed it. Found by the simulator.
Task<> restart_twice_without_miners(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  transport.set_miners(world.network.entries());
  const VolumeShape shape{4, 2, 20};
  auto volume = co_await Volume::create(world.parts(transport, "a"), shape, small_options());
  ASSERT_WELL(volume);
  const DatasetOptions options;
  auto dataset = co_await (*volume)->create_dataset("main", options);
  ASSERT_WELL(dataset);
  ASSERT_WELL(co_await (*volume)->flush(Durability::remote, {}));
  for (std::size_t miner = 0; miner < 6; ++miner) world.network.kill(miner);
  const Bytes data = pattern(5'000'000, 3);
  auto id = co_await put_object(**volume, *dataset, data);
  ASSERT_WELL(id);
  for (int restart = 0; restart < 2; ++restart) {
    ASSERT_WELL(co_await (*volume)->flush(Durability::local, {}));
    ASSERT_WELL(co_await (*volume)->drop_cache());
    ASSERT_WELL(co_await (*volume)->close());
    volume->reset();
    volume = co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write);
    ASSERT_WELL(volume);
  }
  ASSERT_WELL(co_await (*volume)->drop_cache());
  ASSERT_WELL(co_await (*volume)->close());
  volume->reset();
  for (std::size_t miner = 0; miner < 6; ++miner) world.network.start(miner);
  volume = co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write);
  ASSERT_WELL(volume);
  const TimePoint patience = world.reactor.now() + std::chrono::seconds(20);
  const Progress until = [&](std::uint64_t, std::uint64_t) { return world.reactor.now() < patience; };
  ASSERT_WELL(co_await (*volume)->flush(Durability::remote, until));
  ASSERT_WELL(co_await (*volume)->drop_cache());
  auto back = co_await get_object(**volume, *dataset, *id, data.size());
  ASSERT_WELL(back);
  EXPECT_TRUE(*back == data);
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
}

TEST(Volume, RestartedTwiceWithoutMinersStillSendsEverything) { play(restart_twice_without_miners); }

// A miner that says nothing does not hold up the end: neither when all is stored, nor with slices on their
// way to it, nor a read that needs it.
Task<> close_beside_silent_miners(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  transport.set_miners(world.network.entries());
  const VolumeShape shape{4, 2, 20};
  auto volume = co_await Volume::create(world.parts(transport, "a"), shape, small_options());
  ASSERT_WELL(volume);
  const DatasetOptions options;
  auto dataset = co_await (*volume)->create_dataset("main", options);
  ASSERT_WELL(dataset);
  const Bytes data = pattern(3'000'000, 3);
  auto id = co_await put_object(**volume, *dataset, data);
  ASSERT_WELL(id);
  ASSERT_WELL(co_await (*volume)->flush(Durability::remote, {}));
  for (const std::size_t silent : {1u, 3u}) {
    for (std::size_t miner = 0; miner < silent; ++miner) world.network.set_silent(miner, true);
    if (silent == 3) {
      ASSERT_WELL(co_await put_object(**volume, *dataset, data));  // on its way
      ASSERT_WELL(co_await (*volume)->drop_cache());
    }
    TaskGroup readers(world.reactor);
    bool reading = true;
    readers.spawn([&]() -> Task<void> {
      const auto back = co_await get_object(**volume, *dataset, *id, data.size());
      EXPECT_EQ(back.has_value(), silent == 1) << silent;
      reading = false;
    });
    co_await world.reactor.sleep_for(std::chrono::milliseconds(300));
    EXPECT_EQ(reading, silent == 3);
    const TimePoint begin = world.reactor.now();
    (*volume)->stop_waiting();
    co_await readers.join();
    ASSERT_WELL(co_await (*volume)->close());
    // request_deadline and outage_wait are far longer.
    EXPECT_LT(world.reactor.now() - begin, std::chrono::seconds(10)) << silent;
    volume->reset();
    for (std::size_t miner = 0; miner < silent; ++miner) world.network.set_silent(miner, false);
    volume = co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write);
    ASSERT_WELL(volume);
  }
  ASSERT_WELL(co_await (*volume)->flush(Durability::remote, {}));
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
}

TEST(Volume, ASilentMinerDoesNotHoldUpTheEnd) { play(close_beside_silent_miners); }

// What lies in the local files is read at once, without a task, when it was read a moment ago.
Task<> read_at_once(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  transport.set_miners(world.network.entries());
  const VolumeShape shape{4, 2, 20};
  auto volume = co_await Volume::create(world.parts(transport, "a"), shape, small_options());
  ASSERT_WELL(volume);
  DatasetOptions options;
  options.type = DatasetType::image;
  options.chunk_log2 = 18;
  options.cell_log2 = 12;
  auto dataset = co_await (*volume)->create_dataset("main", options);
  ASSERT_WELL(dataset);
  const Bytes data = pattern(6u << 20, 99);
  auto id = co_await put_object(**volume, *dataset, data);
  ASSERT_WELL(id);
  ASSERT_WELL(co_await (*volume)->flush(Durability::remote, {}));
  // Another life: nothing of the log is in memory, all of it in the local files.
  ASSERT_WELL(co_await (*volume)->close());
  volume->reset();
  volume = co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write);
  ASSERT_WELL(volume);
  const View view = (*volume)->find_dataset("main")->head;
  Bytes block(4096);
  std::size_t at_once = 0;
  std::size_t blocks = 0;
  for (const int round : {1, 2}) {
    at_once = blocks = 0;
    for (std::size_t at = 1000; at + block.size() <= data.size(); at += 97 * 1024 + 13, ++blocks) {
      Result<std::size_t> got = std::size_t{0};
      if ((*volume)->try_read(view, *id, at, block, got))
        ++at_once;
      else
        got = co_await (*volume)->read(view, *id, at, block);
      ASSERT_WELL(got);
      EXPECT_EQ(*got, block.size());
      EXPECT_TRUE(std::ranges::equal(block, ByteView(data).subspan(at, block.size()))) << round << " " << at;
    }
  }
  EXPECT_EQ(at_once, blocks);
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
}

TEST(Volume, WarmBlocksAreReadAtOnce) { play(read_at_once); }

// An object that is removed while it is read: right bytes or "does not exist", never the zeros of a hole.
Task<> read_what_is_removed(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  transport.set_miners(world.network.entries());
  const auto rows = std::make_shared<MapEngineDisk>();
  const auto parts = [&] {
    VolumeParts made = world.parts(transport, "a");
    made.open_engine = [&](std::string, std::function<Status()> barrier,
                           bool) -> Task<Result<std::unique_ptr<Engine>>> {
      co_return std::make_unique<MapEngine>(
          world.reactor, rows, MapEngineOptions{.barrier = std::move(barrier), .late_one_in = 1});
    };
    return made;
  };
  auto volume = co_await Volume::create(parts(), {4, 2, 20}, small_options());
  ASSERT_WELL(volume);
  auto dataset = co_await (*volume)->create_dataset("main", {.chunk_log2 = 18});
  ASSERT_WELL(dataset);
  const Bytes data = pattern(700'000, 5);
  std::vector<ObjectId> ids;
  for (int i = 0; i < 60; ++i) {
    auto id = co_await put_object(**volume, *dataset, data);
    ASSERT_WELL(id);
    ids.push_back(*id);
  }
  // Another life: the rows have to be asked for.
  ASSERT_WELL(co_await (*volume)->close());
  volume = co_await Volume::open(parts(), small_options(), OpenMode::read_write);
  ASSERT_WELL(volume);
  const View head = (*volume)->find_dataset("main")->head;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    Bytes first(4096);
    ASSERT_WELL(co_await (*volume)->read(head, ids[i], 0, first));
    Bytes second(4096);
    Result<std::size_t> got = std::size_t{0};
    TaskGroup reading(world.reactor);
    reading.spawn([&]() -> Task<void> { got = co_await (*volume)->read(head, ids[i], 4096, second); });
    for (std::size_t turns = 0; turns < i; ++turns) co_await world.reactor.yield();
    Transaction removal;
    removal.remove({*dataset, ids[i]});
    ASSERT_WELL(co_await (*volume)->commit(std::move(removal)));
    co_await reading.join();
    if (got) {
      EXPECT_EQ(*got, second.size());
      EXPECT_TRUE(std::ranges::equal(second, ByteView(data).subspan(4096, 4096))) << i;
    } else {
      EXPECT_EQ(got.error().kind(), ErrorKind::not_found);
    }
    got = co_await (*volume)->read(head, ids[i], 4096, second);
    EXPECT_TRUE(!got && got.error().kind() == ErrorKind::not_found);
  }
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
}

TEST(Volume, WhatIsRemovedWhileItIsReadIsNoHole) { play(read_what_is_removed); }

// Two that race for the same thing: one is done, the other is told, and the volume goes on.
Task<> race_for_snapshots(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  transport.set_miners(world.network.entries());
  const VolumeShape shape{4, 2, 20};
  auto volume = co_await Volume::create(world.parts(transport, "a"), shape, small_options());
  ASSERT_WELL(volume);
  const DatasetOptions options;
  auto dataset = co_await (*volume)->create_dataset("main", options);
  ASSERT_WELL(dataset);
  std::vector<Volume::SnapshotTarget> twice = {{*dataset, "s"}, {*dataset, "s"}};
  const Status doubled = co_await (*volume)->create_snapshots(twice);
  EXPECT_FALSE(doubled.has_value());
  std::vector<Volume::SnapshotTarget> once = {{*dataset, "s"}};
  ASSERT_WELL(co_await (*volume)->create_snapshots(once));
  int done = 0;
  TaskGroup racing(world.reactor);
  const auto remove = [&]() -> Task<void> {
    const Status removed = co_await (*volume)->remove_snapshot(*dataset, "s");
    done += removed.has_value() ? 1 : 0;
    if (!removed) {
      EXPECT_EQ(removed.error().kind(), ErrorKind::not_found);
    }
  };
  racing.spawn(remove);
  racing.spawn(remove);
  co_await racing.join();
  EXPECT_EQ(done, 1);
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
}

TEST(Volume, RacingRemovalsAreDecidedOneByOne) { play(race_for_snapshots); }

// Each assert lets its transaction through when it holds; when it does not, nothing of the transaction is
// done, and the kind of the error tells what was found.
Task<> assert_what_holds(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  transport.set_miners(world.network.entries());
  const VolumeShape shape{4, 2, 20};
  auto volume = co_await Volume::create(world.parts(transport, "a"), shape, small_options());
  ASSERT_WELL(volume);
  const DatasetOptions options;
  auto dataset = co_await (*volume)->create_dataset("main", options);
  ASSERT_WELL(dataset);
  const Bytes data = pattern(10'000, 5);
  auto id = co_await put_object(**volume, *dataset, data);
  ASSERT_WELL(id);
  auto other = (*volume)->allocate_object(*dataset);
  ASSERT_WELL(other);
  const ObjectRef there{*dataset, *id};
  const ObjectRef nowhere{*dataset, *other};
  const Bytes one{1};
  const Bytes two{2};
  Transaction rows;
  rows.set_omap(there, one, two);
  rows.set_xattr(there, one, two);
  ASSERT_WELL(co_await (*volume)->commit(std::move(rows)));

  struct Case {
    std::function<void(Transaction&)> assert_it;
    std::optional<ErrorKind> found;  // nullopt: it holds
  };
  const Bytes middle(data.begin() + 4000, data.begin() + 9000);
  Bytes wrong = middle;
  wrong.back() ^= 1;
  using T = Transaction;
  const std::vector<Case> cases = {
      {[&](T& t) { t.assert_exists(there); }, std::nullopt},
      {[&](T& t) { t.assert_exists(nowhere); }, ErrorKind::not_found},
      {[&](T& t) { t.assert_absent(nowhere); }, std::nullopt},
      {[&](T& t) { t.assert_absent(there); }, ErrorKind::exists},
      {[&](T& t) { t.assert_omap(there, one, two); }, std::nullopt},
      {[&](T& t) { t.assert_omap(there, one, one); }, ErrorKind::exists},
      {[&](T& t) { t.assert_omap(there, one, std::nullopt); }, ErrorKind::exists},
      {[&](T& t) { t.assert_omap(there, two, std::nullopt); }, std::nullopt},
      {[&](T& t) { t.assert_omap(there, two, one); }, ErrorKind::not_found},
      {[&](T& t) { t.assert_xattr(there, one, two); }, std::nullopt},
      {[&](T& t) { t.assert_xattr(there, one, one); }, ErrorKind::exists},
      {[&](T& t) { t.assert_xattr(there, two, one); }, ErrorKind::not_found},
      {[&](T& t) { t.assert_size(there, data.size()); }, std::nullopt},
      {[&](T& t) { t.assert_size(there, data.size() + 1); }, ErrorKind::not_found},
      {[&](T& t) { t.compare(there, 4000, middle); }, std::nullopt},
      {[&](T& t) { t.compare(there, 4000, wrong); }, ErrorKind::exists},
      {[&](T& t) { t.compare(there, 9000, middle); }, ErrorKind::exists},
  };
  const View& head = (*volume)->find_dataset(*dataset)->head;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const Bytes key{9, static_cast<std::uint8_t>(i)};
    Transaction transaction;
    transaction.set_omap(there, key, one);  // before what it depends on, so that order does not decide
    cases[i].assert_it(transaction);
    const auto done = co_await (*volume)->commit(std::move(transaction));
    EXPECT_EQ(done.has_value(), !cases[i].found.has_value()) << "case " << i;
    if (!done && cases[i].found) {
      EXPECT_EQ(done.error().kind(), *cases[i].found) << "case " << i;
    }
    const auto left = co_await (*volume)->omap(head, *id, key);
    ASSERT_WELL(left);
    EXPECT_EQ(left->has_value(), !cases[i].found.has_value()) << "case " << i;
  }
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
}

TEST(Volume, AssertsDecideAWholeTransaction) { play(assert_what_holds); }

TEST(Volume, WriteSyncDropRecoverSteal) { play(write_sync_drop_read); }

}  // namespace
}  // namespace cumulus
