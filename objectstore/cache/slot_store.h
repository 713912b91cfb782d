// SlotStore: the volume's local segment files, one directory of full-size slots. The log writes its segments
// into them and they stay there as cache; segments and ranges fetched from miners are cached in the same
// slots under the same budget.
//
// What it must never do: evict a log segment that is not stored on the miners, or that the index would need
// for replay; hand out a slot whose directory entry or blocks are not durable. Cached bytes are not trusted:
// whoever reads them verifies them, and says forget() when they are wrong. Reactor thread.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "objectstore/base/metrics.h"
#include "objectstore/cache/s3_fifo.h"
#include "objectstore/io/file.h"
#include "objectstore/io/sync.h"
#include "objectstore/log/segment_files.h"

namespace cumulus {

struct SlotStoreOptions {
  std::uint32_t segment_size = 8u << 20;
  std::uint64_t budget_bytes = 10ull << 30;  // all slots; dirty ones may fill it, then take() waits
  std::uint32_t free_ahead = 2;              // slots made or recycled before they are asked for
  std::uint32_t reserve = 4;                 // slots beyond the budget, for urgent use only
};

// What a log segment found in a slot at opening is to its volume.
enum class SlotUse : std::uint8_t {
  dirty,    // not stored yet: kept until it is
  stored,   // on the miners: cache
  unknown,  // not part of the volume any more: the slot is free
};

struct SlotStats {
  std::uint64_t dirty_bytes = 0;
  std::uint64_t clean_bytes = 0;
  std::uint64_t free_bytes = 0;
  std::uint64_t budget_bytes = 0;  // less than it was given while the disk refuses more
};

class SlotStore final : public SegmentFiles, public LocalSegments {
 public:
  // Bytes of a cached segment; `owner` keeps them.
  struct CachedBytes {
    std::shared_ptr<const Buffer> owner;
    ByteView bytes;
  };
  // Pins the slot while it lives. Shorter-lived than its store.
  class Handle {
   public:
    virtual ~Handle() = default;
    // Any range inside what was looked up.
    virtual Task<Result<CachedBytes>> read(std::uint64_t offset, std::uint64_t length) = 0;
    // The same through the kernel's page cache, where try_read() finds it the next time. When it does not
    // verify, read() has the last word.
    virtual Task<Result<CachedBytes>> read_warm(std::uint64_t offset, std::uint64_t length) = 0;
  };

  // Opens or makes `directory`, and reads the header of every slot in it. io, corrupt, unsupported: one of
  // them, named, cannot be read or understood, and may be the newest. All log segments count as dirty
  // until classify(). The runtime and the file system outlive the store.
  static Task<Result<std::unique_ptr<SlotStore>>> open(Runtime& runtime, FileSystem& files,
                                                       std::string directory, VolumeId volume,
                                                       SlotStoreOptions options, Metrics& metrics);
  ~SlotStore() override;
  // Wakes all who wait in take() (closed) and joins the background work.
  Task<void> close();

  void classify(const std::function<SlotUse(const SegmentHeader&)>& use_of);
  void mark_stored(const SegmentId& segment);
  // Log segments from this one on are needed for replay: the index is durable up to the ones before it.
  void set_replay_floor(Sequence floor);
  void set_budget(std::uint64_t bytes);
  // Can the log take groups of `bytes` in all, each at most half a segment, and one more slot for its
  // bookkeeping, although nothing more reaches the miners?
  bool has_room_for(std::uint64_t bytes) const;
  // Why the disk refuses another slot (full, read-only); null while it does not.
  const Error* refusal() const { return make_error_ ? &*make_error_ : nullptr; }
  // Somebody waits in take().
  bool awaited() const { return waiting_ != 0; }

  // The slot that has [offset, offset + length) of the segment; null is a miss.
  std::shared_ptr<Handle> lookup(const SegmentId& segment, std::uint64_t offset, std::uint64_t length);
  // Copies the range when it is here and in the kernel's page cache; false: ask lookup(). Never waits.
  bool try_read(const SegmentId& segment, std::uint64_t offset, MutableByteView into);
  // The header of a whole segment that is here.
  Task<Result<SegmentHeader>> read_header(SegmentId segment);
  bool has_whole(const SegmentId& segment) const;
  // Take what was fetched into the cache, if that is worth while; never fail.
  Task<void> admit_whole(SegmentId segment, std::shared_ptr<const Buffer> bytes, std::uint64_t length);
  Task<void> admit_range(SegmentId segment, std::uint64_t offset, std::shared_ptr<const void> owner,
                         ByteView bytes);
  // Its bytes did not verify, or it was deleted: a dirty segment is kept (only the caller knows better).
  void forget(const SegmentId& segment);
  // `volume drop-cache`: every slot that may be evicted is removed from the disk.
  void drop_clean();

