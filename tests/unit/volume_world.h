// What tests of whole volumes stand on: one machine with the real disk, RocksDB and reactor, and miners in
// memory.
#pragma once

#include <filesystem>
#include <gtest/gtest.h>
#include <unistd.h>

#include "objectstore/base/format.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/index/rocksdb_engine.h"
#include "objectstore/io/sync.h"
#include "objectstore/io/uring_file_system.h"
#include "objectstore/object_store.h"
#include "tests/fakes/sim_network.h"

namespace cumulus {

inline SecretKey master_key() {
  std::array<std::uint8_t, 32> bytes{};
  bytes.fill(7);
  return SecretKey(bytes);
}

inline Bytes pattern(std::size_t size, std::uint64_t seed) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    bytes[i] = static_cast<std::uint8_t>(seed >> 56);
  }
  return bytes;
}

// One machine: a reactor, a disk folder, and a network of miners that outlives its volumes.
struct World {
  World() : disk(make_uring_file_system(reactor)), keys(master_key()), network(reactor, 6, 64ull << 30) {
    directory = std::filesystem::temp_directory_path() /
                format("cumulus-volume-test-{}-{}", getpid(), reactor.random().u64());
    std::filesystem::create_directories(directory);
  }
  ~World() { std::filesystem::remove_all(directory); }

  VolumeParts parts(FakeTransport& transport, const std::string& home) {
    std::filesystem::create_directories(directory / home);
    return {reactor,
            *disk,
            transport,
            keys,
            metrics,
            (directory / home).string(),
            [this](std::string path, std::function<Status()> barrier, bool fresh) {
              return open_rocksdb_engine(reactor, std::move(path), keys.index_key().clone(),
                                         std::move(barrier), fresh, {});
            },
            "tester@" + home};
  }

  Reactor reactor{2};
  std::unique_ptr<FileSystem> disk;
  KeyTree keys;
  Metrics metrics;
  SimNetwork network;
  std::filesystem::path directory;
};

// The whole of a story, in a world of its own: one that waits for ever has not ended.
inline void play(Task<> (*story)(World&)) {
  World world;
  bool ended = false;
  world.reactor.run([](World& in, Task<> (*told)(World&), bool& done) -> Task<> {
    co_await told(in);
    co_await in.network.settle();
    done = true;
  }(world, story, ended));
  EXPECT_TRUE(ended);
}

inline VolumeOptions small_options() {
  VolumeOptions options;
  options.cache_bytes = 64u << 20;
  return options;
}

#define ASSERT_WELL(expression)                              \
  do {                                                       \
    auto&& well = (expression);                              \
    EXPECT_TRUE(well.has_value()) << well.error().message(); \
    if (!well.has_value()) co_return;                        \
  } while (false)

inline Task<Result<ObjectId>> put_object(Volume& volume, DatasetId dataset, ByteView data) {
  CO_TRY(const ObjectId id, volume.allocate_object(dataset));
  Transaction transaction;
  transaction.create({dataset, id}, {});
  CO_TRY_OK(co_await volume.commit(std::move(transaction)));
  for (std::size_t at = 0; at < data.size(); at += 1u << 20) {
    Transaction piece;
    piece.write({dataset, id}, at, data.subspan(at, std::min<std::size_t>(1u << 20, data.size() - at)));
    CO_TRY_OK(co_await volume.commit(std::move(piece)));
  }
  co_return id;
}

inline Task<Result<Bytes>> get_object(Volume& volume, DatasetId dataset, ObjectId id, std::size_t size) {
  Bytes data(size);
  for (std::size_t at = 0; at < size;) {
    const MutableByteView part =
        MutableByteView(data).subspan(at, std::min<std::size_t>(1u << 20, size - at));
    CO_TRY(const std::size_t got, co_await volume.read(volume.find_dataset(dataset)->head, id, at, part));
    if (got == 0) co_return fail(ErrorKind::corrupt, "short object");
    at += got;
  }
  co_return data;
}

}  // namespace cumulus
