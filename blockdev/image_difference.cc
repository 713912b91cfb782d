#include "blockdev/image_difference.h"

#include <algorithm>

#include "blockdev/images.h"
#include "objectstore/base/format.h"
#include "objectstore/find_snapshot.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kWindow = 64u << 20;  // looked at in one step

struct Side {
  View view;
  std::uint64_t size = 0;
  SnapshotIdentity identity;
};

Result<const SnapshotInfo*> snapshot_at(const DatasetInfo& info, const ImageInstant& instant) {
  const SnapshotInfo* at = find_snapshot(info, instant.snapshot);
  if (at == nullptr)
    return fail(ErrorKind::not_found,
                format("image '{}' has no snapshot '{}'", instant.image, instant.snapshot));
  return at;
}

Task<Result<Side>> side_of(Volume& volume, ImageInstant instant) {
  CO_TRY(const DatasetId id, find_image(volume, instant.image));
  const DatasetInfo* info = volume.find_dataset(id);
  Side side;
  side.view = info->head;
  if (!instant.snapshot.empty()) {
    CO_TRY(const SnapshotInfo* at, snapshot_at(*info, instant));
    side.view = at->view;
    side.identity = {{}, id, at->version, at->created_at, at->name};
  }
  const View view = side.view;
  CO_TRY(const auto stat, co_await volume.stat(view, kImageObject));
  if (!stat) co_return fail(ErrorKind::corrupt, format("image '{}' was never finished", instant.image));
  side.size = stat->size;
  co_return side;
}

// The first offset at or behind `from` where either has anything; `end` when nothing is left.
Task<Result<std::uint64_t>> next_of_either(Volume& volume, View one, View other, std::uint64_t from,
                                           std::uint64_t end) {
  CO_TRY(const auto b, co_await volume.next_written(std::move(other), kImageObject, from));
  if (one.empty()) co_return std::min(b.value_or(end), end);
  CO_TRY(const auto a, co_await volume.next_written(std::move(one), kImageObject, from));
  co_return std::min({a.value_or(end), b.value_or(end), end});
}

// What differs from nothing: data. `older` and `newer` otherwise.
Task<Result<std::vector<Volume::Range>>> ranges_between(Volume& volume, View older, View newer,
                                                        std::uint64_t from, std::uint64_t length) {
  if (!older.empty())
    co_return co_await volume.diff_ranges(std::move(older), std::move(newer), kImageObject, from, length);
  CO_TRY(const auto stretches, co_await volume.stretches(std::move(newer), kImageObject, from, length));
  std::vector<Volume::Range> ranges;
  for (const Volume::Stretch& stretch : stretches)
    if (stretch.kind == Volume::Stretch::Kind::data) ranges.push_back({stretch.offset, stretch.length});
  co_return ranges;
}

// `older` empty: from nothing.
Task<Result<DifferencePage>> page_between(Volume& volume, View older, View newer, std::uint64_t from,
                                          std::uint64_t end, std::size_t limit) {
  DifferencePage page;
  page.size = end;
  page.reached = from;
  while (page.reached < end && page.ranges.size() < limit) {
    CO_TRY(const std::uint64_t at, co_await next_of_either(volume, older, newer, page.reached, end));
    page.reached = at;
    if (at == end) break;
    const std::uint64_t length = std::min(kWindow, end - at);
    CO_TRY(auto ranges, co_await ranges_between(volume, older, newer, at, length));
    page.reached = at + length;
    for (Volume::Range& range : ranges) {
      const std::uint64_t until = std::min(range.offset + range.length, end);
      if (range.offset >= until) continue;
      if (page.ranges.size() == limit) {
        page.reached = range.offset;
        break;
      }
      range.length = until - range.offset;
      if (!page.ranges.empty() && page.ranges.back().offset + page.ranges.back().length == range.offset) {
        page.ranges.back().length += range.length;
      } else {
        page.ranges.push_back(range);
      }
    }
  }
  co_return page;
}

Task<Result<VolumeId>> volume_id(Volume& volume) {
  CO_TRY(const VolumeStatus status, co_await volume.status(false));
  co_return status.id;
}

// --- sending ---

class Sender {
 public:
  Sender(Volume& volume, Side end, DifferenceSink sink)
      : volume_(volume), end_(std::move(end)), sink_(std::move(sink)), buffer_(kDifferenceData) {}

