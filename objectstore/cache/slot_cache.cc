// The reader's and replay's half of the SlotStore: lookups, admission, whole slots.
#include <algorithm>
#include <bit>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/cache/slot_store.h"

namespace cumulus {
namespace {
constexpr std::uint64_t kRange = 64u << 10;
std::uint64_t round_down(std::uint64_t value, std::uint64_t unit) { return value / unit * unit; }
std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) { return (value + unit - 1) / unit * unit; }
}  // namespace

class SlotStore::Pinned final : public Handle {
 public:
  Pinned(SlotStore& store, SlotPtr slot) : store_(store), alive_(store.self_), slot_(std::move(slot)) {
    ++slot_->pins;
  }
  ~Pinned() override {
    if (!alive_.expired()) store_.unpin(slot_);
  }
  Task<Result<CachedBytes>> read(std::uint64_t offset, std::uint64_t length) override {
    return store_.read_aligned(slot_, offset, length, false);
  }
  Task<Result<CachedBytes>> read_warm(std::uint64_t offset, std::uint64_t length) override {
    return store_.read_aligned(slot_, offset, length, true);
  }

 private:
  SlotStore& store_;
  const std::weak_ptr<SlotStore*> alive_;
  const SlotPtr slot_;
};

std::shared_ptr<Buffer> SlotStore::buffer_for(std::uint64_t length) {
  for (BufferPool& pool : pools_)
    if (pool.buffer_size() >= length) return pool.acquire();
  return std::make_shared<Buffer>(length);
}

// Direct reads want aligned ranges: what lies around the asked bytes is read with them.
Task<Result<SlotStore::CachedBytes>> SlotStore::read_aligned(SlotPtr slot, std::uint64_t offset,
                                                             std::uint64_t length, bool warm) {
  const std::uint64_t align = std::uint64_t{1} << align_log2_;
  const std::uint64_t begin = round_down(offset, align);
  const std::uint64_t end = round_up(offset + length, align);
  const std::shared_ptr<Buffer> buffer = buffer_for(end - begin);
  Result<std::size_t> got = std::size_t{0};
  if (warm)
    got = co_await slot->file->read_warm(begin, buffer->view(0, end - begin));
  else
    got = co_await slot->file->read_at(begin, buffer->view(0, end - begin));
  if (!got) co_return fail(got.error());
  if (*got < end - begin) co_return fail(ErrorKind::corrupt, slot->path + ": shorter than a segment");
  co_return CachedBytes{buffer, buffer->view(offset - begin, length)};
}

bool SlotStore::holds(const SlotPtr& slot, std::uint64_t offset, std::uint64_t length) const {
  if (!slot || length > options_.segment_size || offset > options_.segment_size - length) return false;
  if (slot->state != State::partial) return true;
  if (offset < std::uint64_t{1} << align_log2_) return false;
  for (std::uint64_t at = round_down(offset, kRange); at < offset + length; at += kRange)
    if (!slot->present[at / kRange]) return false;
  return true;
}

bool SlotStore::try_read(const SegmentId& segment, std::uint64_t offset, MutableByteView into) {
  const SlotPtr slot = slot_of(segment);
  if (!holds(slot, offset, into.size()) || !slot->file->try_read_warm(offset, into)) return false;
  hits_total_.add();
  policy_.touch(segment);
  return true;
}

std::shared_ptr<SlotStore::Handle> SlotStore::lookup(const SegmentId& segment, std::uint64_t offset,
                                                     std::uint64_t length) {
  const SlotPtr slot = slot_of(segment);
  const bool here = holds(slot, offset, length);
  (here ? hits_total_ : misses_total_).add();
  if (!here) return nullptr;
  policy_.touch(segment);
  return std::make_shared<Pinned>(*this, slot);
}

bool SlotStore::has_whole(const SegmentId& segment) const {
  const SlotPtr slot = slot_of(segment);
  return slot && slot->state != State::partial;
}

