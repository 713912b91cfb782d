#include "objectstore/store/reader.h"

#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"

namespace cumulus {
namespace {

constexpr std::uint32_t kAheadMax = 3;  // whole segments being fetched ahead at once
constexpr std::size_t kStreamsMax = 64;
constexpr std::uint32_t kStreakToPrefetch = 2;
constexpr std::uint64_t kAheadBytes = 16u << 20;
constexpr std::uint32_t kWholeFrom = 256u << 10;   // a read of this much of a segment fetches all of it
constexpr std::uint32_t kOffloadFrom = 96u << 10;  // opening this much is worth waking a worker
constexpr std::uint32_t kWarmMax = 96u << 10;      // of what Warming::small keeps
constexpr std::uint32_t kCacheGranule = 64u << 10;
constexpr std::size_t kPiecesATurn = 64;  // of one read, before the others on the reactor run
constexpr int kRelocationTries = 3;

}  // namespace

// The cells of a run that plain bytes [skip, skip + length) touch, and where they lie in the segment.
struct CellReader::Cells {
  Run run;
  std::uint32_t skip = 0;
  std::uint32_t length = 0;
  std::uint32_t first = 0;
  std::uint32_t count = 0;
  std::uint32_t sealed_offset = 0;  // in the segment
  std::uint32_t sealed_length = 0;

  Cells(const Run& of, std::uint32_t from, std::uint32_t bytes) : run(of), skip(from), length(bytes) {
    CHECK(bytes > 0 && from <= of.plain_length && bytes <= of.plain_length - from);
    const std::uint32_t stride = run.cell_size() + kTagSize;
    first = skip >> run.cell_log2;
    count = ((skip + length - 1) >> run.cell_log2) - first + 1;
    sealed_offset = run.base + first * stride;
    sealed_length = std::min(count * stride, run.sealed_length() - first * stride);
  }

  std::uint32_t plain_before() const { return first << run.cell_log2; }
  std::uint32_t plain_after() const {
    return std::min(plain_before() + (count << run.cell_log2), run.plain_length);
  }

