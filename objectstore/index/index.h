// Index: where each byte of each object is, every name, every attribute, at every version that a view can
// see.
//
// It is the log replayed: an Engine (rows of groups that are written) and above it an overlay (rows of groups
// that are accepted but not yet applied), so that readers see every accepted change at once, while R1 holds:
// nothing enters the engine before its group was written. One code path gives changes their meaning
// (stage()), for new changes and for replay alike. Thread rule: reactor.
//
// Life of a change: stage(change) [+ more] -> the store closes the group, writes it -> group_written(number,
// area) -> applied to the engine in order by a background task; at most `unapplied_groups_max` groups wait,
// then room_for_group() waits.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/ids.h"
#include "objectstore/base/metrics.h"
#include "objectstore/base/result.h"
#include "objectstore/dataset.h"
#include "objectstore/index/engine.h"
#include "objectstore/io/runtime.h"
#include "objectstore/log/change.h"

namespace cumulus {

// One stretch of an object's bytes in a view, in order and without gaps.
struct Extent {
  enum class Kind : std::uint8_t { data, hole, zero };  // zero: allocated, reads as zeros
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  Kind kind = Kind::hole;
  Run run;                 // data only
  std::uint32_t skip = 0;  // into the run's plain bytes
};

// Where a stored segment is: from the Placed changes.
struct PlacedSegment {
  change::Placed placed;
};

struct IndexOptions {
  std::size_t row_cache_bytes = 64u << 20;  // decoded rows
  std::uint32_t unapplied_groups_max = 8;
  std::uint32_t operands_max = 32;                     // then the writer puts the whole row
  std::uint64_t flush_log_bytes = 512u << 20;          // the engine is flushed at least this often ...
  Duration flush_interval = std::chrono::seconds(60);  // ... and this often
};

class Index {
 public:
  static Task<Result<std::unique_ptr<Index>>> open(Runtime& runtime, std::unique_ptr<Engine> engine,
                                                   IndexOptions options, Metrics& metrics);
  virtual ~Index() = default;

  // --- catalogue (in memory) ---
  virtual const DatasetInfo* dataset(DatasetId id) const = 0;
  virtual const DatasetInfo* dataset(std::string_view name) const = 0;
  virtual std::vector<const DatasetInfo*> datasets() const = 0;
  virtual DatasetId next_dataset() const = 0;

  // --- reading: at a view, seeing every staged change ---
  virtual Task<Result<std::optional<ObjectStat>>> stat(View view, ObjectId object) = 0;
  // Extents covering exactly [offset, offset + length), neighbours merged where they are one run; holes
  // beyond the size.
  virtual Task<Result<std::vector<Extent>>> extents(View view, ObjectId object, std::uint64_t offset,
                                                    std::uint64_t length) = 0;
  // The first offset >= `offset` in a chunk that any version of the object has a row of.
  virtual Task<Result<std::optional<std::uint64_t>>> next_written(View view, ObjectId object,
                                                                  std::uint64_t offset) = 0;
  // The non-blocking form for hot paths: false when a row must come from the disk.
  virtual bool try_size(const View& view, ObjectId object, std::uint64_t& size) = 0;
  virtual bool try_extents(const View& view, ObjectId object, std::uint64_t offset, std::uint64_t length,
                           std::vector<Extent>& into) = 0;
  virtual Task<Result<std::optional<Bytes>>> xattr(View view, ObjectId object, Bytes name) = 0;
  virtual Task<Result<std::vector<OmapEntry>>> xattrs(View view, ObjectId object) = 0;
  virtual Task<Result<std::optional<Bytes>>> omap(View view, ObjectId object, Bytes key) = 0;
  // Up to `limit` entries with key > after (or from the start), ascending.
  virtual Task<Result<std::vector<OmapEntry>>> omap_list(View view, ObjectId object,
                                                         std::optional<Bytes> after, std::size_t limit) = 0;
  // Existing objects of a dataset in a view with id > after, ascending.
  virtual Task<Result<std::vector<ObjectId>>> objects(View view, ObjectId after, std::size_t limit) = 0;
  // Objects that differ between two views of one dataset (ids), ascending, id > after; and the byte ranges
  // that differ.
  virtual Task<Result<std::vector<ObjectId>>> diff_objects(View older, View newer, ObjectId after,
                                                           std::size_t limit) = 0;
  struct ByteRange {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
  };
  virtual Task<Result<std::vector<ByteRange>>> diff_ranges(View older, View newer, ObjectId object,
                                                           std::uint64_t offset, std::uint64_t length) = 0;
  virtual Task<Result<std::optional<PlacedSegment>>> placed(SegmentId segment) = 0;
  // Placed segments of a kind with sequence > after, ascending.
  virtual Task<Result<std::vector<PlacedSegment>>> placed_list(SegmentKind kind, Sequence after,
                                                               std::size_t limit) = 0;

  // --- changing ---
  // Loads what stage() of these changes must look at, so that it then finds it in memory.
  virtual Task<Status> prepare(const std::vector<Change>& changes) = 0;
  // Applies one change to the overlay, in log order, as part of the group that is open now. Synchronous:
  // false when a row it needs is not in memory (nothing was changed): prepare() again. Validation (does the
  // object exist, is the name free, are the lengths sane) is the caller's: a change that contradicts the
  // state is a CHECK here for new changes and `corrupt` in replay().
  virtual bool stage(const Change& change) = 0;
  // The open group was closed: staged changes from now on belong to the next one. `runs` lists its staged
  // runs that were kept.
  virtual void close_group(LogPosition number) = 0;
  // The group was written; staged run s of it now lies at `resolve(s)`, which gives other groups' runs back
  // as they are. In order of number.
  using ResolveRun = std::function<Run(const Run& staged)>;
  virtual void group_written(LogPosition number, std::uint64_t log_bytes, ResolveRun resolve) = 0;
  // Waits until fewer than unapplied_groups_max written groups wait to be applied. Error: the engine failed.
  // While the engine's disk refuses (full, passing errors), not beyond `until`: then with that error.
  virtual Task<Status> room_for_group(TimePoint until) = 0;
  // Everything staged and not yet written is forgotten: the log is read-only and the group never became part
  // of it. Readers then see the written state.
  virtual Task<Status> abandon_unwritten() = 0;

  // Replay: changes of one group that is in the log already, in order.
  virtual Task<Status> replay(LogPosition number, std::vector<Change> changes) = 0;

  virtual LogPosition applied() const = 0;  // highest group in the engine
  virtual LogPosition durable() const = 0;  // highest group that the engine keeps across power loss
  virtual Task<Status> flush() = 0;         // applies all written groups and makes them durable
  virtual Engine& engine() = 0;
  // Walks the whole index and says the first inconsistency it finds (`volume check`): rows decode, pieces do
  // not overlap, catalogue and versions agree. `progress` gets rows seen.
  virtual Task<Status> check(std::function<void(std::uint64_t)> progress) = 0;
  virtual Task<Status> close() = 0;
};

}  // namespace cumulus
