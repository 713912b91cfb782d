// StoreIndex: the Index over any Engine. Three layers answer a look-up: the overlay (rows of groups not
// applied yet), the cache of decoded chains, the engine. Reads and changes work on memory; what is missing is
// loaded and the attempt made again, so that every decision is taken in one uninterrupted step.
//
// A load that overlaps the application of a group to the same row is repeated: it may have seen the row from
// before, whose overlay is gone by now. Reactor thread. Parts: reading.cc, staging.cc, applying.cc.
#pragma once

#include <deque>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "objectstore/index/catalogue.h"
#include "objectstore/index/chain_cache.h"
#include "objectstore/index/index.h"
#include "objectstore/io/sync.h"
#include "objectstore/key_space.h"

namespace cumulus {

class StoreIndex final : public Index {
 public:
  StoreIndex(Runtime& runtime, std::unique_ptr<Engine> engine, IndexOptions options, Metrics& metrics);
  ~StoreIndex() override;
  Task<Status> start();

  const DatasetInfo* dataset(DatasetId id) const override { return catalogue_.find(id); }
  const DatasetInfo* dataset(std::string_view name) const override { return catalogue_.find(name); }
  std::vector<const DatasetInfo*> datasets() const override { return catalogue_.all(); }
  DatasetId next_dataset() const override { return catalogue_.next(); }

  Task<Result<std::optional<ObjectStat>>> stat(View view, ObjectId object) override;
  Task<Result<std::vector<Extent>>> extents(View view, ObjectId object, std::uint64_t offset,
                                            std::uint64_t length) override;
  bool try_size(const View& view, ObjectId object, std::uint64_t& size) override;
  bool try_extents(const View& view, ObjectId object, std::uint64_t offset, std::uint64_t length,
                   std::vector<Extent>& into) override;
  Task<Result<std::optional<std::uint64_t>>> next_written(View view, ObjectId object,
                                                          std::uint64_t offset) override;
  Task<Result<std::optional<Bytes>>> xattr(View view, ObjectId object, Bytes name) override;
  Task<Result<std::vector<OmapEntry>>> xattrs(View view, ObjectId object) override;
  Task<Result<std::optional<Bytes>>> omap(View view, ObjectId object, Bytes key) override;
  Task<Result<std::vector<OmapEntry>>> omap_list(View view, ObjectId object, std::optional<Bytes> after,
                                                 std::size_t limit) override;
  Task<Result<std::vector<ObjectId>>> objects(View view, ObjectId after, std::size_t limit) override;
  Task<Result<std::vector<ObjectId>>> diff_objects(View older, View newer, ObjectId after,
                                                   std::size_t limit) override;
  Task<Result<std::vector<ByteRange>>> diff_ranges(View older, View newer, ObjectId object,
                                                   std::uint64_t offset, std::uint64_t length) override;
  Task<Result<std::optional<PlacedSegment>>> placed(SegmentId segment) override;
  Task<Result<std::vector<PlacedSegment>>> placed_list(SegmentKind kind, Sequence after,
                                                       std::size_t limit) override;

  Task<Status> prepare(const std::vector<Change>& changes) override;
  bool stage(const Change& change) override;
  void close_group(LogPosition number) override;
  void group_written(LogPosition number, std::uint64_t log_bytes, ResolveRun resolve) override;
  Task<Status> room_for_group(TimePoint until) override;
  Task<Status> abandon_unwritten() override;
  Task<Status> replay(LogPosition number, std::vector<Change> changes) override;

  LogPosition applied() const override { return engine_->applied(); }
  LogPosition durable() const override { return engine_->durable(); }
  Task<Status> flush() override;
  Engine& engine() override { return *engine_; }
  Task<Status> check(std::function<void(std::uint64_t)> progress) override;
  Task<Status> close() override;

 private:
  // One row as one group left it, above what is older.
  struct OverlayRow {
    Version version = 0;
    LogPosition group = 0;
    RowValue value;
  };
  using OverlayRows = std::vector<OverlayRow>;  // newest first: version, then group
  using Overlay = std::map<std::string, OverlayRows, std::less<>>;

  struct Group {
    LogPosition number = 0;
    // Its rows: one in each entry at that version. The entry stays while any group has a row in it.
    std::vector<std::pair<Overlay::iterator, Version>> touched;
    std::vector<RowUpdate> catalogue;  // rows of dataset 0, as of the group's end
    std::map<SegmentId, change::Placed> placed;
    std::uint64_t log_bytes = 0;
    bool written = false;
    bool has_clones = false;  // its rows may name staged runs of earlier groups
  };
  // What Truncate, Zero and CloneRange must know beyond single rows; good while nothing else was staged.
  struct Plan {
    Change change;  // that it was made for
    std::uint64_t stage_count = 0;
    std::uint64_t written_count = 0;
    std::set<std::uint64_t> chunks;  // of the target that exist in the view, here or in the engine
    std::vector<Extent> extents;     // CloneRange: the source's
  };
  // Loads of one row that are under way, and how often a group was applied to it meanwhile.
  struct Loading {
    std::uint32_t count = 0;
    std::uint64_t applied = 0;
  };
  enum class Staged : std::uint8_t { done, needs_rows, contradiction };

