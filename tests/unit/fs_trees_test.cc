// Quotas of directory trees: what is counted where, what is refused, what follows snapshots and rollbacks.
#include "objectstore/base/format.h"
#include "tests/unit/fs_world.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kMiB = 1u << 20;
const Caller kCaller;

Task<NodeId> make_directory(PosixFileSystem& fs, NodeId parent, const char* called) {
  std::string name = called;
  NewNode what;
  what.mode = 0040755;
  const auto made = co_await fs.make_node(kCaller, parent, std::move(name), std::move(what));
  EXPECT_TRUE(made);
  co_return made ? made->node : 0;
}

// Makes a file (or opens one that is there) and writes `bytes` from its beginning.
Task<std::optional<FsErrorKind>> fill(PosixFileSystem& fs, NodeId parent, const char* called,
                                      std::uint64_t bytes) {
  std::string name = called;
  OpenFlags flags;
  flags.read = flags.write = true;
  const auto made = co_await fs.create(kCaller, parent, std::move(name), 0644, flags);
  if (!made) co_return made.error().kind;
  std::optional<FsErrorKind> failed;
  const auto data = std::make_shared<Bytes>(kMiB, 7);
  for (std::uint64_t at = 0; at < bytes && !failed; at += kMiB) {
    const ByteView part = ByteView(*data).first(std::min(kMiB, bytes - at));
    const auto written = co_await fs.write(kCaller, made->handle, at, part, data, false);
    if (!written) failed = written.error().kind;
  }
  const FsStatus released = co_await fs.release(made->handle);
  EXPECT_TRUE(released);
  co_return failed;
}

Task<std::optional<FsErrorKind>> move(PosixFileSystem& fs, NodeId from, const char* old_name, NodeId to,
                                      const char* called, bool exchange = false) {
  std::string name = old_name;
  std::string new_name = called;
  RenameFlags flags;
  flags.exchange = exchange;
  const auto moved = co_await fs.rename(kCaller, from, std::move(name), to, std::move(new_name), flags);
  if (!moved) co_return moved.error().kind;
  fs.forget(*moved);
  co_return std::nullopt;
}

Task<bool> unlink(PosixFileSystem& fs, NodeId parent, const char* called) {
  std::string name = called;
  const auto gone = co_await fs.unlink(kCaller, parent, std::move(name));
  if (gone) fs.forget(*gone);
  co_return gone.has_value();
}

Task<NodeId> node_at(PosixFileSystem& fs, NodeId parent, const char* called) {
  std::string name = called;
  const auto found = co_await fs.lookup(kCaller, parent, std::move(name));
  EXPECT_TRUE(found) << called;
  co_return found ? found->node : 0;
}

Task<QuotaState> quota_at(PosixFileSystem& fs, NodeId directory) {
  const auto quota = co_await fs.tree_quota(directory);
  EXPECT_TRUE(quota && *quota);
  co_return quota && *quota ? **quota : QuotaState{};
}

QuotaState whole(Volume& volume, DatasetId dataset) { return volume.find_dataset(dataset)->trees.at(0); }

using Body = std::function<Task<void>(StoreWorld&, PosixFileSystem&, Volume&, DatasetId)>;
void mounted(Body body) {
  with_file_system([&](StoreWorld& world, Volume& volume, DatasetId dataset) -> Task<void> {
    const FileSystemOptions options;
    std::string head;
    auto fs = co_await PosixFileSystem::open(world.reactor, volume, dataset, std::move(head), options);
    CO_ASSERT(fs);
    co_await body(world, **fs, volume, dataset);
    CO_ASSERT(co_await (*fs)->close());
  });
}

