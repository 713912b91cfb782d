// What every Engine must keep: order, merging, atomic batches with their position, and what survives
// reopening.
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <random>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <unistd.h>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/index/rocksdb_engine.h"
#include "objectstore/index/rows.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/sync.h"
#include "objectstore/key_space.h"
#include "tests/fakes/map_engine.h"

namespace cumulus {
namespace {

// Opens the engine that the suite runs over; the same place each time.
class Place {
 public:
  Place(Runtime& runtime, bool real)
      : runtime_(runtime), real_(real), map_disk_(std::make_shared<MapEngineDisk>()) {
    directory_ = std::filesystem::temp_directory_path() / format("cumulus-engine-{}-{}", ::getpid(), real);
  }
  ~Place() {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }
  Task<Result<std::unique_ptr<Engine>>> open(bool fresh, std::uint8_t key_byte = 9) {
    if (!real_) {
      if (fresh) *map_disk_ = {};
      MapEngineOptions options;
      options.barrier = barrier;
      options.spontaneous_one_in = 0;
      co_return std::make_unique<MapEngine>(runtime_, map_disk_, options);
    }
    const std::array<std::uint8_t, 32> bytes{key_byte};
    SecretKey key(bytes);
    RocksDbOptions options;
    options.write_buffer_bytes = write_buffer;
    options.block_cache_bytes = block_cache;
    options.disk = disk;
    co_return co_await open_rocksdb_engine(runtime_, directory_.string(), std::move(key), barrier, fresh,
                                           options);
  }
  const std::filesystem::path& directory() const { return directory_; }

  std::function<Status()> barrier = [] { return Status(); };
  std::shared_ptr<rocksdb::FileSystem> disk;  // null: the real one
  std::uint64_t write_buffer = 256u << 10;
  std::size_t block_cache = 128u << 20;

 private:
  Runtime& runtime_;
  bool real_;
  std::shared_ptr<MapEngineDisk> map_disk_;
  std::filesystem::path directory_;
};

Bytes piece_row(std::uint32_t offset, std::uint32_t length, std::uint64_t nonce) {
  ChunkRow row;
  Piece piece{.offset = offset, .length = length, .kind = Piece::Kind::data};
  piece.run.segment = {SegmentKind::log, 1, nonce};
  piece.run.plain_length = length;
  piece.run.nonce = nonce;
  row.put(piece);
  return row.encode();
}

// Drops the tables from the page cache, as if the machine had just started.
void forget_pages(const std::filesystem::path& directory) {
  int dropped = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() != ".sst") continue;
    const int file = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_GE(file, 0);
    EXPECT_EQ(::fdatasync(file), 0);
    EXPECT_EQ(::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED), 0);
    ::close(file);
    ++dropped;
  }
  EXPECT_GT(dropped, 0);
}

class EngineContract : public ::testing::TestWithParam<bool> {
 protected:
  void run(std::function<Task<void>(Runtime&, Place&)> body) {
    Reactor reactor(2);
    Place place(reactor, GetParam());
    reactor.run(body(reactor, place));
  }
};

