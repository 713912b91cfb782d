// Whoever syncs after each small write is expected to: the next write is on its way to the disk when it asks.
#include "tests/unit/fs_world.h"

namespace cumulus {
namespace {

using namespace std::chrono_literals;

Task<bool> write_one(PosixFileSystem& fs, HandleId file, std::uint64_t offset) {
  const auto data = std::make_shared<Bytes>(4096, std::uint8_t{7});
  const auto written = co_await fs.write(Caller{}, file, offset, *data, data, false);
  co_return written.has_value();
}

Task<LogPosition> durable(Volume& volume) {
  const auto status = co_await volume.status(false);
  co_return status ? status->durable : 0;
}

TEST(FsSync, AnExpectedSyncHasBegunWhenItIsAskedFor) {
  with_file_system([](StoreWorld& world, Volume& volume, DatasetId dataset) -> Task<void> {
    const FileSystemOptions mounted;
    auto fs = co_await PosixFileSystem::open(world.reactor, volume, dataset, "", mounted);
    CO_ASSERT(fs);
    OpenFlags flags;
    flags.read = flags.write = true;
    const auto made = co_await (*fs)->create(Caller{}, kRootNode, "journal", 0100644, flags);
    CO_ASSERT(made);
    for (std::uint64_t i = 0; i < 3; ++i) {
      CO_ASSERT(co_await write_one(**fs, made->handle, i * 4096));
      CO_ASSERT(co_await (*fs)->fsync(made->entry.node, made->handle));
    }
    const LogPosition before = co_await durable(volume);
    CO_ASSERT(co_await write_one(**fs, made->handle, 3 * 4096));
    // Nobody asks. Without the expectation the log syncs by itself a second after the group's tenth.
    const TimePoint patience = world.reactor.now() + 700ms;
    while (co_await durable(volume) == before && world.reactor.now() < patience)
      co_await world.reactor.sleep_for(5ms);
    EXPECT_GT(co_await durable(volume), before);
    CO_ASSERT(co_await (*fs)->fsync(made->entry.node, made->handle));
    CO_ASSERT(co_await (*fs)->release(made->handle));
    CO_ASSERT(co_await (*fs)->close());
  });
}

}  // namespace
}  // namespace cumulus