TEST(FsTrees, what_is_there_is_counted_and_what_comes_is_limited) {
  mounted([](StoreWorld&, PosixFileSystem& fs, Volume& volume, DatasetId dataset) -> Task<void> {
    const NodeId top = co_await make_directory(fs, kRootNode, "top");
    const NodeId deep = co_await make_directory(fs, top, "deep");
    EXPECT_EQ(co_await fill(fs, deep, "old", kMiB), std::nullopt);
    const auto none = co_await fs.tree_quota(top);
    CO_ASSERT(none && !*none);

    CO_ASSERT(co_await fs.set_tree_quota(top, 3 * kMiB, 5));
    const QuotaState before = co_await quota_at(fs, top);
    EXPECT_EQ(before.bytes, std::int64_t{kMiB});
    EXPECT_EQ(before.objects, 3);
    const auto space = co_await fs.statfs(deep);
    CO_ASSERT(space);
    EXPECT_EQ(space->bytes, 3 * kMiB);
    EXPECT_EQ(space->bytes_free, 2 * kMiB);
    EXPECT_EQ(space->inodes, 5u);
    EXPECT_EQ(space->inodes_free, 2u);
    const auto outside = co_await fs.statfs(kRootNode);
    CO_ASSERT(outside);
    EXPECT_GT(outside->bytes, 3 * kMiB);

    EXPECT_EQ(co_await fill(fs, deep, "new", 2 * kMiB), std::nullopt);
    EXPECT_EQ(co_await fill(fs, deep, "more", 1), FsErrorKind::quota);
    EXPECT_EQ(co_await fill(fs, top, "one too many", 0), FsErrorKind::quota);
    EXPECT_EQ(co_await fill(fs, kRootNode, "outside", kMiB), std::nullopt);
    CO_ASSERT(co_await unlink(fs, deep, "old"));
    EXPECT_EQ(co_await fill(fs, deep, "again", kMiB), std::nullopt);
    // The whole file system counts what its trees hold: root, top, deep, new, more, again, outside.
    EXPECT_EQ(whole(volume, dataset).bytes, std::int64_t{4 * kMiB});
    EXPECT_EQ(whole(volume, dataset).objects, 7);

    CO_ASSERT(co_await fs.set_tree_quota(top, 0, 0));
    const auto gone = co_await fs.tree_quota(top);
    CO_ASSERT(gone && !*gone);
    EXPECT_EQ(volume.find_dataset(dataset)->trees.size(), 1u);
    EXPECT_EQ(co_await fill(fs, top, "free", 4 * kMiB), std::nullopt);
    EXPECT_EQ(whole(volume, dataset).bytes, std::int64_t{8 * kMiB});
  });
}

TEST(FsTrees, the_whole_limits_its_trees) {
  mounted([](StoreWorld&, PosixFileSystem& fs, Volume& volume, DatasetId dataset) -> Task<void> {
    const NodeId top = co_await make_directory(fs, kRootNode, "top");
    CO_ASSERT(co_await fs.set_tree_quota(top, 8 * kMiB, 0));
    CO_ASSERT(co_await volume.set_quota(dataset, 0, 2 * kMiB, 0));
    EXPECT_EQ(co_await fill(fs, top, "a", 3 * kMiB), FsErrorKind::quota);
    const auto space = co_await fs.statfs(top);
    CO_ASSERT(space);
    EXPECT_EQ(space->bytes_free, 0u);
    // A write in place takes nothing more, and the file may become shorter.
    OpenFlags flags;
    flags.write = true;
    const NodeId node = co_await node_at(fs, top, "a");
    const auto handle = co_await fs.open(node, flags);
    CO_ASSERT(handle);
    const auto data = std::make_shared<Bytes>(kMiB, 9);
    const auto over = co_await fs.write(kCaller, *handle, 0, *data, data, false);
    EXPECT_TRUE(over) << over.error().message;
    AttributeChange shorter;
    shorter.size = 5;
    EXPECT_TRUE(co_await fs.setattr(kCaller, node, shorter));
    CO_ASSERT(co_await fs.release(*handle));
    EXPECT_EQ(whole(volume, dataset).bytes, 5);
    EXPECT_EQ((co_await quota_at(fs, top)).bytes, 5);
  });
}

TEST(FsTrees, names_do_not_cross) {
  mounted([](StoreWorld&, PosixFileSystem& fs, Volume& volume, DatasetId dataset) -> Task<void> {
    const NodeId top = co_await make_directory(fs, kRootNode, "top");
    const NodeId other = co_await make_directory(fs, kRootNode, "other");
    EXPECT_EQ(co_await fill(fs, top, "a", 10), std::nullopt);
    EXPECT_EQ(co_await fill(fs, kRootNode, "b", 10), std::nullopt);
    CO_ASSERT(co_await fs.set_tree_quota(top, kMiB, 0));
    EXPECT_EQ(co_await move(fs, top, "a", kRootNode, "a"), FsErrorKind::cross_tree);
    EXPECT_EQ(co_await move(fs, kRootNode, "b", top, "b"), FsErrorKind::cross_tree);
    EXPECT_EQ(co_await move(fs, top, "a", kRootNode, "b", true), FsErrorKind::cross_tree);
    EXPECT_EQ(co_await move(fs, top, "a", top, "c"), std::nullopt);
    const NodeId file = co_await node_at(fs, top, "c");
    std::string name = "c";
    const auto linked = co_await fs.link(kCaller, file, kRootNode, std::move(name));
    EXPECT_TRUE(!linked && linked.error().kind == FsErrorKind::cross_tree);
    // Where the tree begins it moves about, and takes what it counts with it.
    EXPECT_EQ(co_await move(fs, kRootNode, "top", other, "moved"), std::nullopt);
    EXPECT_EQ((co_await quota_at(fs, top)).bytes, 10);
    EXPECT_EQ(co_await fill(fs, top, "d", 2 * kMiB), FsErrorKind::quota);
    // Removed or replaced, its limits end with it.
    CO_ASSERT(co_await unlink(fs, top, "c"));
    CO_ASSERT(co_await unlink(fs, top, "d"));
    name = "moved";
    const auto removed = co_await fs.rmdir(kCaller, other, std::move(name));
    CO_ASSERT(removed);
    fs.forget(*removed);
    EXPECT_EQ(volume.find_dataset(dataset)->trees.size(), 1u);
    const NodeId empty = co_await make_directory(fs, kRootNode, "empty");
    CO_ASSERT(co_await fs.set_tree_quota(empty, kMiB, 0));
    EXPECT_EQ(co_await move(fs, kRootNode, "other", kRootNode, "empty"), std::nullopt);
    EXPECT_EQ(volume.find_dataset(dataset)->trees.size(), 1u);
    EXPECT_EQ(whole(volume, dataset).objects, 3);  // the root, other, b
  });
}