#define MUST(name, ...)             \
  auto name##_result = __VA_ARGS__; \
  CHECK(name##_result.has_value()); \
  auto name = std::move(*name##_result)

TEST_P(EngineContract, RowsStandInOrderAndMergesApply) {
  run([](Runtime&, Place& place) -> Task<void> {
    MUST(engine, co_await place.open(true));
    EXPECT_EQ(engine->applied(), 0u);
    std::map<Key, Bytes> model;
    std::mt19937_64 random(3);
    for (LogPosition position = 1; position <= 60; ++position) {
      std::vector<RowUpdate> updates;
      for (int i = 0; i < 20; ++i) {
        const std::string prefix = chunk_prefix(1 + random() % 2, random() % 3, random() % 20);
        RowUpdate update{RowUpdate::Kind::put, with_version(prefix, random() % 3), {}};
        const std::uint64_t kind = random() % 10;
        if (kind < 6) update.kind = RowUpdate::Kind::merge;
        if (kind == 9) update.kind = RowUpdate::Kind::erase;
        if (kind != 9) update.value = piece_row(random() % 8 * 512, 512 * (1 + random() % 3), random() % 9);
        if (update.kind == RowUpdate::Kind::erase) {
          model.erase(update.key);
        } else if (update.kind == RowUpdate::Kind::merge && model.contains(update.key)) {
          ChunkRow row = *ChunkRow::decode(model[update.key]);
          row.put_all(*ChunkRow::decode(update.value));
          model[update.key] = row.encode();
        } else {
          model[update.key] = update.value;
        }
        updates.push_back(std::move(update));
      }
      Status applied = co_await engine->apply(std::move(updates), position);
      EXPECT_TRUE(applied);
      EXPECT_EQ(engine->applied(), position);
      if (position == 30) {
        Status flushed = co_await engine->flush();
        EXPECT_TRUE(flushed);
        EXPECT_EQ(engine->durable(), 30u);
      }
      if (position == 45) {
        Status compacted = co_await engine->compact();
        EXPECT_TRUE(compacted);
      }
    }
    const Key from = dataset_prefix(1);
    const Key to = after_prefix(dataset_prefix(2));
    MUST(rows, co_await engine->scan(from, to, 100000));
    EXPECT_EQ(rows.size(), model.size());
    auto expected = model.begin();
    for (const KeyValue& row : rows) {
      EXPECT_EQ(row.key, expected->first);
      EXPECT_EQ(*ChunkRow::decode(row.value), *ChunkRow::decode(expected->second));
      ++expected;
    }
    MUST(few, co_await engine->scan(from, to, 7));
    EXPECT_EQ(few.size(), 7u);
    for (int i = 0; i < 300; ++i) {  // versioned look-ups: the first version at or below
      const std::string prefix = chunk_prefix(1 + random() % 2, random() % 3, random() % 20);
      const Key low = with_version(prefix, random() % 4);
      const Key high = with_version(prefix, 0) + '\0';
      MUST(found, co_await engine->first(low, high));
      const auto is = model.lower_bound(low);
      EXPECT_EQ(found.has_value(), is != model.end() && is->first < high);
      if (found) {
        EXPECT_EQ(found->key, is->first);
      }
      MUST(value, co_await engine->get(low));
      EXPECT_EQ(value.has_value(), model.contains(low));
      Result<std::optional<KeyValue>> now;
      if (engine->try_first(low, high, now)) {
        EXPECT_EQ(now->has_value(), found.has_value());
      }
    }
    Status closed = co_await engine->close();
    EXPECT_TRUE(closed);
  });
}

TEST_P(EngineContract, WhatWasFlushedIsThereAfterReopening) {
  run([](Runtime&, Place& place) -> Task<void> {
    MUST(engine, co_await place.open(true));
    const Key key = with_version(header_prefix(1, 1), 1);
    std::vector<RowUpdate> first{{RowUpdate::Kind::put, key, {1, 2, 3}}};
    std::vector<RowUpdate> second{{RowUpdate::Kind::put, key, {4}}};
    Status done = co_await engine->apply(std::move(first), 5);
    EXPECT_TRUE(done);
    done = co_await engine->flush();
    EXPECT_TRUE(done);
    done = co_await engine->apply(std::move(second), 6);
    EXPECT_TRUE(done);
    done = co_await engine->close();
    EXPECT_TRUE(done);
    engine.reset();
    MUST(again, co_await place.open(false));
    EXPECT_TRUE(again->applied() == 5 || again->applied() == 6);
    EXPECT_EQ(again->durable(), again->applied());
    MUST(value, co_await again->get(key));
    CHECK(value.has_value());
    EXPECT_EQ(*value, again->applied() == 5 ? Bytes({1, 2, 3}) : Bytes({4}));
    done = co_await again->close();
    again.reset();
    MUST(fresh, co_await place.open(true));
    EXPECT_EQ(fresh->applied(), 0u);
    MUST(nothing, co_await fresh->get(key));
    EXPECT_FALSE(nothing.has_value());
    done = co_await fresh->close();
  });
}

TEST_P(EngineContract, NothingBecomesDurableWhenTheLogDoesNot) {
  run([](Runtime&, Place& place) -> Task<void> {
    auto refuse = std::make_shared<std::atomic<bool>>(false);
    place.barrier = [refuse]() -> Status {
      if (*refuse) return fail(ErrorKind::io, "the log cannot be synced");
      return {};
    };
    MUST(engine, co_await place.open(true));
    *refuse = true;
    std::vector<RowUpdate> updates{{RowUpdate::Kind::put, with_version(header_prefix(1, 1), 1), {1}}};
    Status done = co_await engine->apply(std::move(updates), 1);
    EXPECT_TRUE(done);
    done = co_await engine->flush();
    EXPECT_FALSE(done);
    EXPECT_EQ(engine->durable(), 0u);
    done = co_await engine->close();
    engine.reset();
    *refuse = false;
    MUST(again, co_await place.open(false));
    EXPECT_EQ(again->applied(), 0u);
    done = co_await again->close();
  });
}

INSTANTIATE_TEST_SUITE_P(OrderedMap, EngineContract, ::testing::Values(false));
INSTANTIATE_TEST_SUITE_P(RocksDb, EngineContract, ::testing::Values(true));

// --- what only files on a real disk promise ---

// What a walk over many rows is made of: a turn of the reactor in between, however long it is and whatever
// has the rows.
void walk_over_rows(std::shared_ptr<rocksdb::FileSystem> disk) {
  Reactor reactor(2);
  Place place(reactor, true);
  place.disk = disk;
  constexpr std::uint32_t kRows = 60'000;
  constexpr std::size_t kMostInARow = 4096;
  const auto key_of = [](std::uint32_t i) { return with_version(chunk_prefix(1, 1, i), 1); };
  std::size_t since_turn = 0;
  bool walking = true;
  const auto turns = [&]() -> Task<void> {
    while (walking) {
      since_turn = 0;
      co_await reactor.yield();
    }
  };
  const auto walk = [&](Engine& engine, std::size_t page) -> Task<void> {
    Key from = dataset_prefix(1);
    std::uint32_t next = 0;
    for (;;) {
      MUST(rows, co_await engine.scan(from, after_prefix(dataset_prefix(1)), page));
      since_turn += rows.size();
      EXPECT_LE(since_turn, kMostInARow + page) << page;
      for (const KeyValue& row : rows) EXPECT_EQ(row.key, key_of(next++));
      if (rows.size() < page) break;
      from = rows.back().key + '\0';
    }
    EXPECT_EQ(next, kRows) << page;
  };
  const auto body = [&]() -> Task<void> {
    MUST(engine, co_await place.open(true));
    LogPosition position = 0;
    for (std::uint32_t i = 0; i < kRows;) {
      std::vector<RowUpdate> updates;
      for (std::uint32_t end = i + 5000; i < end; ++i)
        updates.push_back({RowUpdate::Kind::put, key_of(i), piece_row(0, 512, i)});
      EXPECT_TRUE((co_await engine->apply(std::move(updates), ++position)).has_value());
    }
    EXPECT_TRUE((co_await engine->compact()).has_value());
    EXPECT_TRUE((co_await engine->close()).has_value());
    engine.reset();
    TaskGroup ticker(reactor);
    ticker.spawn(turns());
    for (const std::size_t page : {1000u, 100u, 3000u, 256u}) {
      MUST(again, co_await place.open(false));  // nothing is in RocksDB's own cache
      std::size_t waited = 0;
      for (std::uint32_t i = 7; i < kRows; i += 997) {
        if (!disk && page >= 1000) forget_pages(place.directory());
        Result<std::optional<KeyValue>> at_once;
        const bool there = again->try_first(key_of(i), key_of(i) + '\0', at_once);
        if (!there) ++waited;
        EXPECT_TRUE(!there || (*at_once && (*at_once)->key == key_of(i)));
        MUST(row, co_await again->first(key_of(i), key_of(i) + '\0'));
        EXPECT_TRUE(row && row->key == key_of(i));
      }
      if (disk) {
        EXPECT_GT(waited, 30u);
      } else if (page < 1000) {
        EXPECT_LT(waited, 10u);
      } else {
        forget_pages(place.directory());
      }
      co_await walk(*again, page);
      EXPECT_TRUE((co_await again->close()).has_value());
    }
    walking = false;
    co_await ticker.join();
  };
  reactor.run(body());
}

TEST(RocksDbRows, AreReadInPortionsFromThePageCacheOrTheDisk) { walk_over_rows(nullptr); }

// Its files are none that the page cache could be asked for.
class MemoryDisk final : public rocksdb::FileSystemWrapper {
 public:
  MemoryDisk() : MemoryDisk(std::shared_ptr<rocksdb::Env>(rocksdb::NewMemEnv(rocksdb::Env::Default()))) {}
  const char* Name() const override { return "MemoryDisk"; }
  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    const rocksdb::IOStatus status = FileSystemWrapper::NewWritableFile(path, options, file, debug);
    if (status.ok()) *file = std::make_unique<Appending>(std::move(*file));
    return status;
  }

 private:
  explicit MemoryDisk(std::shared_ptr<rocksdb::Env> env)
      : FileSystemWrapper(env->GetFileSystem()), env_(std::move(env)) {}

  class Appending final : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    using FSWritableFileOwnerWrapper::FSWritableFileOwnerWrapper;
    rocksdb::IOStatus PositionedAppend(const rocksdb::Slice& data, std::uint64_t,
                                       const rocksdb::IOOptions& options,
                                       rocksdb::IODebugContext* debug) override {
      return Append(data, options, debug);  // no write fails here, so each goes to the end
    }
  };

  std::shared_ptr<rocksdb::Env> env_;
};

