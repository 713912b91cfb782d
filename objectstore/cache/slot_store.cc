#include "objectstore/cache/slot_store.h"

#include <algorithm>
#include <bit>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"

namespace cumulus {
namespace {

constexpr std::size_t kHeadersInFlight = 16;
constexpr Duration kRetryInterval = std::chrono::seconds(1);
constexpr std::uint64_t kKeptFreeMax = 64u << 20;
constexpr std::uint64_t kOtherDescriptors = 1024;
constexpr std::string_view kPrefix = "slot-";

std::optional<std::uint32_t> number_of(const std::string& name) {
  if (!name.starts_with(kPrefix) || name.size() < kPrefix.size() + 6 || name.size() > kPrefix.size() + 9)
    return std::nullopt;
  std::uint32_t number = 0;
  for (const char c : std::string_view(name).substr(kPrefix.size())) {
    if (c < '0' || c > '9') return std::nullopt;
    number = number * 10 + static_cast<std::uint32_t>(c - '0');
  }
  return number;
}

// Each holds its file, once for direct and once for warm reads. Miners, the index, commands and mounts want
// descriptors too.
std::uint64_t slots_openable(std::uint64_t open_files_max) {
  return (open_files_max - std::min(open_files_max / 2, kOtherDescriptors)) / 2;
}

}  // namespace

// A slot on loan. Released unassigned, it is free again.
class SlotStore::Taken final : public SegmentSlot {
 public:
  Taken(std::weak_ptr<SlotStore*> store, SlotPtr slot)
      : store_(std::move(store)), slot_(std::move(slot)), new_(slot_->is_new) {}
  ~Taken() override {
    const auto store = store_.lock();
    if (store && slot_->state == State::taken) (*store)->set_free(slot_);
  }
  File& file() override { return *slot_->file; }
  std::uint32_t number() const override { return slot_->number; }
  bool is_new() const override { return new_; }
  const SlotPtr& slot() const { return slot_; }