TEST(FsTrees, trees_within_trees) {
  mounted([](StoreWorld&, PosixFileSystem& fs, Volume& volume, DatasetId dataset) -> Task<void> {
    const NodeId outer = co_await make_directory(fs, kRootNode, "outer");
    const NodeId inner = co_await make_directory(fs, outer, "inner");
    EXPECT_EQ(co_await fill(fs, inner, "a", kMiB), std::nullopt);
    CO_ASSERT(co_await fs.set_tree_quota(inner, 2 * kMiB, 0));
    CO_ASSERT(co_await fs.set_tree_quota(outer, kMiB / 2, 0));
    EXPECT_EQ((co_await quota_at(fs, outer)).bytes, 0);
    EXPECT_EQ((co_await quota_at(fs, inner)).bytes, std::int64_t{kMiB});
    const FsStatus full = co_await fs.set_tree_quota(inner, 0, 0);
    EXPECT_TRUE(!full && full.error().kind == FsErrorKind::quota);
    CO_ASSERT(co_await fs.set_tree_quota(outer, 4 * kMiB, 0));
    CO_ASSERT(co_await fs.set_tree_quota(inner, 0, 0));
    EXPECT_EQ((co_await quota_at(fs, outer)).bytes, std::int64_t{kMiB});
    EXPECT_EQ((co_await quota_at(fs, outer)).objects, 3);
    EXPECT_EQ(volume.find_dataset(dataset)->trees.size(), 2u);
    const FsStatus root = co_await fs.set_tree_quota(kRootNode, kMiB, 0);
    EXPECT_TRUE(!root && root.error().kind == FsErrorKind::invalid);
  });
}

TEST(FsTrees, snapshots_clones_and_rollbacks_know_them) {
  with_file_system([](StoreWorld& world, Volume& volume, DatasetId dataset) -> Task<void> {
    const FileSystemOptions options;
    std::string head;
    auto opened = co_await PosixFileSystem::open(world.reactor, volume, dataset, std::move(head), options);
    CO_ASSERT(opened);
    const NodeId top = co_await make_directory(**opened, kRootNode, "top");
    CO_ASSERT(co_await (*opened)->set_tree_quota(top, 4 * kMiB, 0));
    EXPECT_EQ(co_await fill(**opened, top, "a", kMiB), std::nullopt);
    std::vector<Volume::SnapshotTarget> targets;
    targets.push_back({dataset, "s"});
    CO_ASSERT(co_await volume.create_snapshots(std::move(targets)));
    EXPECT_EQ(co_await fill(**opened, top, "b", 2 * kMiB), std::nullopt);
    CO_ASSERT(co_await (*opened)->set_tree_quota(top, 3 * kMiB, 0));
    EXPECT_EQ(whole(volume, dataset).bytes, std::int64_t{3 * kMiB});
    CO_ASSERT(co_await (*opened)->close());
    opened->reset();

    std::string snapshot = "s";
    std::vector<std::string> names{"copy"};
    const auto clones = co_await volume.clone(dataset, std::move(snapshot), std::move(names));
    CO_ASSERT(clones);
    EXPECT_EQ(volume.find_dataset(clones->front())->trees,
              volume.find_dataset(dataset)->snapshots.front().trees);
    snapshot = "s";
    CO_ASSERT(co_await volume.rollback(dataset, std::move(snapshot)));
    EXPECT_EQ(whole(volume, dataset).bytes, std::int64_t{kMiB});
    head.clear();
    auto again = co_await PosixFileSystem::open(world.reactor, volume, dataset, std::move(head), options);
    CO_ASSERT(again);
    const QuotaState now = co_await quota_at(**again, top);
    EXPECT_EQ(now.bytes, std::int64_t{kMiB});
    EXPECT_EQ(now.bytes_max, 3 * kMiB);  // limits are the head's
    EXPECT_EQ(co_await fill(**again, top, "c", 3 * kMiB), FsErrorKind::quota);
    CO_ASSERT(co_await (*again)->close());
  });
}

