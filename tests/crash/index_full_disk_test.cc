// The index on a disk that is full for a while: changes and flushes are refused meanwhile, by one and by the
// other at once, as the volume asks for them; with room again both go on, and every row is there. RocksDB
// itself waits for ever when something else fails while it resumes (rocksdb_files.h).
#include <atomic>
#include <filesystem>
#include <gtest/gtest.h>
#include <rocksdb/file_system.h>
#include <unistd.h>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/index/rocksdb_engine.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/sync.h"
#include "objectstore/key_space.h"

namespace cumulus {
namespace {

class FullDisk final : public rocksdb::FileSystemWrapper {
 public:
  FullDisk() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "FullDisk"; }

  std::atomic<bool> full{false};

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    rocksdb::IOStatus status = FileSystemWrapper::NewWritableFile(path, options, file, debug);
    if (status.ok()) *file = std::make_unique<Refusing>(std::move(*file), *this);
    return status;
  }

 private:
  class Refusing final : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    Refusing(std::unique_ptr<rocksdb::FSWritableFile> file, FullDisk& disk)
        : FSWritableFileOwnerWrapper(std::move(file)), disk_(disk) {}
    rocksdb::IOStatus PositionedAppend(const rocksdb::Slice& data, std::uint64_t offset,
                                       const rocksdb::IOOptions& options,
                                       rocksdb::IODebugContext* debug) override {
      if (!disk_.full) return FSWritableFileOwnerWrapper::PositionedAppend(data, offset, options, debug);
      // As a real one: what still fits is written.
      const rocksdb::Slice part(data.data(), data.size() / 2);
      const rocksdb::IOStatus status =
          FSWritableFileOwnerWrapper::PositionedAppend(part, offset, options, debug);
      return status.ok() ? rocksdb::IOStatus::NoSpace("the disk is full") : status;
    }

   private:
    FullDisk& disk_;
  };
};

constexpr int kRowsOfAGroup = 8;

TEST(IndexOnAFullDisk, GoesOnWhenThereIsRoom) {
  const std::string directory =
      (std::filesystem::temp_directory_path() / format("cumulus-index-full-{}", ::getpid())).string();
  std::filesystem::remove_all(directory);
  Reactor reactor(4);
  const auto body = [&]() -> Task<void> {
    auto disk = std::make_shared<FullDisk>();
    RocksDbOptions options;
    options.write_buffer_bytes = 64u << 10;
    options.disk = disk;
    const std::array<std::uint8_t, 32> bytes{5};
    SecretKey key(bytes);
    const std::function<Status()> barrier = [] { return Status(); };
    auto opened = co_await open_rocksdb_engine(reactor, directory, std::move(key), barrier, true, options);
    CHECK(opened.has_value());
    Engine& engine = **opened;
    bool over = false;
    int refused_flushes = 0;
    int refused_changes = 0;
    TaskGroup users(reactor);
    users.spawn([&]() -> Task<void> {
      while (!over) {
        const Status flushed = co_await engine.flush();
        refused_flushes += flushed ? 0 : 1;
        co_await reactor.sleep_for(std::chrono::milliseconds(20));
      }
    });
    users.spawn([&]() -> Task<void> {
      while (!over) {
        const LogPosition group = engine.applied() + 1;
        std::vector<RowUpdate> updates;
        for (std::uint32_t i = 0; i < kRowsOfAGroup; ++i)
          updates.push_back(
              {RowUpdate::Kind::put, with_version(chunk_prefix(1, group, i), 1), Bytes(512, 7)});
        const Status applied = co_await engine.apply(std::move(updates), group);
        if (!applied) {
          EXPECT_EQ(applied.error().kind(), ErrorKind::no_space) << applied.error().message();
          ++refused_changes;
        }
        co_await reactor.sleep_for(std::chrono::milliseconds(applied ? 1 : 30));
      }
    });
    for (int round = 0; round < 3; ++round) {
      co_await reactor.sleep_for(std::chrono::milliseconds(100));
      disk->full = true;
      co_await reactor.sleep_for(std::chrono::milliseconds(1300));
      disk->full = false;
      const LogPosition before = engine.applied();
      while (engine.durable() <= before) co_await reactor.sleep_for(std::chrono::milliseconds(5));
    }
    over = true;
    co_await users.join();
    EXPECT_GT(refused_flushes, 0);
    EXPECT_GT(refused_changes, 0);
    const LogPosition last = engine.applied();
    EXPECT_TRUE(co_await engine.flush());
    EXPECT_EQ(engine.durable(), last);
    const auto rows = co_await engine.scan(dataset_prefix(1), dataset_prefix(2), 1u << 20);
    CHECK(rows.has_value());
    EXPECT_EQ(rows->size(), last * kRowsOfAGroup);
    EXPECT_TRUE(co_await engine.close());
    // What was written in parts is whole on the disk.
    SecretKey again(bytes);
    auto reopened =
        co_await open_rocksdb_engine(reactor, directory, std::move(again), barrier, false, options);
    CHECK(reopened.has_value());
    const auto kept = co_await (*reopened)->scan(dataset_prefix(1), dataset_prefix(2), 1u << 20);
    CHECK(kept.has_value());
    EXPECT_EQ(kept->size(), last * kRowsOfAGroup);
    EXPECT_TRUE(co_await (*reopened)->close());
  };
  reactor.run(body());
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace cumulus
