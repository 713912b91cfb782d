// Sparse files as long as a file may be: what costs a step for each chunk of the length never ends on them.
#include "tests/unit/fs_world.h"

namespace cumulus {
namespace {

#define CO_OK(expression)          \
  do {                             \
    auto&& well = (expression);    \
    EXPECT_TRUE(well.has_value()); \
    if (!well) co_return;          \
  } while (false)

Task<void> far_apart(PosixFileSystem& fs) {
  constexpr std::uint64_t kFar = 5ull << 40;
  constexpr std::uint64_t kLongest = (1ull << 63) - 1;
  const Caller caller;
  OpenFlags flags;
  flags.read = flags.write = true;
  const auto made = co_await fs.create(caller, kRootNode, "sparse", 0100644, flags);
  CO_OK(made);
  const NodeId node = made->entry.node;
  const auto over_itself = co_await fs.copy_range(caller, made->handle, 0, made->handle, 0, kLongest);
  EXPECT_TRUE(over_itself && *over_itself == 0);  // an empty file has no ranges that overlap
  AttributeChange size;
  size.size = kLongest;
  CO_OK(co_await fs.setattr(caller, node, size));
  const auto nothing = co_await fs.seek(node, 0, true);
  EXPECT_TRUE(!nothing && nothing.error().kind == FsErrorKind::beyond_end);

  const Bytes data(1u << 20, 7);
  const auto owner = std::make_shared<Bytes>(data);
  CO_OK(co_await fs.write(caller, made->handle, kFar, *owner, owner, false));
  const auto found = co_await fs.seek(node, 1, true);
  CO_OK(found);
  EXPECT_EQ(*found, kFar);
  const auto inside = co_await fs.seek(node, kFar + 10, true);
  CO_OK(inside);
  EXPECT_EQ(*inside, kFar + 10);
  const auto first_hole = co_await fs.seek(node, 3, false);
  CO_OK(first_hole);
  EXPECT_EQ(*first_hole, 3u);
  const auto behind = co_await fs.seek(node, kFar, false);
  CO_OK(behind);
  EXPECT_EQ(*behind, kFar + data.size());

  const auto overlapping = co_await fs.copy_range(caller, made->handle, kFar, made->handle, kFar + 100, 101);
  EXPECT_TRUE(!overlapping && overlapping.error().kind == FsErrorKind::invalid);

  const auto before = co_await fs.getattr(node);
  CO_OK(before);
  EXPECT_EQ(before->blocks, data.size() / 512);
  AllocateMode zeros;
  zeros.zero_range = zeros.keep_size = true;
  const auto no_room = co_await fs.allocate(caller, made->handle, zeros, 0, kLongest);
  EXPECT_TRUE(!no_room && no_room.error().kind == FsErrorKind::no_space);
  AllocateMode punch;
  punch.punch_hole = punch.keep_size = true;
  CO_OK(co_await fs.allocate(caller, made->handle, punch, 1, kLongest - 1));
  const auto punched = co_await fs.getattr(node);
  CO_OK(punched);
  EXPECT_EQ(punched->blocks, 0u);
  size.size = 1;
  CO_OK(co_await fs.setattr(caller, node, size));
  const AllocateMode plain;
  CO_OK(co_await fs.allocate(caller, made->handle, plain, 0, 2'500'000'000));  // three steps
  const auto grown = co_await fs.getattr(node);
  CO_OK(grown);
  EXPECT_EQ(grown->size, 2'500'000'000u);
  EXPECT_EQ(grown->blocks, (2'500'000'000u - 1 + 511) / 512);
  CO_OK(co_await fs.release(made->handle));
}

// Ten GiB are given back in steps, and counted as one.
Task<void> long_ways_down(PosixFileSystem& fs) {
  constexpr std::uint64_t kLong = 10ull << 30;
  constexpr std::uint64_t kKept = (1ull << 30) + 512;
  const Caller caller;
  OpenFlags flags;
  flags.read = flags.write = true;
  const auto made = co_await fs.create(caller, kRootNode, "long", 0100644, flags);
  CO_OK(made);
  const NodeId node = made->entry.node;
  const auto expect_blocks = [&](std::uint64_t bytes, std::uint64_t size) -> Task<void> {
    const auto now = co_await fs.getattr(node);
    CO_OK(now);
    EXPECT_EQ(now->blocks, bytes / 512);
    EXPECT_EQ(now->size, size);
  };
  const AllocateMode plain;
  CO_OK(co_await fs.allocate(caller, made->handle, plain, 0, kLong));
  co_await expect_blocks(kLong, kLong);
  AllocateMode punch;
  punch.punch_hole = punch.keep_size = true;
  CO_OK(co_await fs.allocate(caller, made->handle, punch, 0, 9ull << 30));
  co_await expect_blocks(1ull << 30, kLong);
  CO_OK(co_await fs.allocate(caller, made->handle, punch, 0, kLong));
  co_await expect_blocks(0, kLong);
  AllocateMode zeros;
  zeros.zero_range = true;
  CO_OK(co_await fs.allocate(caller, made->handle, zeros, 0, kLong));
  AttributeChange size;
  size.size = kKept;
  CO_OK(co_await fs.setattr(caller, node, size));
  co_await expect_blocks(kKept, kKept);
  size.size = 0;
  CO_OK(co_await fs.setattr(caller, node, size));
  co_await expect_blocks(0, 0);
}

void on_a_mount(Task<void> (*story)(PosixFileSystem&)) {
  with_file_system([story](StoreWorld& world, Volume& volume, DatasetId dataset) -> Task<void> {
    const FileSystemOptions mounted;
    auto fs = co_await PosixFileSystem::open(world.reactor, volume, dataset, "", mounted);
    CO_OK(fs);
    co_await story(**fs);
    CO_OK(co_await (*fs)->close());
  });
}

TEST(FsSparse, longest_file_is_looked_through_at_once) { on_a_mount(far_apart); }
TEST(FsSparse, long_ways_down_are_counted_right) { on_a_mount(long_ways_down); }

}  // namespace
}  // namespace cumulus