  SlotStats stats() const;

  // SegmentFiles
  Task<Result<std::shared_ptr<SegmentSlot>>> take(bool urgent) override;
  void assign(const SegmentSlot& slot, const SegmentId& segment) override;
  void abandon(std::shared_ptr<SegmentSlot> slot) override;
  std::uint8_t align_log2() const override { return align_log2_; }

  // LocalSegments
  std::vector<Found> log_segments() const override;
  Task<Result<std::shared_ptr<const Buffer>>> read_slot(std::uint32_t slot) override;
  Task<Result<std::uint32_t>> restore(SegmentHeader header, std::shared_ptr<const Buffer> bytes,
                                      std::uint64_t length) override;
  Task<Status> discard(std::uint32_t slot) override;

 private:
  // state     means                                        may become
  // free      listed in free_; its content is of no use    taken
  // taken     somebody writes it                           free, dirty, fetched, partial, gone (abandoned)
  // dirty     log segment, not stored                      stored, free (forgotten after deletion), gone
  // stored    log segment on the miners, whole             free or gone, when evictable
  // fetched   whole segment from the miners                free or gone, when evictable
  // partial   64 KiB ranges of one from the miners         free or gone, when evictable
  // Evictable: stored, fetched or partial; no pins; and stored ones below the replay floor.
  enum class State : std::uint8_t { free, taken, dirty, stored, fetched, partial };
  struct Slot {
    std::uint32_t number = 0;
    std::string path;
    std::unique_ptr<File> file;
    State state = State::taken;
    SegmentId segment;
    std::optional<SegmentHeader> found;  // what opening read in it
    std::vector<bool> present;           // partial: which ranges
    unsigned pins = 0;
    bool is_new = false;  // made by this process, and nothing was ever kept in it
  };
  using SlotPtr = std::shared_ptr<Slot>;
  class Taken;
  class Pinned;

  SlotStore(Runtime& runtime, FileSystem& files, std::string directory, VolumeId volume,
            SlotStoreOptions options, Metrics& metrics);
  Task<Status> find_slots();
  Task<void> read_headers(std::shared_ptr<std::deque<SlotPtr>> unread, Status& all);
  Task<Status> examine(SlotPtr slot);
  Task<void> keep_free_ahead();
  Task<Result<SlotPtr>> make_slot(bool urgent = false);
  std::uint64_t kept_free(const DiskSpace& space) const;
  std::uint64_t slots_to_make() const;
  Status leaves_room(bool urgent) const;
  Task<SlotPtr> claim_for_cache(const SegmentId& segment);
  Task<Status> write_range(SlotPtr slot, std::uint64_t offset, ByteView bytes);
  std::uint32_t budget_slots() const;
  bool clean(const Slot& slot) const;
  bool evictable(const Slot& slot) const;
  SlotPtr evict();
  void set_free(const SlotPtr& slot);
  void bind(const SlotPtr& slot, const SegmentId& segment, State state);
  void unbind(const SlotPtr& slot);
  void remove_file(const SlotPtr& slot);
  void unpin(const SlotPtr& slot);
  SlotPtr slot_of(const SegmentId& segment) const;
  bool holds(const SlotPtr& slot, std::uint64_t offset, std::uint64_t length) const;
  Task<Result<CachedBytes>> read_aligned(SlotPtr slot, std::uint64_t offset, std::uint64_t length, bool warm);
  std::shared_ptr<Buffer> buffer_for(std::uint64_t length);

  Runtime& runtime_;
  FileSystem& files_;
  const std::string directory_;
  const VolumeId volume_;
  SlotStoreOptions options_;
  std::uint8_t align_log2_;
  const std::uint64_t slots_openable_;  // by the limit of open files
  Counter& hits_total_;
  Counter& misses_total_;
  Counter& evictions_total_;

  std::map<std::uint32_t, SlotPtr> slots_;  // by number
  std::unordered_map<SegmentId, SlotPtr> by_segment_;
  std::deque<SlotPtr> free_;
  S3Fifo policy_;
  Sequence replay_floor_ = 0;  // until the store says so, nothing stored is evicted
  std::uint32_t next_number_ = 0;
  std::optional<Error> make_error_;  // why the last attempt to make a slot failed
  unsigned waiting_ = 0;             // in take()
  bool closing_ = false;
  std::vector<BufferPool> pools_;  // by power of two

  Signal freed_;        // free_ grew, or closing
  Signal maintenance_;  // there may be work for keep_free_ahead()
  TaskGroup tasks_;
  std::shared_ptr<SlotStore*> self_;
};

}  // namespace cumulus
