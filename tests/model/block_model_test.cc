// Disks against plain byte arrays: random reads, writes, zeroes, trims, batches on several connections,
// sizes, snapshots, clones, flattenings, rollbacks and reopenings; what is allocated and what changed must be
// honest about every byte. The seed is printed.
#include <cstdlib>
#include <filesystem>
#include <gtest/gtest.h>
#include <map>
#include <random>

#include "blockdev/block_device.h"
#include "blockdev/flatten.h"
#include "blockdev/images.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/index/rocksdb_engine.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/uring_file_system.h"
#include "tests/fakes/sim_network.h"

#define CO_WELL(expression)                                            \
  do {                                                                 \
    auto&& well = (expression);                                        \
    EXPECT_TRUE(well.has_value()) << #expression << ", seed " << seed; \
    if (!well.has_value()) co_return;                                  \
  } while (false)

namespace cumulus {
namespace {

constexpr std::uint64_t kSize = (3u << 20) + 1234;  // no multiple of anything

std::uint64_t chosen_seed() {
  const char* given = std::getenv("CUMULUS_SEED");
  return given == nullptr ? std::random_device()() : std::strtoull(given, nullptr, 10);
}

struct World {
  explicit World(const KeyTree& tree)
      : disk(make_uring_file_system(reactor)), keys(tree), network(reactor, 6, 64ull << 30) {
    directory = std::filesystem::temp_directory_path() /
                format("cumulus-block-model-{}-{}", getpid(), reactor.random().u64());
    std::filesystem::create_directories(directory);
  }
  ~World() { std::filesystem::remove_all(directory); }
  VolumeParts parts(FakeTransport& transport) {
    return {reactor,
            *disk,
            transport,
            keys,
            metrics,
            directory.string(),
            [this](std::string path, std::function<Status()> barrier, bool fresh) {
              return open_rocksdb_engine(reactor, std::move(path), keys.index_key().clone(),
                                         std::move(barrier), fresh, {});
            },
            "tester@model"};
  }
  Reactor reactor{2};
  std::unique_ptr<FileSystem> disk;
  const KeyTree& keys;
  Metrics metrics;
  SimNetwork network;
  std::filesystem::path directory;
};

// Images by name, and snapshots of them: what every byte must be.
struct Model {
  std::map<std::string, Bytes> heads;
  std::map<std::string, std::map<std::string, Bytes>> snapshots;
};

struct History {
  World& world;
  std::uint64_t seed;
  std::mt19937_64 random{seed};
  Model model{};
  std::unique_ptr<Volume> volume{};
  int flattened = 0;
  int images_removed = 0;
  std::multimap<std::string, std::shared_ptr<BlockDevice>> devices{};  // some opened long ago

  std::uint64_t below(std::uint64_t most) { return random() % most; }
  std::string any_head() {
    auto at = model.heads.begin();
    std::advance(at, static_cast<long>(below(model.heads.size())));
    return at->first;
  }
  std::pair<std::uint64_t, std::uint64_t> any_range(std::uint64_t size, std::uint64_t most) {
    const std::uint64_t offset = below(4) == 0 || size < 8192 ? below(size) : below(size / 4096) * 4096;
    const std::uint64_t length = below(3) == 0 ? 1 + below(most) : 4096 * (1 + below(8));
    return {offset, std::min(length, size - offset)};
  }
  DatasetId id_of(const std::string& name) { return volume->find_dataset(name)->id; }

  Task<Result<BlockDevice*>> device(std::string name) {
    const auto [first, last] = devices.equal_range(name);
    const auto open = static_cast<std::uint64_t>(std::distance(first, last));
    if (open < 3 && below(open + 2) == open) {
      CO_TRY(auto one, co_await BlockDevice::open(*volume, name, "", false));
      co_return devices.emplace(name, std::move(one))->second.get();
    }
    if (open == 0) co_return co_await device(std::move(name));
    co_return std::next(first, static_cast<std::ptrdiff_t>(below(open)))->second.get();
  }

