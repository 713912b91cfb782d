// Whose miners a volume has, and what it does when some are lost for good: homes with an old list, and
// recoveries that accept a loss.
#include <map>

#include "tests/unit/volume_world.h"

namespace cumulus {
namespace {

struct Stored {
  DatasetId dataset = 0;
  std::map<ObjectId, Bytes> objects;
};

Task<Status> store(Volume& volume, Stored& stored, std::size_t size) {
  Bytes data = pattern(size, 17 + stored.objects.size());
  CO_TRY(const ObjectId id, co_await put_object(volume, stored.dataset, data));
  stored.objects.emplace(id, std::move(data));
  co_return co_await volume.flush(Durability::remote, {});
}

Task<> expect_all(Volume& volume, const Stored& stored) {
  for (const auto& [id, data] : stored.objects) {
    const auto back = co_await get_object(volume, stored.dataset, id, data.size());
    ASSERT_WELL(back);
    EXPECT_TRUE(*back == data) << id;
  }
}

// A volume of home `a` on these miners, with one object.
Task<Result<std::unique_ptr<Volume>>> make(World& world, FakeTransport& transport, std::vector<MinerEntry> on,
                                           Stored& stored) {
  transport.set_miners(std::move(on));
  CO_TRY(auto volume, co_await Volume::create(world.parts(transport, "a"), {4, 2, 20}, small_options()));
  CO_TRY(stored.dataset, co_await volume->create_dataset("main", {}));
  CO_TRY_OK(co_await store(*volume, stored, 300'000));
  co_return volume;
}

std::vector<MinerEntry> first_four(World& world) {
  std::vector<MinerEntry> miners = world.network.entries();
  miners.resize(4);
  return miners;
}

// A volume that home `a` made on four miners and closed; home `b` took it over, added the other two, and
// stored more.
Task<Status> grow_elsewhere(World& world, FakeTransport& transport, FakeTransport& far, Stored& stored) {
  CO_TRY(const auto volume, co_await make(world, transport, first_four(world), stored));
  CO_TRY_OK(co_await volume->close());
  far.set_miners(first_four(world));
  CO_TRY(const auto other,
         co_await Volume::recover(world.parts(far, "b"), small_options(), OpenMode::read_write, false, {}));
  CO_TRY_OK(co_await other->set_miners(world.network.entries()));
  CO_TRY_OK(co_await store(*other, stored, 2'000'000));
  co_return co_await other->close();
}

// A home whose list is of before another home's change: the newest record's is what counts.
Task<> open_with_an_old_list(World& world) {
  Stored stored;
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  FakeTransport far(world.reactor, world.network, 1, world.keys.volume_id());
  FakeTransport third(world.reactor, world.network, 2, world.keys.volume_id());
  ASSERT_WELL(co_await grow_elsewhere(world, transport, far, stored));

  EXPECT_EQ(transport.miners().size(), 4u);
  auto volume = co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write);
  ASSERT_WELL(volume);
  EXPECT_EQ((*volume)->miners().size(), 6u);
  co_await expect_all(**volume, stored);
  ASSERT_WELL(co_await (*volume)->close());

  third.set_miners(first_four(world));
  world.network.kill(4);
  world.network.kill(1);
  volume =
      co_await Volume::recover(world.parts(third, "c"), small_options(), OpenMode::read_write, false, {});
  ASSERT_WELL(volume);
  EXPECT_EQ((*volume)->miners().size(), 6u);
  co_await expect_all(**volume, stored);
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
  co_await far.close();
  co_await third.close();
}
TEST(VolumeMembers, TheNewestRecordsListCounts) { play(open_with_an_old_list); }

// A miner that answered where this home looks for it is there, whatever the record of another home says.
Task<> keep_addresses_that_answer(World& world) {
  Stored stored;
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  FakeTransport far(world.reactor, world.network, 1, world.keys.volume_id());
  ASSERT_WELL(co_await grow_elsewhere(world, transport, far, stored));
  std::vector<MinerEntry> moved = first_four(world);
  for (MinerEntry& miner : moved) miner.address = "moved to " + miner.address;
  transport.set_miners(moved);
  world.network.kill(3);
  auto volume = co_await Volume::open(world.parts(transport, "a"), small_options(), OpenMode::read_write);
  ASSERT_WELL(volume);
  std::size_t kept = 0;
  for (const MinerEntry& miner : (*volume)->miners())
    if (miner.address.starts_with("moved to ")) ++kept;
  EXPECT_GE(kept, 2u);
  EXPECT_EQ((*volume)->miners()[3].address, world.network.entries()[3].address);
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
  co_await far.close();
}
TEST(VolumeMembers, AnAddressThatAnsweredIsKept) { play(keep_addresses_that_answer); }

Task<> destroy_with_an_old_list(World& world) {
  Stored stored;
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  FakeTransport far(world.reactor, world.network, 1, world.keys.volume_id());
  ASSERT_WELL(co_await grow_elsewhere(world, transport, far, stored));
  const auto left = co_await Volume::destroy(world.parts(transport, "a"), small_options(), {});
  ASSERT_WELL(left);
  EXPECT_TRUE(left->empty());
  for (std::size_t at = 0; at < world.network.size(); ++at)
    EXPECT_EQ(world.network.miner(at).slice_count(world.keys.volume_id()), 0u) << at;
  co_await transport.close();
  co_await far.close();
}
TEST(VolumeMembers, DestroyingFindsMinersThatAnotherHomeAdded) { play(destroy_with_an_old_list); }

// Lists its first page again and again, under cursors that change.
class EndlessLister final : public FakeTransport {
 public:
  using FakeTransport::FakeTransport;
  Task<Result<SliceListPage>> list(MinerId miner, std::optional<Bytes> from, TimePoint deadline) override {
    if (miner != miners().front().id) co_return co_await FakeTransport::list(miner, from, deadline);
    CO_TRY(SliceListPage page, co_await FakeTransport::list(miner, std::nullopt, deadline));
    page.next = Bytes(1, ++pages_ % 2 == 0 ? 'a' : 'b');
    co_return page;
  }
  unsigned pages() const { return pages_; }

 private:
  unsigned pages_ = 0;
};

Task<> recover_beside_an_endless_listing(World& world) {
  Stored stored;
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  EndlessLister far(world.reactor, world.network, 1, world.keys.volume_id());
  auto volume = co_await make(world, transport, world.network.entries(), stored);
  ASSERT_WELL(volume);
  ASSERT_WELL(co_await store(**volume, stored, 2'500'000));
  ASSERT_WELL(co_await (*volume)->close());
  far.set_miners(world.network.entries());
  world.network.kill(5);
  volume = co_await Volume::recover(world.parts(far, "b"), small_options(), OpenMode::read_write, false, {});
  ASSERT_WELL(volume);
  EXPECT_EQ(far.pages(), 2u);
  co_await expect_all(**volume, stored);
  ASSERT_WELL(co_await (*volume)->close());

  const auto left = co_await Volume::destroy(world.parts(far, "b"), small_options(), {});
  ASSERT_WELL(left);
  EXPECT_EQ(left->size(), 1u);  // the dead one
  co_await transport.close();
  co_await far.close();
}
TEST(VolumeMembers, AMinerThatListsForEverIsLeftOut) { play(recover_beside_an_endless_listing); }

// The last segments are lost for good; the owner says so, and goes on from what is left.
Task<> accept_a_loss(World& world) {
  Stored stored;
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  FakeTransport other(world.reactor, world.network, 1, world.keys.volume_id());
  FakeTransport third(world.reactor, world.network, 2, world.keys.volume_id());
  auto volume = co_await make(world, transport, world.network.entries(), stored);
  ASSERT_WELL(volume);
  Stored lost;
  lost.dataset = stored.dataset;
  world.network.kill(0);
  world.network.kill(1);
  for (int i = 0; i < 3; ++i) ASSERT_WELL(co_await store(**volume, lost, 2'500'000));
  ASSERT_WELL(co_await (*volume)->close());
  // All of the six slices of the later segments are on these four: the loss of two of them is too much.
  world.network.start(0);
  world.network.start(1);
  world.network.kill(4);
  world.network.kill(5);
  other.set_miners(world.network.entries());
  const auto refused =
      co_await Volume::recover(world.parts(other, "b"), small_options(), OpenMode::read_write, false, {});
  EXPECT_FALSE(refused);
  if (!refused) {
    EXPECT_NE(refused.error().message().find("--accept-loss"), std::string::npos)
        << refused.error().message();
  }
  volume = co_await Volume::recover(world.parts(other, "b"), small_options(), OpenMode::read_write, true, {});
  ASSERT_WELL(volume);
  co_await expect_all(**volume, stored);
  for (int i = 0; i < 3; ++i) ASSERT_WELL(co_await store(**volume, stored, 700'000));
  const auto status = co_await (*volume)->status(false);
  ASSERT_WELL(status);
  EXPECT_EQ(status->dirty, 0u);
  ASSERT_WELL(co_await (*volume)->close());

  // This home goes on, and so does any other, also when what was given up can be read again.
  volume = co_await Volume::open(world.parts(other, "b"), small_options(), OpenMode::read_write);
  ASSERT_WELL(volume);
  co_await expect_all(**volume, stored);
  ASSERT_WELL(co_await store(**volume, stored, 4'000'000));
  ASSERT_WELL(co_await (*volume)->close());
  world.network.start(4);
  world.network.start(5);
  for (const bool accept_loss : {false, true}) {
    third.set_miners(world.network.entries());
    volume = co_await Volume::recover(world.parts(third, accept_loss ? "d" : "c"), small_options(),
                                      OpenMode::read_write, accept_loss, {});
    ASSERT_WELL(volume);
    co_await expect_all(**volume, stored);
    for (const auto& [id, data] : lost.objects) {
      if (stored.objects.contains(id)) continue;  // the number was given again
      const auto gone = co_await (*volume)->stat((*volume)->find_dataset(stored.dataset)->head, id);
      ASSERT_WELL(gone);
      EXPECT_FALSE(gone->has_value()) << id;
    }
    const auto checked = co_await (*volume)->check(true, {});
    ASSERT_WELL(checked);
    EXPECT_TRUE(checked->clean()) << (checked->problems.empty() ? "" : checked->problems.front());
    ASSERT_WELL(co_await (*volume)->close());
  }
  co_await transport.close();
  co_await other.close();
  co_await third.close();
}
TEST(VolumeMembers, WhatIsBuiltOnAnAcceptedLossIsSafe) { play(accept_a_loss); }

// What is lost can be seen only when it is read: slices that rotted, of which their miners know nothing. The
// groups that lie before the first wrong byte are given up with the rest.
Task<> accept_a_loss_of_wrong_bytes(World& world) {
  Stored stored;
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  FakeTransport other(world.reactor, world.network, 1, world.keys.volume_id());
  auto volume = co_await make(world, transport, world.network.entries(), stored);
  ASSERT_WELL(volume);
  world.network.kill(0);
  world.network.kill(1);
  const auto slices_of = [&](std::size_t at) {
    return world.network.miner(at).slice_count(world.keys.volume_id());
  };
  for (int i = 0; i < 30; ++i) {
    ASSERT_WELL(co_await put_object(**volume, stored.dataset, pattern(30'000, i)));
    ASSERT_WELL(co_await (*volume)->flush(Durability::local, {}));
  }
  ASSERT_WELL(co_await (*volume)->flush(Durability::remote, {}));
  ASSERT_WELL(co_await (*volume)->close());
  world.network.start(0);
  world.network.start(1);
  // Two slices of what came last are on each of two miners.
  std::vector<std::size_t> miners{2, 3, 4, 5};
  std::ranges::sort(miners, std::greater<>(), slices_of);
  for (const std::size_t at : {miners[0], miners[1]}) EXPECT_GE(world.network.miner(at).rot(100), 3u);

  other.set_miners(world.network.entries());
  const auto refused =
      co_await Volume::recover(world.parts(other, "b"), small_options(), OpenMode::read_write, false, {});
  EXPECT_FALSE(refused);
  volume = co_await Volume::recover(world.parts(other, "b"), small_options(), OpenMode::read_write, true, {});
  ASSERT_WELL(volume);
  co_await expect_all(**volume, stored);
  ASSERT_WELL(co_await store(**volume, stored, 700'000));
  ASSERT_WELL(co_await (*volume)->close());
  volume = co_await Volume::open(world.parts(other, "b"), small_options(), OpenMode::read_write);
  ASSERT_WELL(volume);
  co_await expect_all(**volume, stored);
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
  co_await other.close();
}
TEST(VolumeMembers, WrongBytesOfALossReachNoIndex) { play(accept_a_loss_of_wrong_bytes); }

// Where histories part, the later home's counts, though more can be read of the other one.
Task<> accept_another_loss(World& world) {
  Stored stored;
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  FakeTransport other(world.reactor, world.network, 1, world.keys.volume_id());
  FakeTransport third(world.reactor, world.network, 2, world.keys.volume_id());
  const auto only_without = [&](std::size_t one, std::size_t two) {
    for (std::size_t at = 0; at < world.network.size(); ++at) {
      if (at == one || at == two)
        world.network.kill(at);
      else
        world.network.start(at);
    }
  };
  auto volume = co_await make(world, transport, world.network.entries(), stored);
  ASSERT_WELL(volume);
  Stored given_up;
  given_up.dataset = stored.dataset;
  only_without(4, 5);
  for (int i = 0; i < 4; ++i) ASSERT_WELL(co_await store(**volume, given_up, 2'500'000));
  ASSERT_WELL(co_await (*volume)->close());
  only_without(0, 1);
  other.set_miners(world.network.entries());
  volume = co_await Volume::recover(world.parts(other, "b"), small_options(), OpenMode::read_write, true, {});
  ASSERT_WELL(volume);
  ASSERT_WELL(co_await (*volume)->close());
  only_without(6, 6);
  volume = co_await Volume::open(world.parts(other, "b"), small_options(), OpenMode::read_write);
  ASSERT_WELL(volume);
  ASSERT_WELL(co_await store(**volume, stored, 700'000));
  only_without(0, 1);
  Stored late;
  late.dataset = stored.dataset;
  for (int i = 0; i < 3; ++i) ASSERT_WELL(co_await store(**volume, late, 2'500'000));
  ASSERT_WELL(co_await (*volume)->close());
  only_without(4, 5);
  third.set_miners(world.network.entries());
  const auto refused =
      co_await Volume::recover(world.parts(third, "c"), small_options(), OpenMode::read_write, false, {});
  EXPECT_FALSE(refused);
  volume = co_await Volume::recover(world.parts(third, "c"), small_options(), OpenMode::read_write, true, {});
  ASSERT_WELL(volume);
  co_await expect_all(**volume, stored);
  ASSERT_WELL(co_await (*volume)->close());
  co_await transport.close();
  co_await other.close();
  co_await third.close();
}
TEST(VolumeMembers, AnotherLossDoesNotBringAnOldHistoryBack) { play(accept_another_loss); }

}  // namespace
}  // namespace cumulus
