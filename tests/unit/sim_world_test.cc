// The simulated machine: virtual time in order, a killed process leaves what it wrote, a power cut what it
// synced.
#include <algorithm>
#include <gtest/gtest.h>

#include "objectstore/io/sync.h"
#include "tests/fakes/sim_disk.h"
#include "tests/fakes/sim_runtime.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kSteps = 100'000;

Task<> note_after(SimProcess& process, Duration wait, int number, std::vector<int>& order) {
  co_await process.sleep_for(wait);
  const int same = co_await process.offload([number] { return number; });
  order.push_back(same);
}

TEST(SimWorld, TimeIsVirtualAndInOrder) {
  SimWorld world(1);
  SimProcess& process = world.start_process("a");
  std::vector<int> order;
  process.spawn(note_after(process, std::chrono::hours(3), 3, order));
  process.spawn(note_after(process, std::chrono::seconds(1), 1, order));
  process.spawn(note_after(process, std::chrono::hours(2), 2, order));
  EXPECT_TRUE(world.run_until([&] { return order.size() == 3; }, kSteps));
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_GE(world.now().time_since_epoch(), std::chrono::hours(3));
  EXPECT_FALSE(world.run_until([] { return false; }, kSteps)) << "nothing is left to happen";
}

Task<> write_and_sync(FileSystem& files, bool& synced) {
  auto file = files.open("/d/f", {.write = true, .create = true});
  EXPECT_TRUE(file.has_value());
  const Bytes first(4096, 1);
  const Bytes second(4096, 2);
  EXPECT_TRUE((co_await (*file)->write_at(0, first)).has_value());
  EXPECT_TRUE((co_await (*file)->datasync()).has_value());
  EXPECT_TRUE((co_await files.sync_directory("/d")).has_value());
  EXPECT_TRUE((co_await (*file)->write_at(4096, second)).has_value());
  synced = true;
  auto unsynced = files.open("/d/g", {.write = true, .create = true});
  EXPECT_TRUE((co_await (*unsynced)->write_at(0, second)).has_value());
}

// Frames that wait on signals and semaphores are left behind without a sound.
Task<> wait_forever(SimProcess& process) {
  Signal never(process);
  Semaphore one(process, 1);
  TaskGroup group(process);
  const Semaphore::Hold held = co_await one.acquire();
  const auto body = [&]() -> Task<void> { const Semaphore::Hold second = co_await one.acquire(); };
  group.spawn(body);
  co_await never.wait_until(process.now() + std::chrono::hours(1));
  co_await group.join();
}

TEST(SimWorld, KillAndPowerCut) {
  bool torn = false;
  bool name_lost = false;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    SimWorld world(seed);
    SimDisk disk(seed);
    SimProcess& process = world.start_process("a");
    auto* files = new SimFileSystem(process, disk);  // dies with its process: see below
    static std::vector<SimFileSystem*> kept;
    kept.push_back(files);
    bool synced = false;
    process.spawn(write_and_sync(*files, synced));
    process.spawn(wait_forever(process));
    ASSERT_TRUE(world.run_until([&] { return synced; }, kSteps));
    const std::uint64_t more = world.random().below(8);
    for (std::uint64_t i = 0; i < more; ++i) world.step();
    world.kill(process);
    disk.process_died();
    const ByteView after_kill = disk.files().at("/d/f");
    ASSERT_EQ(after_kill.size(), 8192u);
    EXPECT_EQ(after_kill[8191], 2);
    disk.power_cut();
    const auto left = disk.files();
    ASSERT_TRUE(left.contains("/d/f"));
    const ByteView bytes = left.at("/d/f");
    ASSERT_GE(bytes.size(), 4096u);
    EXPECT_TRUE(std::ranges::all_of(bytes.first(4096), [](std::uint8_t byte) { return byte == 1; }));
    torn = torn || (std::ranges::count(bytes, 2) != 0 && std::ranges::count(bytes, 0) != 0);
    name_lost = name_lost || !left.contains("/d/g");
  }
  EXPECT_TRUE(torn) << "a cut tears what was not synced";
  EXPECT_TRUE(name_lost) << "a cut loses names that were not synced";
}

TEST(SimWorld, ASeedReplays) {
  const auto trace = [](std::uint64_t seed) {
    SimWorld world(seed);
    SimProcess& process = world.start_process("a");
    std::vector<int> order;
    for (int i = 0; i < 20; ++i) process.spawn(note_after(process, Duration{}, i, order));
    EXPECT_TRUE(world.run_until([&] { return order.size() == 20; }, kSteps));
    return order;
  };
  EXPECT_EQ(trace(7), trace(7));
  EXPECT_NE(trace(7), trace(8)) << "workers finish in another order";
}

}  // namespace
}  // namespace cumulus
