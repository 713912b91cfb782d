// Receiving a stream of differences: what must hold before the first change, the changes, the snapshot.
#include "blockdev/image_difference.h"
#include "blockdev/images.h"
#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"
#include "objectstore/find_snapshot.h"

namespace cumulus {
namespace {

constexpr std::string_view kMarkMagic = "CRCV";
constexpr std::string_view kMarkName = "received";

using Kind = DifferenceFrame::Kind;

Task<Result<std::optional<ReceivedMark>>> received_mark(Volume& volume, DatasetId image) {
  std::string name(kMarkName);
  CO_TRY(const auto value, co_await noted_mark(volume, image, std::move(name)));
  if (!value) co_return std::nullopt;
  CO_TRY(const ReceivedMark mark, ReceivedMark::decode(*value));
  co_return mark;
}

// The snapshot ends a reception: it begins another version of the head, and so does a rollback to it.
bool is_of_head(const ReceivedMark& mark, const DatasetInfo& info) {
  if (mark.dataset == 0) return !mark.finished && info.parent.empty();
  return mark.dataset == info.id && mark.version == info.version;
}

class Receiver {
 public:
  Receiver(Volume& volume, std::string image, DifferenceSource source, WallTime now,
           std::function<Status(DatasetId)> writing, Progress progress)
      : volume_(volume),
        image_(std::move(image)),
        source_(std::move(source)),
        now_(now),
        writing_(std::move(writing)),
        progress_(std::move(progress)) {}

  Task<Result<Received>> run() {
    CO_TRY_OK(co_await read_header());
    CO_TRY_OK(co_await choose_image());
    CO_TRY_OK(co_await set_mark(false));
    Transaction sized;
    sized.truncate(object(), header_.size);
    CO_TRY_OK(co_await volume_.commit(std::move(sized)));
    while (!reader_.ended()) {
      CO_TRY(const DifferenceFrame frame, co_await next());
      CO_TRY_OK(co_await apply(frame));
    }
    CO_TRY_OK(co_await finish());
    co_return Received{header_.end.name, bytes_};
  }

 private:
  ObjectRef object() const { return {dataset_, kImageObject}; }

  Task<Status> fill(MutableByteView into) {
    CO_TRY(const std::size_t got, co_await source_(into));
    if (got != into.size())
      co_return fail(ErrorKind::corrupt, "the stream of differences ends too early: export it again");
    co_return Status();
  }

  Task<Result<DifferenceFrame>> next() {
    std::array<std::uint8_t, kDifferenceLength> length{};
    CO_TRY_OK(co_await fill(length));
    CO_TRY(const std::size_t size, reader_.frame_size(length));
    frame_.resize(size);
    CO_TRY_OK(co_await fill(frame_));
    co_return reader_.accept(frame_);
  }

  Task<Status> read_header() {
    std::array<std::uint8_t, kDifferencePreamble> preamble{};
    CO_TRY_OK(co_await fill(preamble));
    CO_TRY_OK(reader_.begin(preamble));
    CO_TRY(DifferenceFrame first, co_await next());
    header_ = std::move(first.header);
    co_return Status();
  }

  // The image that the difference belongs onto, as it was at the base, held against other writers.
  Task<Status> choose_image() {
    const auto found = find_image(volume_, image_);
    if (!found && found.error().kind() != ErrorKind::not_found) co_return fail(found.error());
    if (!found && header_.base)
      co_return fail(ErrorKind::not_found,
                     format("there is no image '{}' to put the difference since '{}' onto: import the whole "
                            "of '{}' first",
                            image_, header_.base->name, header_.base->name));
    if (!found) co_return co_await make_image();
    dataset_ = *found;
    CO_TRY_OK(writing_(dataset_));
    CO_TRY(auto mark, co_await received_mark(volume_, dataset_));
    CO_TRY(const DatasetInfo* info, image_info(volume_, dataset_));
    if (find_snapshot(*info, header_.end.name) != nullptr)
      co_return fail(ErrorKind::exists, format("'{}' has a snapshot '{}' already", image_, header_.end.name));
    const bool again = mark && interrupted(*mark, *info);
    if (header_.base) {
      if (again && find_snapshot(*info, header_.base->name) != nullptr) {
        CO_TRY_OK(co_await volume_.rollback(dataset_, header_.base->name));
        CO_TRY(mark, co_await received_mark(volume_, dataset_));
      }
      co_return co_await check_base(std::move(mark));
    }
    if (!again || !info->snapshots.empty())
      co_return fail(ErrorKind::exists,
                     format("there is an image '{}' already: a whole disk goes into a new one", image_));
    CO_TRY_OK(co_await volume_.remove_dataset(dataset_));
    co_return co_await make_image();
  }

  bool interrupted(const ReceivedMark& mark, const DatasetInfo& info) const {
    return mark.end == header_.end && is_of_head(mark, info);
  }
  bool is_base(const ReceivedMark& mark, const SnapshotInfo& own) const {
    if (!mark.finished || mark.end != *header_.base) return false;
    return mark.dataset == 0 || (mark.dataset == dataset_ && mark.version == own.version);
  }

  Task<Status> make_image() {
    CO_TRY(dataset_, co_await create_image(volume_, image_, header_.size, now_));
    co_return writing_(dataset_);
  }