  Task<Status> begin(DifferenceHeader header) {
    writer_.begin(out_, header);
    co_return co_await put();
  }
  Task<Status> range(Volume::Range range) {
    CO_TRY(const auto stretches,
           co_await volume_.stretches(end_.view, kImageObject, range.offset, range.length));
    for (const Volume::Stretch& stretch : stretches) {
      if (stretch.kind == Volume::Stretch::Kind::data) {
        CO_TRY_OK(co_await data(stretch.offset, stretch.length));
        continue;
      }
      writer_.zero(out_, stretch.offset, stretch.length);
      CO_TRY_OK(co_await put());
    }
    co_return Status();
  }
  Task<Status> end() {
    writer_.end(out_);
    co_return co_await put();
  }
  std::uint64_t sent() const { return sent_; }

 private:
  Task<Status> data(std::uint64_t offset, std::uint64_t length) {
    for (std::uint64_t done = 0; done < length;) {
      const MutableByteView piece = buffer_.view(0, std::min<std::uint64_t>(buffer_.size(), length - done));
      CO_TRY(const std::size_t got, co_await volume_.read(end_.view, kImageObject, offset + done, piece));
      if (got != piece.size()) co_return fail(ErrorKind::corrupt, "the image is shorter than it says");
      writer_.data(out_, offset + done, piece);
      CO_TRY_OK(co_await put());
      done += got;
      sent_ += got;
    }
    co_return Status();
  }
  Task<Status> put() {
    const Status done = co_await sink_(out_);
    out_.clear();
    co_return done;
  }

  Volume& volume_;
  Side end_;
  DifferenceSink sink_;
  Buffer buffer_;
  Bytes out_;
  DifferenceWriter writer_;
  std::uint64_t sent_ = 0;
};

}  // namespace

Task<Result<DifferencePage>> difference_page(Volume& volume, ImageInstant older, ImageInstant newer,
                                             std::uint64_t from, std::size_t limit) {
  CO_TRY(Side a, co_await side_of(volume, std::move(older)));
  CO_TRY(Side b, co_await side_of(volume, std::move(newer)));
  const std::uint64_t end = std::max(a.size, b.size);
  co_return co_await page_between(volume, std::move(a.view), std::move(b.view), from, end, limit);
}

Task<Result<SnapshotIdentity>> snapshot_identity(Volume& volume, ImageInstant instant) {
  CO_TRY(const VolumeId id, co_await volume_id(volume));
  CO_TRY(const DatasetId image, find_image(volume, instant.image));
  CO_TRY(const SnapshotInfo* at, snapshot_at(*volume.find_dataset(image), instant));
  co_return SnapshotIdentity{id, image, at->version, at->created_at, at->name};
}

Task<Result<bool>> views_differ(Volume& volume, View one, View other) {
  CO_TRY(const auto a, co_await volume.stat(one, kImageObject));
  CO_TRY(const auto b, co_await volume.stat(other, kImageObject));
  if (!a || !b || a->size != b->size) co_return true;
  const std::uint64_t size = a->size;
  CO_TRY(const DifferencePage page,
         co_await page_between(volume, std::move(one), std::move(other), 0, size, 1));
  co_return !page.ranges.empty();
}

Task<Result<std::uint64_t>> send_difference(Volume& volume, std::optional<ImageInstant> base,
                                            ImageInstant end, DifferenceSink sink, Progress progress) {
  if (end.snapshot.empty() || (base && base->snapshot.empty()))
    co_return fail(ErrorKind::invalid, "a difference is between snapshots, which never change: take one");
  DifferenceHeader header;
  View older;
  CO_TRY(Side newer, co_await side_of(volume, std::move(end)));
  CO_TRY(const VolumeId id, co_await volume_id(volume));
  if (base) {
    CO_TRY(Side side, co_await side_of(volume, std::move(*base)));
    if (side.identity == newer.identity)
      co_return fail(ErrorKind::invalid, "both names are of the same snapshot: there is no difference");
    header.base = side.identity;
    header.base->volume = id;
    older = std::move(side.view);
  }
  header.end = newer.identity;
  header.end.volume = id;
  header.size = newer.size;
  const View view = newer.view;
  const std::uint64_t size = newer.size;
  Sender sender(volume, std::move(newer), std::move(sink));
  CO_TRY_OK(co_await sender.begin(std::move(header)));
  for (std::uint64_t at = 0; at < size;) {
    CO_TRY(const DifferencePage page, co_await page_between(volume, older, view, at, size, 1024));
    for (const Volume::Range& range : page.ranges) {
      CO_TRY_OK(co_await sender.range(range));
      if (progress && !progress(range.offset + range.length, size))
        co_return fail(ErrorKind::closed, "interrupted");
    }
    at = page.reached;
  }
  CO_TRY_OK(co_await sender.end());
  co_return sender.sent();
}

}  // namespace cumulus