Task<Result<SegmentHeader>> SlotStore::read_header(SegmentId segment) {
  const SlotPtr slot = slot_of(segment);
  if (!slot || slot->state == State::partial)
    co_return fail(ErrorKind::not_found, "the segment is not in the local cache");
  const Pinned pin(*this, slot);
  CO_TRY(const CachedBytes bytes, co_await read_aligned(slot, 0, SegmentHeader::kEncodedSize, false));
  CO_TRY(const SegmentHeader header, SegmentHeader::decode(bytes.bytes));
  if (header.id != segment) co_return fail(ErrorKind::corrupt, slot->path + ": holds another segment");
  co_return header;
}

// A slot for something fetched: while there is room, or when it was asked for more than once; null otherwise.
// Slots kept ahead for the log are not touched.
Task<SlotStore::SlotPtr> SlotStore::claim_for_cache(const SegmentId& segment) {
  const bool again = policy_.asked_again(segment);
  if (closing_) co_return nullptr;
  if (free_.size() > options_.free_ahead) {
    const SlotPtr slot = free_.back();
    free_.pop_back();
    slot->state = State::taken;
    co_return slot;
  }
  if (free_.size() < options_.free_ahead) co_return nullptr;
  if (slots_.size() < budget_slots()) {
    auto made = co_await make_slot();
    if (made) co_return *made;
  }
  if (!again) co_return nullptr;
  co_return evict();
}

// `bytes` begin at a multiple of the alignment; what lies behind them up to the next multiple is zeros.
Task<Status> SlotStore::write_range(SlotPtr slot, std::uint64_t offset, ByteView bytes) {
  const std::uint64_t size = round_up(bytes.size(), std::uint64_t{1} << align_log2_);
  const std::shared_ptr<Buffer> buffer = buffer_for(size);
  copy_bytes(bytes, buffer->data());
  std::ranges::fill(buffer->view(bytes.size(), size - bytes.size()), std::uint8_t{0});
  co_return co_await slot->file->write_at(offset, buffer->view(0, size));
}

Task<void> SlotStore::admit_whole(SegmentId segment, std::shared_ptr<const Buffer> bytes,
                                  std::uint64_t length) {
  const SlotPtr old = slot_of(segment);
  if ((old && old->state != State::partial) || length > options_.segment_size || length > bytes->size())
    co_return;
  const SlotPtr slot = co_await claim_for_cache(segment);
  if (!slot) co_return;
  const std::uint64_t padded = round_up(length, std::uint64_t{1} << align_log2_);
  Status written;
  if (bytes->size() >= padded)
    written = co_await slot->file->write_at(0, bytes->view(0, padded));
  else
    written = co_await write_range(slot, 0, bytes->view(0, length));
  const SlotPtr now = slot_of(segment);
  if (!written) {
    remove_file(slot);
  } else if (now && now->state != State::partial) {
    set_free(slot);  // somebody else was faster
  } else {
    forget(segment);
    bind(slot, segment, State::fetched);
  }
  maintenance_.notify_all();
}

Task<void> SlotStore::admit_range(SegmentId segment, std::uint64_t offset,
                                  [[maybe_unused]] std::shared_ptr<const void> owner, ByteView bytes) {
  const std::uint64_t align = std::uint64_t{1} << align_log2_;
  SlotPtr slot = slot_of(segment);
  if (slot && slot->state != State::partial) co_return;
  const std::uint64_t first = round_up(offset, kRange);
  const std::uint64_t end = round_down(offset + bytes.size(), kRange);
  if (first >= end || end > options_.segment_size) co_return;
  if (!slot) {
    slot = co_await claim_for_cache(segment);
    if (!slot) co_return;
    // Without a header at its beginning the file is not taken for a whole segment after a restart.
    const Bytes zeros(align);
    if (!co_await write_range(slot, 0, zeros)) {
      remove_file(slot);
      co_return;
    }
    if (slot_of(segment)) {
      set_free(slot);
      co_return;
    }
    slot->present.assign(options_.segment_size / kRange + 1, false);
    bind(slot, segment, State::partial);
  }
  const Pinned pin(*this, slot);
  const std::uint64_t begin = std::max(first, align);
  const ByteView taken = bytes.subspan(begin - offset, end - begin);
  const Status written = co_await write_range(slot, begin, taken);
  if (!written || slot->state != State::partial || slot->segment != segment) co_return;
  for (std::uint64_t at = first; at < end; at += kRange) slot->present[at / kRange] = true;
}

