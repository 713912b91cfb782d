#include "blockdev/block_device.h"

#include <algorithm>

#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/find_snapshot.h"

namespace cumulus {
namespace {

BlockFault fault_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::no_space:
      return BlockFault::no_space;
    case ErrorKind::fenced:
    case ErrorKind::denied:
      return BlockFault::read_only;
    case ErrorKind::unavailable:
      return BlockFault::unavailable;
    case ErrorKind::closed:
      return BlockFault::closed;
    case ErrorKind::not_found:
    case ErrorKind::exists:
    case ErrorKind::corrupt:
    case ErrorKind::invalid:
    case ErrorKind::unsupported:
    case ErrorKind::io:
      return BlockFault::bad_data;
  }
  return BlockFault::bad_data;
}

}  // namespace

BlockDevice::BlockDevice(Volume& volume, DatasetId dataset, View view, bool read_only, bool is_head)
    : volume_(volume), dataset_(dataset), view_(std::move(view)), read_only_(read_only), is_head_(is_head) {}

Task<Result<std::shared_ptr<BlockDevice>>> BlockDevice::open(Volume& volume, std::string image,
                                                             std::string snapshot, bool read_only) {
  const DatasetInfo* info = volume.find_dataset(image);
  if (info == nullptr) co_return fail(ErrorKind::not_found, format("there is no image '{}'", image));
  if (info->type != DatasetType::image)
    co_return fail(ErrorKind::invalid, format("'{}' is not an image", image));
  View view = info->head;
  if (!snapshot.empty()) {
    const SnapshotInfo* at = find_snapshot(*info, snapshot);
    if (at == nullptr)
      co_return fail(ErrorKind::not_found, format("'{}' has no snapshot '{}'", image, snapshot));
    view = at->view;
  }
  const bool head = snapshot.empty();
  std::shared_ptr<BlockDevice> device(
      new BlockDevice(volume, info->id, std::move(view), read_only || !head, head));
  CO_TRY_OK(co_await device->refresh());
  co_return device;
}

Task<Status> BlockDevice::refresh() {
  if (const DatasetInfo* info = volume_.find_dataset(dataset_); is_head_ && info != nullptr)
    view_ = info->head;  // a flattened image stands on its own
  CO_TRY(const auto stat, co_await volume_.stat(view_, kImageObject));
  if (!stat)
    co_return fail(ErrorKind::not_found,
                   "the image has no data object: its making was interrupted; remove it and make it again");
  CO_TRY(header_, ImageHeader::decode(stat->header));
  size_ = stat->size;
  co_return Status();
}

BlockFault BlockDevice::note(const Error& error, const char* what) const {
  log_warn("image {}: {}: {}", dataset_, what, error.message());
  return fault_of(error.kind());
}

bool BlockDevice::try_read(std::uint64_t offset, MutableByteView into) {
  Result<std::size_t> answer = std::size_t{0};
  return volume_.try_read(view_, kImageObject, offset, into, answer) && answer && *answer == into.size();
}

Task<BlockStatus> BlockDevice::read(std::uint64_t offset, MutableByteView into) {
  if (!contains(offset, into.size())) co_return std::unexpected(BlockFault::beyond_end);
  const auto got = co_await volume_.read(view_, kImageObject, offset, into, Warming::all);
  if (!got) co_return std::unexpected(note(got.error(), "read"));
  if (*got != into.size()) co_return std::unexpected(BlockFault::beyond_end);
  co_return BlockStatus();
}

BlockStatus BlockDevice::add_write(BlockBatch& batch, std::uint64_t offset, ByteView data,
                                   std::shared_ptr<const void> owner) {
  if (read_only_) return std::unexpected(BlockFault::read_only);
  if (!contains(offset, data.size())) return std::unexpected(BlockFault::beyond_end);
  batch.transaction_.write_shared({dataset_, kImageObject}, offset, data, std::move(owner));
  ++batch.requests_;
  batch.data_bytes_ += data.size();
  return {};
}

BlockStatus BlockDevice::add_zero(BlockBatch& batch, std::uint64_t offset, std::uint64_t length,
                                  bool allocated) {
  if (read_only_) return std::unexpected(BlockFault::read_only);
  if (!contains(offset, length)) return std::unexpected(BlockFault::beyond_end);
  if (length != 0) batch.transaction_.zero({dataset_, kImageObject}, offset, length, allocated, false);
  ++batch.requests_;
  return {};
}