  Task<Status> check_base(std::optional<ReceivedMark> mark) {
    CO_TRY(const DatasetInfo* info, image_info(volume_, dataset_));
    const View head = info->head;
    const SnapshotInfo* own = find_snapshot(*info, header_.base->name);
    const bool has_own = own != nullptr;
    View kept;
    if (has_own) kept = own->view;
    View base = kept;
    if (!has_own || !mark || !is_base(*mark, *own)) {
      CO_TRY(base, co_await origin_view());
      if (base.empty())
        co_return fail(ErrorKind::invalid, format("'{}' never was '{}', which the difference was made from",
                                                  image_, header_.base->name));
    }
    CO_TRY(bool written, co_await views_differ(volume_, std::move(base), head));
    if (!written && has_own) {
      CO_TRY(written, co_await views_differ(volume_, std::move(kept), head));
    }
    if (written)
      co_return fail(ErrorKind::invalid,
                     format("'{}' is not what '{}' was, which the difference was made from: roll it back to "
                            "that first",
                            image_, header_.base->name));
    if (has_own) co_return Status();
    // What an interrupted reception goes back to.
    std::vector<Volume::SnapshotTarget> targets;
    targets.push_back({dataset_, header_.base->name});
    co_return co_await volume_.create_snapshots(std::move(targets));
  }

  // The base itself when it is in this volume; empty otherwise.
  Task<Result<View>> origin_view() {
    CO_TRY(const VolumeStatus status, co_await volume_.status(false));
    const DatasetInfo* origin = volume_.find_dataset(header_.base->dataset);
    if (status.id != header_.base->volume || origin == nullptr) co_return View();
    const SnapshotInfo* at = find_snapshot(*origin, header_.base->name);
    if (at == nullptr || at->version != header_.base->version) co_return View();
    co_return at->view;
  }

  Task<Status> apply(const DifferenceFrame& frame) {
    if (frame.kind == Kind::end) co_return Status();
    Transaction change;
    if (frame.kind == Kind::data) change.write(object(), frame.offset, frame.data);
    if (frame.kind == Kind::zero) change.zero(object(), frame.offset, frame.length, false, false);
    CO_TRY_OK(co_await volume_.commit(std::move(change)));
    if (frame.kind == Kind::data) bytes_ += frame.length;
    if (progress_ && !progress_(frame.offset + frame.length, header_.size))
      co_return fail(ErrorKind::closed, "interrupted");
    co_return Status();
  }

  // The mark first, so that the snapshot has it: whoever rolls back to it is there where it says.
  Task<Status> finish() {
    for (;;) {
      CO_TRY(const Version marked, co_await set_mark(true));
      std::vector<Volume::SnapshotTarget> targets;
      targets.push_back({dataset_, header_.end.name});
      CO_TRY_OK(co_await volume_.create_snapshots(std::move(targets)));
      CO_TRY(const DatasetInfo* info, image_info(volume_, dataset_));
      const SnapshotInfo* made = find_snapshot(*info, header_.end.name);
      if (made == nullptr || made->version == marked) break;
      // Somebody else's snapshot came between: the mark speaks of that.
      CO_TRY_OK(co_await volume_.remove_snapshot(dataset_, header_.end.name));
    }
    co_return co_await volume_.flush();
  }

  Task<Result<Version>> set_mark(bool finished) {
    CO_TRY(const DatasetInfo* info, image_info(volume_, dataset_));
    const ReceivedMark mark{finished, dataset_, info->version, header_.end};
    Transaction change;
    change.set_xattr(object(), Bytes(kMarkName.begin(), kMarkName.end()), mark.encode());
    CO_TRY_OK(co_await volume_.commit(std::move(change)));
    co_return mark.version;
  }

  Volume& volume_;
  std::string image_;
  DifferenceSource source_;
  WallTime now_;
  std::function<Status(DatasetId)> writing_;
  Progress progress_;
  DatasetId dataset_ = 0;
  DifferenceReader reader_;
  DifferenceHeader header_;
  Bytes frame_;
  std::uint64_t bytes_ = 0;
};

}  // namespace

Task<Result<std::string>> unfinished_reception(Volume& volume, DatasetId image) {
  CO_TRY(const auto mark, co_await received_mark(volume, image));
  CO_TRY(const DatasetInfo* info, image_info(volume, image));
  const bool unfinished = mark && !mark->finished && is_of_head(*mark, *info);
  co_return unfinished ? mark->end.name : std::string();
}

Bytes ReceivedMark::encode() const {
  Bytes bytes;
  Encoder out(bytes);
  out.bytes(view_of(kMarkMagic));
  out.u8(2);
  out.u8(finished ? 1 : 0);
  out.u32(dataset);
  out.u64(version);
  out.bytes(encode_identity(end));
  return bytes;
}

Result<ReceivedMark> ReceivedMark::decode(ByteView bytes) {
  Decoder in(bytes);
  const auto damaged = [] {
    return fail(ErrorKind::corrupt, "the image's note of what it received is damaged: remove the image");
  };
  if (text_of(in.bytes(kMarkMagic.size())) != kMarkMagic || !in.ok()) return damaged();
  const std::uint8_t format = in.u8();
  if (!in.ok() || format == 0) return damaged();
  if (format > 2) return fail(ErrorKind::unsupported, "the image received something by a newer program");
  const std::uint8_t finished = in.u8();
  ReceivedMark mark;
  mark.finished = finished == 1;
  if (format == 2) {
    mark.dataset = in.u32();
    mark.version = in.u64();
  }
  if (!in.ok() || finished > 1 || (format == 2 && mark.dataset == 0)) return damaged();
  TRY(mark.end, decode_identity(in.bytes(in.remaining())));
  return mark;
}

Task<Result<Received>> receive_difference(Volume& volume, std::string image, DifferenceSource source,
                                          WallTime now, std::function<Status(DatasetId)> writing,
                                          Progress progress) {
  Receiver receiver(volume, std::move(image), std::move(source), now, std::move(writing),
                    std::move(progress));
  co_return co_await receiver.run();
}

}  // namespace cumulus