// Every block that RocksDB has not read yet waits.
TEST(RocksDbRows, AreReadByWorkersWhenTheyHaveToWait) { walk_over_rows(std::make_shared<MemoryDisk>()); }

std::uint64_t bytes_read_so_far() {
  std::ifstream counts("/proc/self/io");
  std::string name;
  std::uint64_t bytes = 0;
  counts >> name >> bytes;
  EXPECT_EQ(name, "rchar:");
  return bytes;
}

// A file's filter is a single block, and larger than any other.
TEST(RocksDbRows, AreFoundWithoutReadingTheFilterOfALargeFileEachTime) {
  Reactor reactor(2);
  Place place(reactor, true);
  place.write_buffer = 32u << 20;
  place.block_cache = 8u << 20;
  constexpr std::uint32_t kRows = 600'000;
  constexpr std::uint32_t kLookUps = 1000;
  const auto key_of = [](std::uint32_t i) { return with_version(chunk_prefix(1, 1, i), 1); };
  const auto body = [&]() -> Task<void> {
    MUST(engine, co_await place.open(true));
    LogPosition position = 0;
    for (std::uint32_t i = 0; i < kRows;) {
      std::vector<RowUpdate> updates;
      for (std::uint32_t end = i + 10'000; i < end; ++i)
        updates.push_back({RowUpdate::Kind::put, key_of(i), Bytes(1)});
      EXPECT_TRUE((co_await engine->apply(std::move(updates), ++position)).has_value());
    }
    EXPECT_TRUE((co_await engine->compact()).has_value());
    const std::uint64_t before = bytes_read_so_far();
    for (std::uint32_t i = 0; i < kLookUps; ++i) {
      const std::uint32_t at = i * (kRows / kLookUps);
      MUST(row, co_await engine->first(key_of(at), key_of(at) + '\0'));
      EXPECT_TRUE(row && row->key == key_of(at));
    }
    EXPECT_LT(bytes_read_so_far() - before, 32u << 20);
    EXPECT_TRUE((co_await engine->close()).has_value());
  };
  reactor.run(body());
}

TEST(RocksDbFiles, HoldNothingInTheClear) {
  Reactor reactor(2);
  Place place(reactor, true);
  const std::string name = "planted-name-4711-of-a-file";
  const std::string value = "planted-value-0815-of-an-attribute";
  const auto body = [&]() -> Task<void> {
    MUST(engine, co_await place.open(true));
    std::vector<RowUpdate> updates;
    const ValueRow row{false, Bytes(value.begin(), value.end())};
    updates.push_back(
        {RowUpdate::Kind::put, with_version(omap_prefix(1, 1, view_of(name)), 1), row.encode()});
    Status done = co_await engine->apply(std::move(updates), 1);
    EXPECT_TRUE(done);
    done = co_await engine->flush();
    EXPECT_TRUE(done);
    done = co_await engine->compact();
    EXPECT_TRUE(done);
    done = co_await engine->close();
    EXPECT_TRUE(done);
  };
  reactor.run(body());
  std::size_t files = 0;
  std::uintmax_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(place.directory())) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string content((std::istreambuf_iterator<char>(file)), {});
    ++files;
    bytes += content.size();
    for (const std::string& planted :
         {name, value, name.substr(0, 12), value.substr(0, 13), std::string("rocksdb.")})
      EXPECT_EQ(content.find(planted), std::string::npos) << entry.path() << " shows " << planted;
  }
  EXPECT_GE(files, 3u);
  EXPECT_GT(bytes, 4096u);
}