Task<BlockResult<Commit>> BlockDevice::commit(BlockBatch batch) {
  const auto done = co_await volume_.commit(std::move(batch.transaction_));
  if (!done) co_return std::unexpected(note(done.error(), "write"));
  co_return *done;
}

Task<BlockStatus> BlockDevice::flush() {
  const Status done = co_await volume_.flush();
  if (!done) co_return std::unexpected(note(done.error(), "flush"));
  co_return BlockStatus();
}

Task<BlockStatus> BlockDevice::make_durable(Commit commit) {
  const Status done = co_await volume_.wait(commit);
  if (!done) co_return std::unexpected(note(done.error(), "flush"));
  co_return BlockStatus();
}

Task<BlockStatus> BlockDevice::make_written(Commit commit) {
  const Status done = co_await volume_.wait(commit, Durability::accepted);
  if (!done) co_return std::unexpected(note(done.error(), "write"));
  co_return BlockStatus();
}

Task<BlockStatus> BlockDevice::prefetch(std::uint64_t offset, std::uint64_t length) {
  if (!contains(offset, length)) co_return std::unexpected(BlockFault::beyond_end);
  const std::uint64_t end = offset + std::min(length, kPrefetchMax);
  Buffer scratch(std::min<std::uint64_t>(1u << 20, std::max<std::uint64_t>(end - offset, 1)));
  for (std::uint64_t at = offset; at < end; at += scratch.size()) {
    const MutableByteView part = scratch.view(0, std::min<std::uint64_t>(scratch.size(), end - at));
    const BlockStatus done = co_await read(at, part);
    if (!done) co_return done;
  }
  co_return BlockStatus();
}

Task<BlockResult<std::vector<BlockDevice::Extent>>> BlockDevice::extents(std::uint64_t offset,
                                                                         std::uint64_t length) {
  if (!contains(offset, length)) co_return std::unexpected(BlockFault::beyond_end);
  const auto found = co_await volume_.stretches(view_, kImageObject, offset, std::min(length, kExtentWindow));
  if (!found) co_return std::unexpected(note(found.error(), "look at what is allocated"));
  std::vector<Extent> all;
  for (const Volume::Stretch& stretch : *found) {
    const Allocation kind = stretch.kind == Volume::Stretch::Kind::data   ? Allocation::data
                            : stretch.kind == Volume::Stretch::Kind::zero ? Allocation::zero
                                                                          : Allocation::hole;
    if (all.empty() || all.back().kind != kind) {
      all.push_back({stretch.length, kind});
    } else {
      all.back().length += stretch.length;
    }
  }
  co_return all;
}

Task<BlockResult<std::vector<BlockDevice::Changed>>> BlockDevice::changed_since(std::string snapshot,
                                                                                std::uint64_t offset,
                                                                                std::uint64_t length) {
  if (!contains(offset, length)) co_return std::unexpected(BlockFault::beyond_end);
  const DatasetInfo* info = volume_.find_dataset(dataset_);
  const SnapshotInfo* at = info == nullptr ? nullptr : find_snapshot(*info, snapshot);
  if (at == nullptr) co_return std::unexpected(BlockFault::bad_data);
  const std::uint64_t end = offset + std::min(length, kExtentWindow);
  View older = at->view;
  const auto ranges =
      co_await volume_.diff_ranges(std::move(older), view_, kImageObject, offset, end - offset);
  if (!ranges) co_return std::unexpected(note(ranges.error(), "compare with a snapshot"));
  std::vector<Changed> all;
  std::uint64_t done = offset;
  const auto upto = [&](std::uint64_t to, bool changed) {
    if (to <= done) return;
    if (!all.empty() && all.back().changed == changed) {
      all.back().length += to - done;
    } else {
      all.push_back({to - done, changed});
    }
    done = to;
  };
  for (const Volume::Range& range : *ranges) {
    upto(std::min(std::max(range.offset, offset), end), false);
    upto(std::min(range.offset + range.length, end), true);
  }
  upto(end, false);
  co_return all;
}

std::vector<std::string> BlockDevice::snapshots() const {
  std::vector<std::string> names;
  if (const DatasetInfo* info = volume_.find_dataset(dataset_))
    for (const SnapshotInfo& snapshot : info->snapshots) names.push_back(snapshot.name);
  return names;
}

}  // namespace cumulus