  // --- reading.cc ---
  const OverlayRows* overlay_of(const std::string& prefix) const;
  // False: `missing` is a prefix whose chain must be loaded first.
  template <class Row>
  bool find_point(const View& view, const std::function<std::string(DatasetId)>& prefix_of,
                  std::optional<Row>& found, std::string& missing);
  bool find_header(const View& view, ObjectId object, std::optional<HeaderRow>& found, std::string& missing);
  bool assemble_chunk(const View& view, ObjectId object, std::uint64_t chunk, std::uint32_t from,
                      std::uint32_t to, ChunkRow& row, std::string& missing);
  std::uint8_t chunk_log2_of(const View& view) const;
  Version dataset_version(DatasetId id) const;
  Task<Status> load_chain(std::string prefix);
  // Of an object that the view has not, nothing is found.
  template <class Row>
  bool find_of_object(const View& view, ObjectId object,
                      const std::function<std::string(DatasetId)>& prefix_of, std::optional<Row>& found,
                      std::string& missing);
  template <class Attempt>
  Task<Status> with_rows(Attempt attempt) {
    for (;;) {
      std::string missing;
      if (attempt(missing)) co_return Status();
      CO_TRY_OK(co_await load_chain(std::move(missing)));
    }
  }
  Task<Result<std::vector<OmapEntry>>> list_values(View view, ObjectId object, RowKind kind,
                                                   std::optional<Bytes> after, std::size_t limit);
  // Subkeys (escaped) of rows of one kind of one object, in any dataset of the view, > after, ascending; at
  // most `limit` of the engine's, and all of the overlay's up to the last of them. `done`: there are no more.
  Status keep_chains(const std::vector<KeyValue>& page, bool complete);
  Task<Result<std::set<std::string>>> next_subkeys(const View& view, ObjectId object, RowKind kind,
                                                   std::optional<std::string> after, std::size_t limit,
                                                   bool& done);

  // --- staging.cc ---
  Task<Status> prepare_one(const Change& change);
  bool planned(const Change& change) const;
  Task<Result<std::set<std::uint64_t>>> existing_chunks(const View& view, ObjectId object, std::uint64_t from,
                                                        std::uint64_t to);
  Staged stage_change(const Change& change);
  Staged stage_write(const change::Write& write);
  Staged stage_zero(const change::Zero& zero);
  Staged stage_truncate(const change::Truncate& truncate);
  Staged stage_clone(const change::CloneRange& clone);
  Staged stage_relocate(const change::Relocate& relocate);
  Staged header_of(ObjectRef object, HeaderRow& header);
  void put_header(ObjectRef object, HeaderRow header);
  void put_value(const std::string& prefix, DatasetId dataset, ValueRow row);
  void put_piece(ObjectRef object, std::uint64_t chunk, const Piece& piece);
  void put_range(ObjectRef object, std::uint64_t offset, std::uint64_t length, Piece::Kind kind,
                 const std::set<std::uint64_t>& existing);
  RowValue& overlay_row(const std::string& prefix, Version version, RowValue empty);

  // --- applying.cc ---
  void resolve_group(Group& group, bool own, const std::function<Run(const Run&)>& place);
  Task<void> apply_groups();
  Task<Status> apply_group(const Group& group);
  Task<void> flush_by_pace();
  bool may_pass(const Error& error);
  std::vector<RowUpdate> updates_of(const Group& group);
  void settle(const Group& group);
  Task<Status> load_catalogue();
  bool wants_flush() const;

  Runtime& runtime_;
  std::unique_ptr<Engine> engine_;
  IndexOptions options_;
  Catalogue catalogue_;
  ChainCache cache_;
  Counter& rows_loaded_;
  Counter& rows_applied_;

  Overlay overlay_;
  std::deque<Group> groups_;  // closed, in order; the open one is apart
  Group open_;
  std::set<DatasetId> changed_datasets_;
  std::set<DatasetId> counted_datasets_;
  std::unordered_map<std::string, Loading> loading_;  // by prefix
  std::optional<Plan> plan_;
  std::uint64_t stage_count_ = 0;
  std::uint64_t written_count_ = 0;
  std::uint64_t settled_ = 0;  // groups that have left the overlay
  std::map<SegmentId, change::Placed> placed_cache_;

  std::uint64_t bytes_since_flush_ = 0;
  TimePoint flushed_at_;
  std::optional<Error> trouble_;  // of the engine's disk, and tried again
  unsigned failures_in_a_row_ = 0;
  std::optional<Error> failure_;
  bool closing_ = false;
  Signal work_;     // groups to apply, or closing
  Signal applied_;  // a group was applied, or the engine failed
  TaskGroup tasks_;
};

}  // namespace cumulus