 private:
  const std::weak_ptr<SlotStore*> store_;
  const SlotPtr slot_;
  const bool new_;
};

SlotStore::SlotStore(Runtime& runtime, FileSystem& files, std::string directory, VolumeId volume,
                     SlotStoreOptions options, Metrics& metrics)
    : runtime_(runtime),
      files_(files),
      directory_(std::move(directory)),
      volume_(volume),
      options_(options),
      align_log2_(9),
      slots_openable_(slots_openable(files.open_files_max())),
      hits_total_(metrics.counter("cumulus_cache_hits_total")),
      misses_total_(metrics.counter("cumulus_cache_misses_total")),
      evictions_total_(metrics.counter("cumulus_cache_evictions_total")),
      freed_(runtime),
      maintenance_(runtime),
      tasks_(runtime),
      self_(std::make_shared<SlotStore*>(this)) {
  for (std::uint64_t size = 4096; size < options_.segment_size; size *= 2) pools_.emplace_back(size, 4);
  pools_.emplace_back(options_.segment_size, 2);
}

SlotStore::~SlotStore() = default;

Task<Result<std::unique_ptr<SlotStore>>> SlotStore::open(Runtime& runtime, FileSystem& files,
                                                         std::string directory, VolumeId volume,
                                                         SlotStoreOptions options, Metrics& metrics) {
  std::unique_ptr<SlotStore> store(
      new SlotStore(runtime, files, std::move(directory), volume, options, metrics));
  CO_TRY_OK(co_await store->find_slots());
  store->tasks_.spawn(store->keep_free_ahead());
  co_return store;
}

Task<Status> SlotStore::find_slots() {
  CO_TRY_OK(files_.create_directories(directory_));
  align_log2_ = static_cast<std::uint8_t>(std::max(9, std::countr_zero(files_.direct_alignment(directory_))));
  CO_TRY(const auto names, files_.list(directory_));
  auto unread = std::make_shared<std::deque<SlotPtr>>();
  for (const std::string& name : names) {
    const auto number = number_of(name);
    if (!number) continue;
    auto slot = std::make_shared<Slot>();
    slot->number = *number;
    slot->path = directory_ + "/" + name;
    next_number_ = std::max(next_number_, *number + 1);
    unread->push_back(slot);
  }
  if (unread->size() > 2 * slots_openable_)
    co_return fail(
        ErrorKind::io,
        format("{}: {} segment files are cached here, and this process may open {} files: raise the "
               "limit (ulimit -n {})",
               directory_, unread->size(), files_.open_files_max(), 3 * unread->size()));
  if (slots_openable_ < options_.budget_bytes / options_.segment_size)
    log_warn(
        "{}: at most {} segment files are kept, less than cache-size allows: this process may open {} files "
        "(ulimit -n)",
        directory_, slots_openable_, files_.open_files_max());
  TaskGroup readers(runtime_);
  Status all;
  for (std::size_t i = 0; i < kHeadersInFlight; ++i) readers.spawn(read_headers(unread, all));
  co_await readers.join();
  CO_TRY_OK(all);
  // A process that died while it made a slot may have left a name that no sync has covered yet.
  co_return co_await files_.sync_directory(directory_);
}

// One that cannot be read or understood may be the log's end: passed over, what was acknowledged would vanish
// without a word.
Task<void> SlotStore::read_headers(std::shared_ptr<std::deque<SlotPtr>> unread, Status& all) {
  while (all && !unread->empty()) {
    const SlotPtr slot = unread->front();
    unread->pop_front();
    const Status examined = co_await examine(slot);
    if (!examined && all)
      all = fail(Error(examined.error().kind(),
                       format("{}: {}: it may hold the newest that was written here. When it stays so, move "
                              "this file away: the volume opens with what is in the others and on the miners",
                              slot->path, examined.error().message())));
  }
}

Task<Status> SlotStore::examine(SlotPtr slot) {
  OpenOptions how;
  how.write = true;
  how.direct = true;
  CO_TRY(slot->file, files_.open(slot->path, how));
  CO_TRY(const std::uint64_t size, slot->file->size());
  Buffer block(std::size_t{1} << align_log2_);
  CO_TRY(const std::size_t got, co_await slot->file->read_at(0, block.view()));
  const ByteView block_bytes = block.view(0, std::min(got, std::size_t{SegmentHeader::kEncodedSize}));
  const bool written = std::ranges::any_of(block_bytes, [](std::uint8_t byte) { return byte != 0; });
  if (size != options_.segment_size) {
    if (written)
      co_return fail(ErrorKind::corrupt,
                     format("it has {} bytes instead of {}", size, options_.segment_size));
    // Never made to the end: its directory entry counts for nothing yet.
    slot->file.reset();
    co_return files_.remove(slot->path);
  }
  // A slot that was never written is all zeros.
  if (written) {
    CO_TRY(const SegmentHeader header, SegmentHeader::decode(block_bytes));
    if (header.volume != volume_) {
      // Not ours to write over, and nothing that we wrote.
      log_warn("{}: a segment of volume {}; the slot is left alone", slot->path, header.volume.brief());
      co_return Status();
    }
    slot->found = header;
  }
  // A process that died while it made it may have left a size that no sync has covered yet.
  if (!slot->found) CO_TRY_OK(co_await slot->file->datasync());
  slots_[slot->number] = slot;
  if (!slot->found) {
    set_free(slot);
  } else {
    const bool log = slot->found->id.kind == SegmentKind::log;
    bind(slot, slot->found->id, log ? State::dirty : State::fetched);
  }
  co_return Status();
}

Task<void> SlotStore::close() {
  closing_ = true;
  freed_.notify_all();
  maintenance_.notify_all();
  co_await tasks_.join();
}

void SlotStore::classify(const std::function<SlotUse(const SegmentHeader&)>& use_of) {
  for (const auto& [number, slot] : slots_) {
    if (slot->state != State::dirty || !slot->found) continue;
    const SlotUse use = use_of(*slot->found);
    if (use == SlotUse::stored) bind(slot, slot->segment, State::stored);
    if (use == SlotUse::unknown) {
      unbind(slot);
      set_free(slot);
    }
  }
  maintenance_.notify_all();
}

void SlotStore::mark_stored(const SegmentId& segment) {
  const SlotPtr slot = slot_of(segment);
  if (!slot || slot->state != State::dirty) return;
  bind(slot, segment, State::stored);
  maintenance_.notify_all();
}

void SlotStore::set_replay_floor(Sequence floor) {
  replay_floor_ = floor;
  maintenance_.notify_all();
}

void SlotStore::set_budget(std::uint64_t bytes) {
  options_.budget_bytes = bytes;
  maintenance_.notify_all();
}

std::uint32_t SlotStore::budget_slots() const {
  const std::uint64_t slots = std::min(options_.budget_bytes / options_.segment_size, slots_openable_);
  return static_cast<std::uint32_t>(std::max<std::uint64_t>(slots, options_.free_ahead + 2));
}

bool SlotStore::has_room_for(std::uint64_t bytes) const {
  // A group that does not fit behind the others leaves less than half of a segment empty.
  const std::uint64_t wanted = 2 * bytes / options_.segment_size + 2;
  std::uint64_t there = free_.size();
  if (there >= wanted) return true;
  if (!make_error_ && slots_.size() < budget_slots())
    there += std::min<std::uint64_t>(budget_slots() - slots_.size(), slots_to_make());
  for (auto slot = slots_.begin(); slot != slots_.end() && there < wanted; ++slot)
    there += evictable(*slot->second) ? 1 : 0;
  return there >= wanted;
}

bool SlotStore::clean(const Slot& slot) const {
  return slot.state == State::stored || slot.state == State::fetched || slot.state == State::partial;
}

bool SlotStore::evictable(const Slot& slot) const {
  if (!clean(slot) || slot.pins != 0) return false;
  return slot.state != State::stored || slot.segment.sequence < replay_floor_;
}

SlotStore::SlotPtr SlotStore::slot_of(const SegmentId& segment) const {
  const auto found = by_segment_.find(segment);
  return found == by_segment_.end() ? nullptr : found->second;
}

void SlotStore::bind(const SlotPtr& slot, const SegmentId& segment, State state) {
  slot->is_new = false;
  slot->segment = segment;
  slot->state = state;
  by_segment_[segment] = slot;
  if (clean(*slot)) policy_.insert(segment);
}

// The slot's segment is not here any more, unless another slot has it too (a rescue's two copies).
void SlotStore::unbind(const SlotPtr& slot) {
  slot->found.reset();
  const auto bound = by_segment_.find(slot->segment);
  if (bound == by_segment_.end() || bound->second != slot) return;
  by_segment_.erase(bound);
  policy_.erase(slot->segment);
  for (const auto& [number, other] : slots_)
    if (other != slot && other->segment == slot->segment && other->state != State::free &&
        other->state != State::taken)
      return bind(other, other->segment, other->state);
}

void SlotStore::set_free(const SlotPtr& slot) {
  slot->state = State::free;
  slot->segment = {};
  slot->present.clear();
  free_.push_back(slot);
  freed_.notify_all();
}

void SlotStore::remove_file(const SlotPtr& slot) {
  slots_.erase(slot->number);
  if (const Status removed = files_.remove(slot->path); !removed)
    log_warn("{}: {}", slot->path, removed.error().message());
}

void SlotStore::unpin(const SlotPtr& slot) {
  if (--slot->pins == 0) maintenance_.notify_all();
}

// Takes a clean segment's slot away from it.
SlotStore::SlotPtr SlotStore::evict() {
  const auto victim = policy_.evict([this](const SegmentId& segment) {
    const SlotPtr slot = slot_of(segment);
    return slot && evictable(*slot);
  });
  if (!victim) return nullptr;
  const SlotPtr slot = slot_of(*victim);
  evictions_total_.add();
  unbind(slot);
  slot->state = State::taken;
  slot->present.clear();
  return slot;
}

Task<void> SlotStore::keep_free_ahead() {
  while (!closing_) {
    bool starving = false;
    if (slots_.size() >= budget_slots()) make_error_.reset();  // nothing is asked of the disk
    if (slots_.size() > budget_slots() && free_.size() > options_.free_ahead) {
      const SlotPtr slot = free_.back();
      free_.pop_back();
      remove_file(slot);
      continue;
    }
    if (free_.size() < options_.free_ahead || slots_.size() > budget_slots()) {
      if (slots_.size() < budget_slots()) {
        const auto made = co_await make_slot();
        if (made) {
          set_free(*made);
          continue;
        }
        starving = true;
      }
      if (const SlotPtr slot = evict()) {
        set_free(slot);
        continue;
      }
    }
    if (closing_) break;
    if (starving)
      co_await maintenance_.wait_until(runtime_.now() + kRetryInterval);
    else
      co_await maintenance_.wait();
  }
}

std::uint64_t SlotStore::kept_free(const DiskSpace& space) const {
  return std::max<std::uint64_t>(std::min(kKeptFreeMax, space.total / 16),
                                 2 * std::uint64_t{options_.segment_size});
}

// How many the disk has room for now; one that cannot be asked says so when a slot is made.
std::uint64_t SlotStore::slots_to_make() const {
  const auto space = files_.space(directory_);
  if (!space) return budget_slots();
  const std::uint64_t kept = kept_free(*space);
  return space->free > kept ? (space->free - kept) / options_.segment_size : 0;
}

// Slots never take the last of the disk, and users' not what notes about their segments need: what says that
// segments are stored, and so lets slots go again (the index, the home file, the replay mark), could not be
// written any more.
Status SlotStore::leaves_room(bool urgent) const {
  TRY(const DiskSpace space, files_.space(directory_));
  const std::uint64_t kept = kept_free(space) / (urgent ? 2 : 1);
  if (space.free >= options_.segment_size + kept) return {};
  return fail(ErrorKind::no_space,
              format("{}: the disk has {} bytes free, and {} are kept for the index: free "
                     "some space",
                     directory_, space.free, kept));
}

// A new file, all of it allocated, its name durable.
Task<Result<SlotStore::SlotPtr>> SlotStore::make_slot(bool urgent) {
  auto slot = std::make_shared<Slot>();
  slot->number = next_number_++;
  slot->path = format("{}/{}{:06}", directory_, kPrefix, slot->number);
  slots_[slot->number] = slot;  // counts against the budget from now on
  OpenOptions how;
  how.write = true;
  how.create = true;
  how.exclusive = true;
  how.direct = true;
  Status status = leaves_room(urgent);
  Result<std::unique_ptr<File>> file = fail(ErrorKind::no_space, "");
  if (status) file = files_.open(slot->path, how);
  if (status && file) {
    slot->file = *std::move(file);
    status = co_await slot->file->allocate(options_.segment_size);
    if (status) status = co_await slot->file->datasync();
    if (status) status = co_await files_.sync_directory(directory_);
  } else if (status) {
    status = fail(file.error());
  }
  if (!status) {
    if (!make_error_) log_warn("a new local segment file: {}", status.error().message());
    make_error_ = status.error();
    if (slot->file)
      remove_file(slot);
    else
      slots_.erase(slot->number);
    co_return fail(status.error());
  }
  make_error_.reset();
  slot->is_new = true;
  co_return slot;
}

Task<Result<std::shared_ptr<SegmentSlot>>> SlotStore::take(bool urgent) {
  for (;;) {
    if (closing_) co_return fail(ErrorKind::closed, "the local segment files are closed");
    SlotPtr slot;
    if (!free_.empty()) {
      slot = free_.front();
      free_.pop_front();
    } else if (urgent && slots_.size() < budget_slots() + options_.reserve) {
      auto made = co_await make_slot(true);
      if (made) slot = *made;
    }
    if (slot) {
      slot->state = State::taken;
      maintenance_.notify_all();
      co_return std::make_shared<Taken>(self_, slot);
    }
    maintenance_.notify_all();
    ++waiting_;
    co_await freed_.wait_until(runtime_.now() + kRetryInterval);
    --waiting_;
  }
}

void SlotStore::assign(const SegmentSlot& slot, const SegmentId& segment) {
  const SlotPtr taken = slots_.at(slot.number());
  CHECK(taken->state == State::taken);
  bind(taken, segment, State::dirty);
}

void SlotStore::abandon(std::shared_ptr<SegmentSlot> slot) {
  const SlotPtr broken = slots_.at(slot->number());
  unbind(broken);
  broken->state = State::free;  // not listed: nobody gets it, and its release does nothing
  remove_file(broken);
  maintenance_.notify_all();
}

}  // namespace cumulus
