// What was accepted and is lost afterwards, because the disk failed, is told to each handle that wrote, once.
#include "tests/fakes/volatile_disk.h"
#include "tests/unit/fs_world.h"

namespace cumulus {
namespace {

const Caller kCaller;

Task<HandleId> make(PosixFileSystem& fs, const char* called) {
  OpenFlags flags;
  flags.read = flags.write = true;
  std::string name = called;
  const auto made = co_await fs.create(kCaller, kRootNode, std::move(name), 0644, flags);
  EXPECT_TRUE(made);
  co_return made ? made->handle : 0;
}

Task<bool> put(PosixFileSystem& fs, HandleId handle) {
  const auto data = std::make_shared<Bytes>(100, 7);
  const auto written = co_await fs.write(kCaller, handle, 0, *data, data, false);
  co_return written.has_value();
}

// The kind of what flush() says; nullopt: nothing.
Task<std::optional<FsErrorKind>> closing(PosixFileSystem& fs, HandleId handle) {
  const FsStatus flushed = co_await fs.flush(handle);
  if (flushed) co_return std::nullopt;
  co_return flushed.error().kind;
}

// `ends`: makes what was accepted last, and is not written yet, fail.
void lose_what_was_written(std::function<void(StoreWorld&, VolatileDisk&)> ends, bool fails) {
  VolatileDisk* disk = nullptr;
  with_file_system(
      [&](StoreWorld& world, Volume& volume, DatasetId dataset) -> Task<void> {
        const FileSystemOptions options;
        std::string head;
        auto opened =
            co_await PosixFileSystem::open(world.reactor, volume, dataset, std::move(head), options);
        CO_ASSERT(opened);
        PosixFileSystem& fs = **opened;
        const HandleId first = co_await make(fs, "first");
        const HandleId second = co_await make(fs, "second");
        const HandleId third = co_await make(fs, "third");
        const HandleId silent = co_await make(fs, "silent");
        EXPECT_TRUE(co_await put(fs, first));
        const FsStatus synced = co_await fs.fsync(kRootNode, 0);
        CO_ASSERT(synced);
        EXPECT_EQ(co_await closing(fs, first), std::nullopt);
        EXPECT_FALSE(volume.loss());

        ends(world, *disk);
        for (const HandleId handle : {first, second, third}) EXPECT_TRUE(co_await put(fs, handle));
        for (int wait = 0; !volume.loss() && wait < 500; ++wait)
          co_await world.reactor.sleep_for(std::chrono::milliseconds(10));
        CO_ASSERT(volume.loss());

        // Close: told once. Those who wrote nothing lost nothing.
        EXPECT_EQ(co_await closing(fs, first), FsErrorKind::io);
        EXPECT_EQ(co_await closing(fs, first), std::nullopt);
        EXPECT_EQ(co_await closing(fs, silent), std::nullopt);
        // The next write says it, and so does fsync, every time.
        EXPECT_FALSE(co_await put(fs, second));
        EXPECT_EQ(co_await closing(fs, second), std::nullopt);
        for (int time = 0; time < 2; ++time) {
          const FsStatus told = co_await fs.fsync(kRootNode, third);
          EXPECT_FALSE(told);
        }
        EXPECT_EQ(co_await closing(fs, third), std::nullopt);
        const FsStatus closed = co_await fs.close();
        EXPECT_TRUE(closed);
        opened->reset();
      },
      [&](StoreWorld& world) {
        auto made = std::make_unique<VolatileDisk>(world.reactor, 7);
        disk = made.get();
        world.disk = std::move(made);
      },
      fails);
}

TEST(FsErrors, of_a_disk_that_takes_no_writes) {
  lose_what_was_written([](StoreWorld&, VolatileDisk& disk) { disk.set_failures(1000, 0); }, true);
}

TEST(FsErrors, of_a_disk_that_does_not_sync) {
  lose_what_was_written([](StoreWorld&, VolatileDisk& disk) { disk.set_failures(0, 1000); }, true);
}

}  // namespace
}  // namespace cumulus
