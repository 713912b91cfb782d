#include "blockdev/flatten.h"

#include <algorithm>

#include "blockdev/images.h"
#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"

namespace cumulus {
namespace {

constexpr std::string_view kMagic = "CFLT";
constexpr std::string_view kName = "flatten";
// Chunks in one transaction: long enough to be cheap, short enough for a guest's write behind it.
constexpr std::uint64_t kChunksInStep = 8;

Bytes mark_name() { return {kName.begin(), kName.end()}; }

View inherited_of(const DatasetInfo& info) {
  View spans = info.head;
  std::erase_if(spans, [&info](const ViewSpan& span) { return span.dataset == info.id; });
  return spans;
}

// One flattening, from where the last one stopped to the end, unless the image is set back meanwhile.
class Flattener {
 public:
  Flattener(Volume& volume, DatasetId image, const Progress& progress)
      : volume_(volume), image_(image), object_{image, kImageObject}, progress_(progress) {}

  // True: done. False: the image was set back; once more.
  Task<Result<bool>> run() {
    CO_TRY(const DatasetInfo* info, dataset());
    const View head = info->head;
    const View inherited = inherited_of(*info);
    if (inherited.empty()) co_return co_await forget_mark();
    const std::uint64_t step = kChunksInStep << info->chunk_log2;
    CO_TRY_OK(co_await load_mark());
    CO_TRY(const std::uint64_t size, co_await image_size(volume_, image_));
    if (!begun_) {
      CO_TRY(const bool noted, co_await begin());
      if (!noted) co_return false;
    }
    for (;;) {
      if (progress_ && !progress_(std::min(position_, size), size))
        co_return fail(ErrorKind::closed, "the flattening was interrupted; run it again, it goes on");
      CO_TRY(const auto next, co_await volume_.next_written(inherited, kImageObject, position_));
      if (!next || *next >= size) break;
      const std::uint64_t from = *next / step * step;
      CO_TRY(const bool stood, co_await stand(std::max(from, position_), from + step, size));
      if (!stood) co_return false;
    }
    const Status cut = co_await volume_.detach(image_, head);
    if (!cut && cut.error().kind() == ErrorKind::invalid) co_return false;
    CO_TRY_OK(cut);
    co_return co_await forget_mark();
  }

 private:
  Result<const DatasetInfo*> dataset() const { return image_info(volume_, image_); }

  Task<Status> load_mark() {
    CO_TRY(const DatasetInfo* info, dataset());
    const View head = info->head;
    Bytes name = mark_name();
    CO_TRY(mark_, co_await volume_.xattr(head, kImageObject, std::move(name)));
    begun_ = false;
    position_ = 0;
    if (!mark_) co_return Status();
    CO_TRY(const FlattenMark mark, FlattenMark::decode(*mark_));
    begun_ = mark.dataset == image_;
    if (begun_) position_ = mark.position;
    co_return Status();
  }

  // What is not bytes: the header and the attributes become the image's own.
  Task<Result<bool>> begin() {
    CO_TRY(const DatasetInfo* info, dataset());
    const View head = info->head;
    CO_TRY(const auto stat, co_await volume_.stat(head, kImageObject));
    if (!stat) co_return fail(ErrorKind::corrupt, "the image was never finished: remove it");
    CO_TRY(const auto attributes, co_await volume_.xattrs(head, kImageObject));
    Transaction transaction;
    transaction.set_header(object_, stat->header);
    for (const OmapEntry& attribute : attributes) {
      if (text_of(attribute.key) == kName) continue;
      transaction.assert_xattr(object_, attribute.key, attribute.value);
      transaction.set_xattr(object_, attribute.key, attribute.value);
    }
    co_return co_await advance(std::move(transaction), 0);
  }

  // Bytes [from, to) become the image's own.
  Task<Result<bool>> stand(std::uint64_t from, std::uint64_t to, std::uint64_t size) {
    Transaction transaction;
    const std::uint64_t end = std::min(to, size);
    transaction.assert_size(object_, end);  // else it would grow what was cut off meanwhile
    transaction.clone_range(object_, from, object_, from, end - from);
    co_return co_await advance(std::move(transaction), to);
  }

  // The mark is part of what a rollback sets back, so a mark that is as expected tells the truth.
  Task<Result<bool>> advance(Transaction transaction, std::uint64_t position) {
    const FlattenMark mark{image_, position};
    Bytes next = mark.encode();
    transaction.assert_xattr(object_, mark_name(), mark_);
    transaction.set_xattr(object_, mark_name(), next);
    const auto done = co_await volume_.commit(std::move(transaction));
    if (!done) {
      const ErrorKind kind = done.error().kind();
      const bool changed = kind == ErrorKind::exists || kind == ErrorKind::not_found;
      if (changed && volume_.find_dataset(image_) != nullptr) co_return false;
      co_return fail(done.error());
    }
    mark_ = std::move(next);
    position_ = position;
    co_return true;
  }

  Task<Result<bool>> forget_mark() {
    CO_TRY_OK(co_await load_mark());
    if (mark_) {
      Transaction transaction;
      transaction.remove_xattr(object_, mark_name());
      CO_TRY_OK(co_await volume_.commit(std::move(transaction)));
    }
    co_return true;
  }

  Volume& volume_;
  DatasetId image_;
  ObjectRef object_;
  const Progress& progress_;
  std::optional<Bytes> mark_;
  bool begun_ = false;
  std::uint64_t position_ = 0;
};

}  // namespace

Task<Status> flatten_image(Volume& volume, DatasetId image, Progress progress) {
  for (;;) {
    Flattener flattener(volume, image, progress);
    CO_TRY(const bool done, co_await flattener.run());
    if (done) co_return Status();
  }
}

std::string image_parent(const Volume& volume, DatasetId image) {
  const DatasetInfo* info = volume.find_dataset(image);
  if (info == nullptr) return {};
  const View inherited = inherited_of(*info);
  const DatasetInfo* parent = inherited.empty() ? nullptr : volume.find_dataset(inherited.front().dataset);
  if (parent == nullptr) return {};
  const auto at = std::ranges::find(parent->snapshots, inherited.front().to, &SnapshotInfo::version);
  return at == parent->snapshots.end() ? parent->name : parent->name + "@" + at->name;
}

Bytes FlattenMark::encode() const {
  Bytes bytes;
  Encoder out(bytes);
  out.bytes(view_of(kMagic));
  out.u8(1);
  out.u32(dataset);
  out.u64(position);
  return bytes;
}

Result<FlattenMark> FlattenMark::decode(ByteView bytes) {
  Decoder in(bytes);
  const Error damaged(ErrorKind::corrupt, "the image's note of its flattening is damaged");
  if (text_of(in.bytes(kMagic.size())) != kMagic || !in.ok()) return fail(damaged);
  if (in.u8() != 1) return fail(ErrorKind::unsupported, "the image is being flattened by a newer program");
  FlattenMark mark;
  mark.dataset = in.u32();
  mark.position = in.u64();
  if (!in.done()) return fail(damaged);
  return mark;
}

Task<Result<std::optional<std::uint64_t>>> flatten_position(Volume& volume, DatasetId image) {
  std::string name(kName);
  CO_TRY(const auto value, co_await noted_mark(volume, image, std::move(name)));
  if (!value) co_return std::nullopt;
  CO_TRY(const FlattenMark mark, FlattenMark::decode(*value));
  if (mark.dataset != image) co_return std::nullopt;
  co_return mark.position;
}

}  // namespace cumulus