  // Opens the cells from their sealed bytes. False when one does not verify; `into` is then undefined.
  bool open(const AeadKey& key, ByteView sealed, MutableByteView into) const {
    const std::uint32_t cell = run.cell_size();
    if (skip == plain_before() && skip + length == plain_after())
      return key.open_cells(run.nonce, sealed_offset, cell, sealed, into);
    // Partial cells at the ends go through a scratch buffer; whole ones straight to their place.
    thread_local Bytes scratch;
    std::uint32_t plain_at = plain_before();
    for (std::uint32_t i = 0, at = 0; i < count; ++i) {
      const std::uint32_t plain = std::min(cell, run.plain_length - plain_at);
      const ByteView one = sealed.subspan(at, plain + kTagSize);
      const std::uint32_t from = std::max(plain_at, skip);
      const std::uint32_t to = std::min(plain_at + plain, skip + length);
      const MutableByteView target = into.subspan(from - skip, to - from);
      if (target.size() == plain) {
        if (!key.open_cells(run.nonce, sealed_offset + at, cell, one, target)) return false;
      } else {
        scratch.resize(plain);
        if (!key.open_cells(run.nonce, sealed_offset + at, cell, one, scratch)) return false;
        copy_bytes(ByteView(scratch).subspan(from - plain_at, to - from), target.data());
      }
      at += plain + kTagSize;
      plain_at += plain;
    }
    return true;
  }
};

CellReader::CellReader(Runtime& runtime, LogWriter& log, SlotStore& slots, Index& index,
                       SliceFetcher& fetcher, SegmentKeys& keys, const MemoryShares& memory, Metrics& metrics)
    : runtime_(runtime),
      log_(log),
      slots_(slots),
      index_(index),
      fetcher_(fetcher),
      keys_(keys),
      cache_hits_(metrics.counter("cumulus_cache_hits_total")),
      cache_misses_(metrics.counter("cumulus_cache_misses_total")),
      cache_rot_(metrics.counter("cumulus_cache_rot_total")),
      recent_max_(memory.segments_recent),
      fetching_max_(memory.segments_fetched),
      fetching_room_(runtime),
      tasks_(runtime) {}

CellReader::~CellReader() = default;

Task<void> CellReader::close() {
  closing_ = true;
  fetching_room_.notify_all();
  co_await tasks_.join();
  recent_.clear();
}

const CellReader::Whole* CellReader::recent(const SegmentId& segment) {
  const auto found = std::ranges::find(recent_, segment, &Whole::segment);
  if (found == recent_.end()) return nullptr;
  recent_.splice(recent_.begin(), recent_, found);
  return &recent_.front();
}

void CellReader::remember(Whole whole) {
  recent_.push_front(std::move(whole));
  std::uint64_t held = 0;
  for (const Whole& kept : recent_) held += kept.bytes->size();
  while (held > recent_max_ && recent_.size() > 1) {
    held -= recent_.back().bytes->size();
    recent_.pop_back();
  }
}

bool CellReader::try_read(const Run& run, std::uint32_t skip, MutableByteView into) {
  if (into.size() >= kOffloadFrom) return false;
  const Cells cells(run, skip, static_cast<std::uint32_t>(into.size()));
  if (const auto memory = log_.memory_of(run.segment)) {
    const auto header = log_.header_of(run.segment);
    if (!header) return false;
    const auto key = keys_.key(run.segment, header->salt);
    return cells.open(*key, memory->view(cells.sealed_offset, cells.sealed_length), into);
  }
  if (const Whole* whole = recent(run.segment)) {
    const auto key = keys_.key(run.segment, whole->salt);
    return cells.open(*key, whole->bytes->view(cells.sealed_offset, cells.sealed_length), into);
  }
  const auto key = keys_.kept(run.segment);
  if (!key) return false;
  thread_local Bytes sealed;
  sealed.resize(cells.sealed_length);
  // What does not open here says nothing yet: read() looks at the disk itself.
  if (!slots_.try_read(run.segment, cells.sealed_offset, sealed) || !cells.open(*key, sealed, into))
    return false;
  cache_hits_.add();
  return true;
}

Task<bool> CellReader::open_cells(const SegmentId& segment, std::array<std::uint8_t, 16> salt, Cells cells,
                                  ByteView sealed, [[maybe_unused]] std::shared_ptr<const void> owner,
                                  MutableByteView into) {
  const auto key = keys_.key(segment, salt);
  if (cells.length < kOffloadFrom) co_return cells.open(*key, sealed, into);
  co_return co_await runtime_.offload([&] { return cells.open(*key, sealed, into); });
}

Task<Status> CellReader::read(Run run, std::uint32_t skip, MutableByteView into, Warming warming,
                              std::optional<Duration> patience) {
  const Cells cells(run, skip, static_cast<std::uint32_t>(into.size()));
  if (const auto memory = log_.memory_of(run.segment)) {
    const auto header = log_.header_of(run.segment);
    CHECK(header.has_value());
    const bool good =
        co_await open_cells(run.segment, header->salt, cells,
                            memory->view(cells.sealed_offset, cells.sealed_length), memory, into);
    if (!good) co_return fail(ErrorKind::corrupt, "a cell in this machine's memory does not verify");
    co_return Status();
  }
  if (const Whole* whole = recent(run.segment)) {
    const auto bytes = whole->bytes;
    const auto salt = whole->salt;
    if (co_await open_cells(run.segment, salt, cells, bytes->view(cells.sealed_offset, cells.sealed_length),
                            bytes, into))
      co_return Status();
    recent_.remove_if([&](const Whole& bad) { return bad.segment == run.segment; });
  }
  CO_TRY(const auto placed, co_await index_.placed(run.segment));
  CO_TRY(const bool cached, co_await read_cached(cells, placed, warming, into));
  if (cached) co_return Status();
  if (!placed)
    co_return fail(ErrorKind::not_found, format("segment {}/{} is neither here nor on the miners",
                                                run.segment.epoch, run.segment.sequence));
  co_return co_await read_remote(placed->placed, cells, into, patience);
}

// From the local segment files. A bad cell there is a miss when the miners have the segment, else an alarm.
Task<Result<bool>> CellReader::read_cached(Cells cells, const std::optional<PlacedSegment>& placed,
                                           Warming warming, MutableByteView into) {
  const SegmentId segment = cells.run.segment;
  auto handle = slots_.lookup(segment, cells.sealed_offset, cells.sealed_length);
  if (!handle) {
    cache_misses_.add();
    co_return false;
  }
  std::array<std::uint8_t, 16> salt{};
  Status local;  // the disk's own error, if it has one
  if (placed) {
    salt = placed->placed.salt;
  } else {
    const auto header = co_await slots_.read_header(segment);
    if (header)
      salt = header->salt;
    else
      local = fail(header.error());
  }
  if (local && (warming == Warming::all || cells.sealed_length <= kWarmMax)) {
    const auto warm = co_await handle->read_warm(cells.sealed_offset, cells.sealed_length);
    if (warm && co_await open_cells(segment, salt, cells, warm->bytes, warm->owner, into)) {
      cache_hits_.add();
      co_return true;
    }
  }
  if (local) {
    const auto got = co_await handle->read(cells.sealed_offset, cells.sealed_length);
    if (got && co_await open_cells(segment, salt, cells, got->bytes, got->owner, into)) {
      cache_hits_.add();
      co_return true;
    }
    if (!got) local = fail(got.error());
  }
  cache_rot_.add();
  if (!placed) {
    // A disk that fails to read may succeed at the next attempt: its error is no verdict on the data.
    if (!local && local.error().kind() != ErrorKind::corrupt) co_return fail(local.error());
    const std::string what =
        format("segment {}/{} is damaged on the local disk and has not reached the miners", segment.epoch,
               segment.sequence);
    log_error("{}", what);
    co_return fail(ErrorKind::corrupt, what);
  }
  handle.reset();
  slots_.forget(segment);
  co_return false;
}

Task<Status> CellReader::read_remote(change::Placed placed, Cells cells, MutableByteView into,
                                     std::optional<Duration> patience) {
  if (cells.sealed_length >= kWholeFrom) {
    // Twice: a whole segment may leave memory again before this task runs.
    for (int attempt = 0; attempt < 2; ++attempt) {
      CO_TRY_OK(
          co_await fetch_whole(placed, attempt == 0 ? FetchTrust::plain : FetchTrust::proven, patience));
      const Whole* whole = recent(placed.segment);
      if (whole == nullptr) continue;
      const auto bytes = whole->bytes;
      if (co_await open_cells(placed.segment, placed.salt, cells,
                              bytes->view(cells.sealed_offset, cells.sealed_length), bytes, into))
        co_return Status();
      recent_.remove_if([&](const Whole& bad) { return bad.segment == placed.segment; });
      slots_.forget(placed.segment);
    }
  }
  const std::uint32_t low = cells.sealed_offset / kCacheGranule * kCacheGranule;
  const std::uint32_t high =
      std::min(placed.length, (cells.sealed_offset + cells.sealed_length + kCacheGranule - 1) /
                                  kCacheGranule * kCacheGranule);
  for (const FetchTrust trust : {FetchTrust::plain, FetchTrust::proven}) {
    auto fetched = co_await fetcher_.fetch(placed, low, high - low, trust, patience);
    CO_TRY_OK(fetched);
    const ByteView sealed = fetched->bytes.subspan(cells.sealed_offset - low, cells.sealed_length);
    if (!co_await open_cells(placed.segment, placed.salt, cells, sealed, fetched->owner, into)) continue;
    co_await slots_.admit_range(placed.segment, low, fetched->owner, fetched->bytes);
    co_return Status();
  }
  co_return fail(ErrorKind::corrupt,
                 format("segment {}/{}: cells at {} do not verify although their slices do",
                        placed.segment.epoch, placed.segment.sequence, cells.sealed_offset));
}

// One fetch of a whole segment at a time; others who want it wait for the same one.
Task<Status> CellReader::fetch_whole(change::Placed placed, FetchTrust trust,
                                     std::optional<Duration> patience) {
  if (const auto found = fetching_.find(placed.segment); found != fetching_.end()) {
    const auto shared = found->second;
    while (!shared->ended) co_await shared->done.wait();
    co_return shared->status;
  }
  if (trust == FetchTrust::plain && recent(placed.segment) != nullptr) co_return Status();
  const auto shared = fetching_.emplace(placed.segment, std::make_shared<Fetching>(runtime_)).first->second;
  // Twice: a slice that does not come is decoded into a second buffer.
  const std::uint64_t held = std::uint64_t{placed.length} * 2;
  const Status entered = co_await enter_fetching(held, patience);
  Result<FetchedRange> fetched = fail(ErrorKind::unavailable, "");
  if (entered)
    fetched = co_await fetcher_.fetch(placed, 0, placed.length, trust, patience);
  else
    fetched = fail(entered.error());
  bool admitting = false;
  if (fetched) {
    std::shared_ptr<const Buffer> bytes = fetched->owner;
    remember({placed.segment, placed.salt, bytes, placed.length});
    if (!closing_) {
      admitting = true;
      tasks_.spawn([this, placed, bytes, held]() -> Task<void> {
        co_await slots_.admit_whole(placed.segment, bytes, placed.length);
        leave_fetching(held);
      });
    }
  } else {
    shared->status = fail(fetched.error());
  }
  if (entered && !admitting) leave_fetching(held);
  shared->ended = true;
  fetching_.erase(placed.segment);
  shared->done.notify_all();
  co_return shared->status;
}

// One that is larger than the bound passes when it is alone.
Task<Status> CellReader::enter_fetching(std::uint64_t bytes, std::optional<Duration> patience) {
  const TimePoint until = patience ? runtime_.now() + *patience : TimePoint::max();
  while (fetching_bytes_ != 0 && fetching_bytes_ + bytes > fetching_max_) {
    if (closing_) co_return fail(ErrorKind::closed, "the volume is being closed");
    if (!co_await fetching_room_.wait_until(until))
      co_return fail(ErrorKind::unavailable, "segments asked for earlier do not come from the miners");
  }
  fetching_bytes_ += bytes;
  co_return Status();
}

void CellReader::leave_fetching(std::uint64_t bytes) {
  fetching_bytes_ -= bytes;
  fetching_room_.notify_all();
}

void CellReader::prefetch(const SegmentId& segment, std::optional<Duration> patience) {
  if (closing_ || ahead_ >= kAheadMax || log_.memory_of(segment) || recent(segment) != nullptr ||
      fetching_.contains(segment) || slots_.has_whole(segment))
    return;
  ++ahead_;
  tasks_.spawn([this, segment, patience]() -> Task<void> {
    const auto placed = co_await index_.placed(segment);
    if (placed && *placed) {
      const Status ignored = co_await fetch_whole((*placed)->placed, FetchTrust::plain, patience);
      static_cast<void>(ignored);  // the reader itself will meet the error
    }
    --ahead_;
  });
}

Reader::Reader(Runtime& runtime, Index& index, Committer& committer, CellReader& cells, VolumeOptions options)
    : runtime_(runtime), index_(index), committer_(committer), cells_(cells), options_(options) {}

bool Reader::try_read(const View& view, ObjectId object, std::uint64_t offset, MutableByteView into,
                      Result<std::size_t>& answer) {
  std::vector<Extent> extents;
  std::uint64_t size = 0;
  if (!index_.try_size(view, object, size)) return false;
  const std::uint64_t length = offset >= size ? 0 : std::min<std::uint64_t>(into.size(), size - offset);
  if (length != 0 && !index_.try_extents(view, object, offset, length, extents)) return false;
  for (const Extent& extent : extents) {
    const MutableByteView part = into.subspan(extent.offset - offset, extent.length);
    if (extent.kind != Extent::Kind::data) {
      std::ranges::fill(part, std::uint8_t{0});
    } else if (is_staged(extent.run)) {
      const auto staged = committer_.staged(extent.run);
      if (!staged) return false;
      copy_bytes(staged->plain.subspan(extent.skip, part.size()), part.data());
    } else if (!cells_.try_read(extent.run, extent.skip, part)) {
      return false;
    }
  }
  answer = static_cast<std::size_t>(length);
  return true;
}

Task<Result<std::size_t>> Reader::read(View view, ObjectId object, std::uint64_t offset, MutableByteView into,
                                       Warming warming) {
  for (int attempt = 0;; ++attempt) {
    CO_TRY(const auto stat, co_await index_.stat(view, object));
    if (!stat) co_return fail(ErrorKind::not_found, format("object {} does not exist", object));
    if (offset >= stat->size || into.empty()) co_return std::size_t{0};
    const std::uint64_t length = std::min<std::uint64_t>(into.size(), stat->size - offset);
    CO_TRY(const auto extents, co_await index_.extents(view, object, offset, length));
    // An object that was removed since then has nothing but holes.
    if (!std::ranges::all_of(extents, [](const Extent& it) { return it.kind == Extent::Kind::data; })) {
      CO_TRY(const auto still, co_await index_.stat(view, object));
      if (!still) co_return fail(ErrorKind::not_found, format("object {} was removed", object));
    }
    std::uint64_t ahead_from = 0;
    if (is_sequential(view, object, offset, length, ahead_from) && ahead_from < stat->size)
      CO_TRY_OK(
          co_await read_ahead(view, object, ahead_from, std::min(kAheadBytes, stat->size - ahead_from)));

    std::vector<std::shared_ptr<Status>> ends;
    std::size_t at_hand = 0;
    TaskGroup parts(runtime_);
    for (const Extent& extent : extents) {
      const MutableByteView part = into.subspan(extent.offset - offset, extent.length);
      if (extent.kind != Extent::Kind::data) {
        std::ranges::fill(part, std::uint8_t{0});
        continue;
      }
      // A task for each of many small pieces costs more than they do.
      if (!is_staged(extent.run) && cells_.try_read(extent.run, extent.skip, part)) {
        if (++at_hand % kPiecesATurn == 0) co_await runtime_.yield();
        continue;
      }
      auto end = ends.emplace_back(std::make_shared<Status>());
      if (&extent == &extents.back()) {
        *end = co_await read_extent(extent, part, warming);
      } else {
        parts.spawn([this, extent, part, warming, end]() -> Task<void> {
          *end = co_await read_extent(extent, part, warming);
        });
      }
    }
    co_await parts.join();
    const auto failed = std::ranges::find_if(ends, [](const auto& end) { return !*end; });
    if (failed == ends.end()) co_return static_cast<std::size_t>(length);
    const Error& error = (**failed).error();
    // The row may have been relocated, or its group written, between the look-up and the read.
    if (error.kind() != ErrorKind::not_found) co_return fail(error);
    if (attempt == kRelocationTries) co_return fail(ErrorKind::corrupt, error.message());
  }
}

Task<Status> Reader::read_extent(Extent extent, MutableByteView into, Warming warming) {
  if (!is_staged(extent.run))
    co_return co_await cells_.read(extent.run, extent.skip, into, warming, options_.outage_wait);
  const auto staged = committer_.staged(extent.run);
  if (!staged) co_return fail(ErrorKind::not_found, "the group was written meanwhile");
  copy_bytes(staged->plain.subspan(extent.skip, into.size()), into.data());
  co_return Status();
}

// A reader that has read on from where it ended at least kStreakToPrefetch times gets segments ahead of it.
bool Reader::is_sequential(const View& view, ObjectId object, std::uint64_t offset, std::uint64_t length,
                           std::uint64_t& ahead_from) {
  const DatasetId dataset = view.empty() ? 0 : view.front().dataset;
  const auto found = std::ranges::find_if(streams_, [&](const Stream& stream) {
    return stream.dataset == dataset && stream.object == object && stream.next <= offset &&
           offset <= stream.next + length;
  });
  if (found == streams_.end()) {
    streams_.push_front({dataset, object, offset + length, offset == 0 ? 1u : 0u, offset + length});
    if (streams_.size() > kStreamsMax) streams_.pop_back();
    return false;
  }
  streams_.splice(streams_.begin(), streams_, found);
  Stream& stream = streams_.front();
  ++stream.streak;
  stream.next = offset + length;
  if (stream.streak < kStreakToPrefetch) return false;
  // Again only when half of what was asked ahead is used up.
  if (stream.ahead_until > stream.next + kAheadBytes / 2) return false;
  ahead_from = std::max(stream.ahead_until, stream.next);
  stream.ahead_until = ahead_from + kAheadBytes;
  return true;
}

Task<Status> Reader::read_ahead(View view, ObjectId object, std::uint64_t offset, std::uint64_t length) {
  CO_TRY(const auto extents, co_await index_.extents(view, object, offset, length));
  // Small extents scattered over many segments would fetch far more than is read.
  for (const Extent& extent : extents)
    if (extent.kind == Extent::Kind::data && !is_staged(extent.run) && extent.length >= kWholeFrom / 2)
      cells_.prefetch(extent.run.segment, options_.outage_wait);
  co_return Status();
}

}  // namespace cumulus