  Task<void> change(std::string name) {
    const auto opened = co_await device(name);
    CO_WELL(opened);
    BlockBatch batch;
    Bytes& expected = model.heads[name];
    for (std::uint64_t count = 1 + below(6); count > 0; --count) {
      const auto [offset, length] = any_range(expected.size(), 300'000);
      const auto at = expected.begin() + static_cast<std::ptrdiff_t>(offset);
      if (below(4) == 0) {
        CO_WELL((*opened)->add_zero(batch, offset, length, below(2) == 0));
        std::fill_n(at, length, std::uint8_t{0});
      } else {
        auto data = std::make_shared<Bytes>(length);
        for (auto& byte : *data) byte = static_cast<std::uint8_t>(random());
        const ByteView view = *data;
        CO_WELL((*opened)->add_write(batch, offset, view, data));
        std::copy(view.begin(), view.end(), at);
      }
    }
    const auto done = co_await (*opened)->commit(std::move(batch));
    CO_WELL(done);
    if (below(5) == 0) CO_WELL(co_await (*opened)->make_durable(*done));
    if (below(8) == 0) CO_WELL(co_await (*opened)->flush());
  }

  Task<void> compare(BlockDevice& opened, const Bytes& expected, std::string what) {
    const auto [offset, length] = any_range(expected.size(), 700'000);
    Bytes got(length, 0xEE);
    const bool at_once = opened.try_read(offset, got);
    if (!at_once) CO_WELL(co_await opened.read(offset, got));
    const ByteView want = ByteView(expected).subspan(offset, length);
    EXPECT_TRUE(equal(got, want)) << what << ": " << length << " bytes at " << offset << " differ, seed "
                                  << seed << (at_once ? " (at once)" : "");
    // What is called a hole or zero is zero.
    const auto extents = co_await opened.extents(offset, length);
    CO_WELL(extents);
    std::uint64_t at = 0;
    for (const auto& part : *extents) {
      const ByteView bytes = want.subspan(at, part.length);
      const bool zero = std::ranges::all_of(bytes, [](std::uint8_t byte) { return byte == 0; });
      EXPECT_TRUE(part.kind == BlockDevice::Allocation::data || zero) << what << ", seed " << seed;
      at += part.length;
    }
    EXPECT_EQ(at, length) << what << ", seed " << seed;
  }

  Task<void> look_at_changes(std::string name) {
    const auto opened = co_await device(name);
    CO_WELL(opened);
    for (const auto& [snapshot, old] : model.snapshots[name]) {
      const Bytes& head = model.heads[name];
      const auto parts = co_await (*opened)->changed_since(snapshot, 0, head.size());
      CO_WELL(parts);
      std::uint64_t at = 0;
      for (const auto& part : *parts) {
        bool same = true;
        for (std::uint64_t i = at; i < at + part.length; ++i)
          same = same && head[i] == (i < old.size() ? old[i] : 0);
        EXPECT_TRUE(part.changed || same) << name << " since " << snapshot << ", seed " << seed;
        at += part.length;
      }
      EXPECT_EQ(at, head.size()) << "seed " << seed;
    }
  }

  Task<void> take_snapshot(std::string name, int round) {
    std::vector<Volume::SnapshotTarget> targets;
    const std::string snapshot = format("s{}", round);
    targets.push_back({volume->find_dataset(name)->id, snapshot});
    CO_WELL(co_await volume->create_snapshots(std::move(targets)));
    model.snapshots[name][snapshot] = model.heads[name];
  }

  Task<void> make_clone(std::string name, int round) {
    if (model.snapshots[name].empty() || model.heads.size() > 4) co_return;
    const std::string snapshot = model.snapshots[name].rbegin()->first;
    const std::string made = format("clone{}", round);
    std::vector<std::string> names{made};
    CO_WELL(co_await volume->clone(volume->find_dataset(name)->id, snapshot, std::move(names)));
    model.heads[made] = model.snapshots[name][snapshot];
  }

  // A clone is flattened, with interruptions and with writes between its steps; then nothing protects what
  // only it stood on.
  Task<void> flatten(std::string name) {
    const std::string parent = image_parent(*volume, id_of(name));
    for (bool done = false; !done;) {
      std::uint64_t steps = below(4);
      Progress progress = [&](std::uint64_t, std::uint64_t) { return steps-- != 0; };
      const Status status = co_await flatten_image(*volume, id_of(name), std::move(progress));
      done = status.has_value();
      if (!done) {
        EXPECT_EQ(status.error().kind(), ErrorKind::closed) << status.error().message() << ", seed " << seed;
        if (status.error().kind() != ErrorKind::closed) co_return;
        co_await change(name);
      }
    }
    flattened += parent.empty() ? 0 : 1;
    EXPECT_EQ(image_parent(*volume, id_of(name)), "") << name << ", seed " << seed;
    const auto mark = co_await flatten_position(*volume, id_of(name));
    EXPECT_TRUE(mark && !*mark) << name << ", seed " << seed;
    if (!parent.empty() && model.snapshots[name].empty()) co_await remove_parent(parent);
  }

  // Refused exactly while somebody stands on it.
  Task<void> remove_parent(std::string parent) {
    const std::string image = parent.substr(0, parent.find('@'));
    const std::string snapshot = parent.substr(parent.find('@') + 1);
    if (!model.snapshots.contains(image) || !model.snapshots[image].contains(snapshot)) co_return;
    bool stood_on = false;
    for (const DatasetInfo& other : volume->datasets()) stood_on |= stands_on(other, image, snapshot);
    const Status removed = co_await volume->remove_snapshot(id_of(image), snapshot);
    EXPECT_EQ(removed.has_value(), !stood_on) << parent << ", seed " << seed;
    if (removed) model.snapshots[image].erase(snapshot);
    if (!removed || image == "disk" || !model.snapshots[image].empty()) co_return;
    const Status gone = co_await volume->remove_dataset(id_of(image));
    if (!gone) co_return;
    ++images_removed;
    model.heads.erase(image);
    devices.erase(image);
  }
  bool stands_on(const DatasetInfo& other, const std::string& image, const std::string& snapshot) {
    const DatasetInfo& parent = *volume->find_dataset(image);
    const Version version = std::ranges::find(parent.snapshots, snapshot, &SnapshotInfo::name)->version;
    const auto of_parent = [&](const View& view) {
      const auto span = std::ranges::find(view, parent.id, &ViewSpan::dataset);
      return span != view.end() && span->to == version;
    };
    return other.id != parent.id &&
           (of_parent(other.head) || std::ranges::any_of(other.snapshots, of_parent, &SnapshotInfo::view));
  }

  Task<void> resize(std::string name) {
    Bytes& expected = model.heads[name];
    const std::uint64_t size = 1 + below(kSize * 3 / 2);
    const bool shrink = size < expected.size();
    if (shrink) devices.erase(name);  // never while attached
    CO_WELL(co_await resize_image(*volume, id_of(name), size, shrink));
    expected.resize(size);
    const auto [first, last] = devices.equal_range(name);
    for (auto one = first; one != last; ++one) {
      CO_WELL(co_await one->second->refresh());
      EXPECT_EQ(one->second->size(), size) << "seed " << seed;
    }
  }

  Task<void> roll_back(std::string name) {
    if (model.snapshots[name].empty()) co_return;
    devices.erase(name);  // never while attached
    const std::string snapshot = model.snapshots[name].begin()->first;
    CO_WELL(co_await volume->rollback(id_of(name), snapshot));
    model.heads[name] = model.snapshots[name][snapshot];
  }

  Task<void> check_all() {
    for (const auto& [name, expected] : model.heads) {
      const auto opened = co_await device(name);
      CO_WELL(opened);
      for (int i = 0; i < 3; ++i) co_await compare(**opened, expected, name);
      for (const auto& [snapshot, old] : model.snapshots[name]) {
        auto frozen = co_await BlockDevice::open(*volume, name, snapshot, false);
        CO_WELL(frozen);
        EXPECT_TRUE((*frozen)->read_only());
        co_await compare(**frozen, old, name + "@" + snapshot);
        BlockBatch refused;
        EXPECT_EQ((*frozen)->add_zero(refused, 0, 1, false).error(), BlockFault::read_only);
      }
    }
  }

  Task<void> main() {
    FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
    transport.set_miners(world.network.entries());
    VolumeOptions options;
    options.cache_bytes = 64u << 20;
    const VolumeShape shape{4, 2, 20};
    auto made = co_await Volume::create(world.parts(transport), shape, options);
    CO_WELL(made);
    volume = std::move(*made);
    CO_WELL(co_await create_image(*volume, "disk", kSize, 1));
    EXPECT_FALSE(co_await create_image(*volume, "disk", kSize, 1));
    model.heads["disk"] = Bytes(kSize);
    for (int round = 0; round < 160; ++round) {
      const std::string name = any_head();
      co_await change(name);
      if (round % 3 == 0) co_await check_all();
      if (round % 23 == 5) co_await take_snapshot(name, round);
      if (round % 31 == 7) co_await make_clone(name, round);
      if (round % 19 == 11) co_await look_at_changes(name);
      if (round % 53 == 41) co_await roll_back(name);
      if (round % 13 == 9) co_await resize(name);
      if (round % 17 == 8) co_await flatten(model.heads.begin()->first);
      if (round % 61 == 17) CO_WELL(co_await volume->flush(Durability::remote, {}));
      if (round % 61 == 18) CO_WELL(co_await volume->drop_cache());
      if (round % 47 != 46) continue;
      devices.clear();
      CO_WELL(co_await volume->close());
      auto again = co_await Volume::open(world.parts(transport), options, OpenMode::read_write);
      CO_WELL(again);
      volume = std::move(*again);
      co_await check_all();
    }
    EXPECT_GT(flattened, 0) << "seed " << seed;
    const auto opened = co_await device("disk");
    CO_WELL(opened);
    const std::uint64_t size = model.heads["disk"].size();
    BlockBatch beyond;
    EXPECT_EQ((*opened)->add_zero(beyond, size, 1, false).error(), BlockFault::beyond_end);
    EXPECT_EQ((*opened)->add_zero(beyond, 1, ~std::uint64_t{0}, false).error(), BlockFault::beyond_end);
    devices.clear();
    CO_WELL(co_await volume->close());
    volume.reset();
    co_await transport.close();
    co_await world.network.settle();
  }
};

TEST(BlockModel, DisksAreByteArrays) {
  const std::uint64_t seed = chosen_seed();
  std::printf("CUMULUS_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::array<std::uint8_t, 32> master{};
  master.fill(7);
  const KeyTree keys{SecretKey(master)};
  World world(keys);
  History history{world, seed};
  world.reactor.run(history.main());
}

}  // namespace
}  // namespace cumulus
