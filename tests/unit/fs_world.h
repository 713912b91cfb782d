// A file system on a volume of its own over simulated miners, for the tests of fs. Header-only.
#pragma once

#include "fs/file_system.h"
#include "objectstore/index/rocksdb_engine.h"
#include "tests/unit/store_world.h"

namespace cumulus {

// Makes the volume and its file system "main", runs the body, closes all. The body is handed the volume and
// the dataset, and opens (and closes) the file system as it likes. The volume lies on world.disk, in the
// place of which `replace` may put another; `fails`: closing the volume must fail.
using FileSystemBody = std::function<Task<void>(StoreWorld&, Volume&, DatasetId)>;
inline void with_file_system(FileSystemBody body, std::function<void(StoreWorld&)> replace = {},
                             bool fails = false) {
  StoreWorld world(6);
  if (replace) replace(world);
  bool ended = false;
  world.run([&]() -> Task<void> {
    FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
    transport.set_miners(world.network.entries());
    VolumeParts parts{world.reactor,
                      *world.disk,
                      transport,
                      world.keys,
                      world.metrics,
                      world.directory("a"),
                      [&world](std::string path, std::function<Status()> barrier, bool fresh) {
                        return open_rocksdb_engine(world.reactor, std::move(path),
                                                   world.keys.index_key().clone(), std::move(barrier), fresh,
                                                   {});
                      },
                      "tester@here"};
    VolumeOptions options;
    options.cache_bytes = 64u << 20;
    VolumeShape shape;
    shape.segment_log2 = 20;
    auto volume = co_await Volume::create(std::move(parts), shape, options);
    CO_ASSERT(volume);
    DatasetOptions kind;
    kind.type = DatasetType::file_system;
    const auto dataset = co_await (*volume)->create_dataset("main", kind);
    CO_ASSERT(dataset);
    CO_ASSERT(co_await PosixFileSystem::make_empty(world.reactor, **volume, *dataset, 0, 0));
    co_await body(world, **volume, *dataset);
    const Status closed = co_await (*volume)->close();
    CO_ASSERT(closed.has_value() != fails);
    co_await transport.close();
    ended = true;
  });
  EXPECT_TRUE(ended);
}

}  // namespace cumulus