// While others write into it, a tree is gathered, and every byte and inode is counted once.
TEST(FsTrees, gathered_while_it_changes) {
  mounted([](StoreWorld& world, PosixFileSystem& fs, Volume& volume, DatasetId dataset) -> Task<void> {
    const NodeId top = co_await make_directory(fs, kRootNode, "top");
    std::vector<NodeId> folders{top};
    for (int index = 0; index < 20; ++index) {
      const std::string name = format("d{}", index);
      folders.push_back(co_await make_directory(fs, folders[folders.size() / 2], name.c_str()));
    }
    for (int index = 0; index < 200; ++index) {
      const std::string name = format("f{}", index);
      const NodeId at = folders[static_cast<std::size_t>(index) % folders.size()];
      EXPECT_EQ(co_await fill(fs, at, name.c_str(), static_cast<std::uint64_t>(index)), std::nullopt);
    }
    for (const std::uint64_t limit : {std::uint64_t{kMiB}, std::uint64_t{0}}) {
      bool set = false;
      TaskGroup setting(world.reactor);
      setting.spawn([&]() -> Task<void> {
        const FsStatus changed = co_await fs.set_tree_quota(top, limit, 0);
        if (!changed) ADD_FAILURE() << changed.error().message;
        set = true;
      });
      for (int round = 0; !set && round < 100'000; ++round) {
        co_await world.reactor.yield();
        const NodeId at = folders[static_cast<std::size_t>(round) % folders.size()];
        const std::string name = format("n{}", round % 7);
        EXPECT_EQ(co_await fill(fs, at, name.c_str(), 100), std::nullopt);
        if (round % 3 != 0) {
          EXPECT_TRUE(co_await unlink(fs, at, name.c_str()));
        } else {
          const std::string left = format("left{}-{}", limit, round);
          EXPECT_EQ(co_await move(fs, at, name.c_str(), at, left.c_str()), std::nullopt);
        }
      }
      EXPECT_TRUE(set);
      co_await setting.join();
      const QuotaState all = whole(volume, dataset);
      if (limit == 0) {
        EXPECT_EQ(volume.find_dataset(dataset)->trees.size(), 1u);
        continue;
      }
      const QuotaState inside = co_await quota_at(fs, top);
      EXPECT_EQ(inside.bytes, all.bytes);
      EXPECT_EQ(inside.objects, all.objects - 1);  // the root is outside
    }
  });
}

// Directories go while a tree is set over them: none of them is where a tree begins.
TEST(FsTrees, gathered_while_directories_go) {
  mounted([](StoreWorld& world, PosixFileSystem& fs, Volume& volume, DatasetId dataset) -> Task<void> {
    CO_ASSERT(co_await volume.set_quota(dataset, 0, 64 * kMiB, 1000));
    const NodeId outer = co_await make_directory(fs, kRootNode, "outer");
    const NodeId top = co_await make_directory(fs, outer, "top");
    constexpr int kFolders = 200;
    for (const bool within : {false, true}) {
      if (within) CO_ASSERT(co_await fs.set_tree_quota(outer, 32 * kMiB, 500));
      for (int index = 0; index < kFolders; ++index) {
        const std::string name = format("d{}", index);
        co_await make_directory(fs, top, name.c_str());
      }
      bool set = false;
      TaskGroup setting(world.reactor);
      setting.spawn([&]() -> Task<void> {
        const FsStatus changed = co_await fs.set_tree_quota(top, kMiB, 0);
        if (!changed) ADD_FAILURE() << changed.error().message;
        set = true;
      });
      int early = 0;
      for (int index = kFolders - 1; index >= 0; --index) {
        std::string name = format("d{}", index);
        early += set ? 0 : 1;
        const auto gone = co_await fs.rmdir(kCaller, top, std::move(name));
        CO_ASSERT(gone);
        fs.forget(*gone);
      }
      co_await setting.join();
      EXPECT_GT(early, 0);
      const QuotaState all = whole(volume, dataset);
      EXPECT_EQ(all.bytes_max, 64 * kMiB);
      EXPECT_EQ(all.objects_max, 1000u);
      EXPECT_EQ(all.objects, 3);  // the root, outer, top
      EXPECT_EQ((co_await quota_at(fs, top)).objects, 1);
      if (within) {
        const QuotaState around = co_await quota_at(fs, outer);
        EXPECT_EQ(around.bytes_max, 32 * kMiB);
        EXPECT_EQ(around.objects, 1);
      }
      CO_ASSERT(co_await fs.set_tree_quota(top, 0, 0));
    }
  });
}

}  // namespace
}  // namespace cumulus