void SlotStore::forget(const SegmentId& segment) {
  const SlotPtr slot = slot_of(segment);
  if (!slot || !clean(*slot)) return;
  unbind(slot);
  // Whoever reads it still holds the file; only then may the slot be written again.
  if (slot->pins != 0)
    remove_file(slot);
  else
    set_free(slot);
  maintenance_.notify_all();
}

void SlotStore::drop_clean() {
  while (const SlotPtr slot = evict()) remove_file(slot);
  maintenance_.notify_all();
}

SlotStats SlotStore::stats() const {
  SlotStats stats;
  stats.budget_bytes = std::min(options_.budget_bytes, budget_slots() * std::uint64_t{options_.segment_size});
  if (make_error_)
    stats.budget_bytes = std::min(stats.budget_bytes, slots_.size() * std::uint64_t{options_.segment_size});
  for (const auto& [number, slot] : slots_) {
    if (slot->state == State::dirty) stats.dirty_bytes += options_.segment_size;
    if (clean(*slot)) stats.clean_bytes += options_.segment_size;
    if (slot->state == State::free) stats.free_bytes += options_.segment_size;
  }
  return stats;
}

std::vector<LocalSegments::Found> SlotStore::log_segments() const {
  std::vector<Found> found;
  for (const auto& [number, slot] : slots_)
    if (slot->found && slot->found->id.kind == SegmentKind::log) found.push_back({*slot->found, number});
  return found;
}

Task<Result<std::shared_ptr<const Buffer>>> SlotStore::read_slot(std::uint32_t number) {
  const auto found = slots_.find(number);
  if (found == slots_.end()) co_return fail(ErrorKind::not_found, format("slot {} is gone", number));
  const SlotPtr slot = found->second;
  const Pinned pin(*this, slot);
  const std::shared_ptr<Buffer> buffer = pools_.back().acquire();
  CO_TRY(const std::size_t got, co_await slot->file->read_at(0, buffer->view()));
  if (got < buffer->size()) co_return fail(ErrorKind::corrupt, slot->path + ": shorter than a segment");
  co_return buffer;
}

Task<Result<std::uint32_t>> SlotStore::restore(SegmentHeader header, std::shared_ptr<const Buffer> bytes,
                                               std::uint64_t length) {
  // While the log is recovered nothing is known to be stored, so no log segment leaves: a cache that was full
  // when its process died has no slot to wait for. The copy that this one replaces is discarded next: one
  // file too many, for which the disk's last room is kept.
  if (free_.empty()) {
    const auto made = co_await make_slot(true);
    const SlotPtr spare = made ? *made : evict();
    if (!spare)
      co_return fail(made.error().within(
          format("opening the volume needs {} bytes of room in {}", options_.segment_size, directory_)));
    set_free(spare);
  }
  CO_TRY(const auto taken, co_await take(true));
  CHECK(length <= bytes->size() && length <= options_.segment_size);
  // A recycled slot may hold another copy of this segment, as a failed rescue leaves it: its groups behind
  // the end would be read as ours. Zeros go over the whole rest.
  const std::shared_ptr<Buffer> whole = pools_.back().acquire();
  copy_bytes(bytes->view(0, length), whole->data());
  std::ranges::fill(whole->view(length, options_.segment_size - length), std::uint8_t{0});
  CO_TRY_OK(co_await taken->file().write_at(0, whole->view(0, options_.segment_size)));
  CO_TRY_OK(co_await taken->file().datasync());
  assign(*taken, header.id);
  slots_.at(taken->number())->found = header;
  co_return taken->number();
}

Task<Status> SlotStore::discard(std::uint32_t number) {
  const auto found = slots_.find(number);
  if (found == slots_.end()) co_return Status();
  const SlotPtr slot = found->second;
  if (slot->state == State::free) co_return Status();
  const Bytes zeros(std::size_t{1} << align_log2_);
  CO_TRY_OK(co_await write_range(slot, 0, zeros));
  CO_TRY_OK(co_await slot->file->datasync());
  unbind(slot);
  set_free(slot);
  co_return Status();
}

}  // namespace cumulus
