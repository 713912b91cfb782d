// The paths that differ between two instants: the same whatever memory there is, but for renames.
#include <set>

#include "fs/difference.h"
#include "objectstore/base/format.h"
#include "tests/unit/fs_world.h"

namespace cumulus {
namespace {

const Caller kCaller;

Task<NodeId> make(PosixFileSystem& fs, NodeId parent, const char* called, std::uint32_t mode) {
  NewNode what;
  what.mode = mode;
  std::string name = called;
  const auto made = co_await fs.make_node(kCaller, parent, std::move(name), std::move(what));
  EXPECT_TRUE(made);
  co_return made ? made->node : 0;
}

Task<void> put(PosixFileSystem& fs, NodeId node, std::uint64_t offset) {
  OpenFlags flags;
  flags.write = true;
  const auto handle = co_await fs.open(node, flags);
  CO_ASSERT(handle);
  const auto data = std::make_shared<Bytes>(100, 7);
  EXPECT_TRUE(co_await fs.write(kCaller, *handle, offset, *data, data, false));
  EXPECT_TRUE(co_await fs.release(*handle));
}

Task<void> snapshot(Volume& volume, DatasetId dataset, const char* name) {
  std::vector<Volume::SnapshotTarget> targets(1);
  targets.front().dataset = dataset;
  targets.front().name = name;
  CO_ASSERT(co_await volume.create_snapshots(std::move(targets)));
}

Task<std::set<std::string>> told(Runtime& runtime, Volume& volume, DatasetId dataset,
                                 DifferenceLimits limits) {
  std::set<std::string> lines;
  const auto& snapshots = volume.find_dataset(dataset)->snapshots;
  View older = snapshots.at(0).view;
  View newer = snapshots.at(1).view;
  PathChangeSink sink = [&lines](PathChange change) -> Task<Status> {
    const char* const words[] = {"added", "removed", "modified", "metadata", "renamed"};
    const auto line = format("{} {}{}", words[static_cast<std::size_t>(change.kind)],
                             change.from.empty() ? "" : change.from + " ", change.path);
    EXPECT_TRUE(lines.insert(line).second) << line;
    co_return Status();
  };
  const Status done = co_await file_system_difference(runtime, volume, std::move(older), std::move(newer),
                                                      limits, std::move(sink));
  EXPECT_OK(done);
  co_return lines;
}

// More names than a page; a file of 2^63-1 bytes; every limit.
TEST(FsDifference, answers_the_same_within_any_memory) {
  with_file_system([](StoreWorld& world, Volume& volume, DatasetId dataset) -> Task<void> {
    const FileSystemOptions options;
    std::string head;
    auto opened = co_await PosixFileSystem::open(world.reactor, volume, dataset, std::move(head), options);
    CO_ASSERT(opened);
    PosixFileSystem& fs = **opened;
    const NodeId folder = co_await make(fs, kRootNode, "folder", 0040755);
    std::vector<NodeId> files;
    for (int index = 0; index < 700; ++index) {
      const std::string name = format("f{}", index);
      files.push_back(co_await make(fs, folder, name.c_str(), 0100644));
    }
    const NodeId sparse = co_await make(fs, kRootNode, "sparse", 0100644);
    AttributeChange size;
    size.size = (1ull << 63) - 1;
    EXPECT_TRUE(co_await fs.setattr(kCaller, sparse, size));
    co_await put(fs, sparse, 5ull << 40);
    co_await snapshot(volume, dataset, "1");

    co_await put(fs, sparse, 7ull << 50);
    std::set<std::string> expected{"modified /sparse"};
    std::set<std::string> without_renames = expected;
    const NodeId other = co_await make(fs, kRootNode, "other", 0040755);
    expected.insert("added /other");
    without_renames.insert("added /other");
    for (std::size_t index = 0; index < files.size(); ++index) {
      std::string name = format("f{}", index);
      if (index % 4 == 0) {
        const auto gone = co_await fs.unlink(kCaller, folder, name);
        EXPECT_TRUE(gone);
        expected.insert("removed /folder/" + name);
        without_renames.insert("removed /folder/" + name);
      } else if (index % 4 == 1) {
        const RenameFlags flags;
        const auto moved = co_await fs.rename(kCaller, folder, name, other, name, flags);
        EXPECT_TRUE(moved);
        expected.insert(format("renamed /folder/{} /other/{}", name, name));
        without_renames.insert("removed /folder/" + name);
        without_renames.insert("added /other/" + name);
      } else if (index % 4 == 2) {
        co_await put(fs, files[index], 0);
        expected.insert("modified /folder/" + name);
        without_renames.insert("modified /folder/" + name);
      }
    }
    co_await snapshot(volume, dataset, "2");
    CO_ASSERT(co_await fs.close());
    opened->reset();

    DifferenceLimits limits;
    EXPECT_EQ(co_await told(world.reactor, volume, dataset, limits), expected);
    limits.object_bytes = 100;
    EXPECT_EQ(co_await told(world.reactor, volume, dataset, limits), expected);
    limits.rename_bytes = 0;
    EXPECT_EQ(co_await told(world.reactor, volume, dataset, limits), without_renames);
  });
}

}  // namespace
}  // namespace cumulus
