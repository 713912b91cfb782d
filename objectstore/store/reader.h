// Reader: object bytes at a view. View -> extents -> cells, each from the first place that has it: the open
// group, the segment still in memory, a segment read a moment ago, the local cache, the miners.
//
// A cell that does not open is never returned: the next place is tried. A bad cell in the local cache is a
// miss; in a segment that is not stored yet it is an error and an alarm. A segment that is gone makes the
// reader look its row up again (relocation) before it complains. Large or sequential reads fetch whole
// segments, ahead of the reader. Reactor thread; opening of many cells runs on workers.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "objectstore/cache/slot_store.h"
#include "objectstore/index/index.h"
#include "objectstore/io/sync.h"
#include "objectstore/log/log_writer.h"
#include "objectstore/memory_shares.h"
#include "objectstore/store/committer.h"
#include "objectstore/store/segment_keys.h"
#include "objectstore/store/slice_fetcher.h"

namespace cumulus {

class CellReader;

// Where the sealed bytes of runs come from, below the open group.
class CellReader {
 public:
  CellReader(Runtime& runtime, LogWriter& log, SlotStore& slots, Index& index, SliceFetcher& fetcher,
             SegmentKeys& keys, const MemoryShares& memory, Metrics& metrics);
  ~CellReader();

  // Opens run bytes [skip, skip + into.size()) into `into`, which the caller keeps until done. Errors:
  // corrupt, unavailable (outage longer than `patience`), not_found (the segment is unknown: the row was
  // relocated), closed.
  Task<Status> read(Run run, std::uint32_t skip, MutableByteView into, Warming warming,
                    std::optional<Duration> patience);
  // Memory only; false when it must wait.
  bool try_read(const Run& run, std::uint32_t skip, MutableByteView into);
  // Brings the whole segment near (memory and cache) in the background; does nothing when it is there or too
  // much is under way.
  void prefetch(const SegmentId& segment, std::optional<Duration> patience);
  // drop-cache: whole segments kept in memory go too.
  void forget_recent() { recent_.clear(); }
  Task<void> close();

 private:
  struct Whole {
    SegmentId segment;
    std::array<std::uint8_t, 16> salt;
    std::shared_ptr<const Buffer> bytes;
    std::uint32_t length = 0;
  };
  struct Fetching {
    explicit Fetching(Runtime& runtime) : done(runtime) {}
    Signal done;
    bool ended = false;
    Status status;
  };
  struct Cells;  // the cells that a read touches

  const Whole* recent(const SegmentId& segment);
  void remember(Whole whole);
  Task<bool> open_cells(const SegmentId& segment, std::array<std::uint8_t, 16> salt, Cells cells,
                        ByteView sealed, std::shared_ptr<const void> owner, MutableByteView into);
  Task<Result<bool>> read_cached(Cells cells, const std::optional<PlacedSegment>& placed, Warming warming,
                                 MutableByteView into);
  Task<Status> read_remote(change::Placed placed, Cells cells, MutableByteView into,
                           std::optional<Duration> patience);
  Task<Status> fetch_whole(change::Placed placed, FetchTrust trust, std::optional<Duration> patience);
  Task<Status> enter_fetching(std::uint64_t bytes, std::optional<Duration> patience);
  void leave_fetching(std::uint64_t bytes);
  Task<void> fetch_ahead(change::Placed placed, std::optional<Duration> patience);

  Runtime& runtime_;
  LogWriter& log_;
  SlotStore& slots_;
  Index& index_;
  SliceFetcher& fetcher_;
  SegmentKeys& keys_;
  Counter& cache_hits_;
  Counter& cache_misses_;
  Counter& cache_rot_;
  const std::uint64_t recent_max_;
  const std::uint64_t fetching_max_;
  std::list<Whole> recent_;           // newest first, recent_max_ bytes at most
  std::uint64_t fetching_bytes_ = 0;  // what whole segments hold from the asking to the local disk
  Signal fetching_room_;
  std::unordered_map<SegmentId, std::shared_ptr<Fetching>> fetching_;
  std::uint32_t ahead_ = 0;
  bool closing_ = false;
  TaskGroup tasks_;
};

class Reader {
 public:
  Reader(Runtime& runtime, Index& index, Committer& committer, CellReader& cells, VolumeOptions options);

  Task<Result<std::size_t>> read(View view, ObjectId object, std::uint64_t offset, MutableByteView into,
                                 Warming warming);
  bool try_read(const View& view, ObjectId object, std::uint64_t offset, MutableByteView into,
                Result<std::size_t>& answer);
  void set_options(const VolumeOptions& options) { options_ = options; }

 private:
  struct Stream {  // one sequential reader of one object
    DatasetId dataset = 0;
    ObjectId object = 0;
    std::uint64_t next = 0;
    std::uint32_t streak = 0;
    std::uint64_t ahead_until = 0;
  };
  Task<Status> read_extent(Extent extent, MutableByteView into, Warming warming);
  Task<Status> read_ahead(View view, ObjectId object, std::uint64_t offset, std::uint64_t length);
  bool is_sequential(const View& view, ObjectId object, std::uint64_t offset, std::uint64_t length,
                     std::uint64_t& ahead_from);

  Runtime& runtime_;
  Index& index_;
  Committer& committer_;
  CellReader& cells_;
  VolumeOptions options_;
  std::list<Stream> streams_;  // newest first, at most kStreamsMax
};

}  // namespace cumulus