// RocksDB makes a log file at each start, and never syncs it because nothing is written to it: a power cut
// empties it.
TEST(RocksDbFiles, AnEmptiedLogFileIsNoDamage) {
  Reactor reactor(2);
  Place place(reactor, true);
  const auto body = [&]() -> Task<void> {
    const Key key = with_version(header_prefix(1, 1), 1);
    MUST(engine, co_await place.open(true));
    std::vector<RowUpdate> updates{{RowUpdate::Kind::put, key, {1}}};
    Status done = co_await engine->apply(std::move(updates), 1);
    done = co_await engine->flush();
    EXPECT_TRUE(done);
    done = co_await engine->close();
    engine.reset();
    int emptied = 0;
    for (const auto& entry : std::filesystem::directory_iterator(place.directory())) {
      if (entry.path().extension() != ".log") continue;
      std::filesystem::resize_file(entry.path(), 0);
      ++emptied;
    }
    EXPECT_GT(emptied, 0);
    MUST(again, co_await place.open(false));
    EXPECT_EQ(again->applied(), 1u);
    MUST(value, co_await again->get(key));
    EXPECT_TRUE(value.has_value());
    done = co_await again->close();
  };
  reactor.run(body());
}

TEST(RocksDbFiles, AnotherKeyOrDamageIsCorrupt) {
  Reactor reactor(2);
  Place place(reactor, true);
  const auto body = [&]() -> Task<void> {
    MUST(engine, co_await place.open(true));
    std::vector<RowUpdate> updates{{RowUpdate::Kind::put, with_version(header_prefix(1, 1), 1), {1}}};
    Status done = co_await engine->apply(std::move(updates), 1);
    done = co_await engine->flush();
    EXPECT_TRUE(done);
    done = co_await engine->close();
    engine.reset();
    auto other = co_await place.open(false, 77);
    EXPECT_FALSE(other.has_value());
    if (!other) {
      EXPECT_EQ(other.error().kind(), ErrorKind::corrupt) << other.error().message();
    }
    for (const auto& entry : std::filesystem::directory_iterator(place.directory())) {
      if (entry.path().extension() != ".sst") continue;
      std::filesystem::remove(entry.path());
      break;
    }
    auto damaged = co_await place.open(false);
    EXPECT_FALSE(damaged.has_value());
    if (!damaged) {
      EXPECT_EQ(damaged.error().kind(), ErrorKind::corrupt) << damaged.error().message();
    }
  };
  reactor.run(body());
}

}  // namespace
}  // namespace cumulus
