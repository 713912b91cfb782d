// StoreVolume: the Volume put together from its rooms, and the rules that tie them: a sealed segment goes to
// the pusher; a stored one is written down (Placed), advances the tail, and may leave the disk once the
// durable index has passed what says where it is; a fenced volume turns read-only and says so. Reactor
// thread. Opening is in opening.cc.
#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "objectstore/cache/slot_store.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/log/replay.h"
#include "objectstore/object_store.h"
#include "objectstore/store/committer.h"
#include "objectstore/store/endable_transport.h"
#include "objectstore/store/home_file.h"
#include "objectstore/store/inventory.h"
#include "objectstore/store/pusher.h"
#include "objectstore/store/reader.h"
#include "objectstore/store/tail_keeper.h"

namespace cumulus {

// R1's barrier, called by the index's threads: the log writer once there is one. While the local log is
// replayed there is nothing to wait for: its files were synced before.
class LogBarrier {
 public:
  void attach(LogWriter* log) { log_.store(log); }
  Status operator()() const {
    LogWriter* log = log_.load();
    return log == nullptr ? Status() : log->make_durable_blocking();
  }

 private:
  std::atomic<LogWriter*> log_{nullptr};
};

class StoreVolume final : public Volume {
 public:
  StoreVolume(VolumeParts parts, VolumeOptions options);
  ~StoreVolume() override;

  // --- opening.cc ---
  Task<Status> create(VolumeShape shape);
  Task<Status> open(OpenMode mode);
  Task<Status> recover(OpenMode mode, bool accept_loss, Progress progress);
  // Stops whatever an opening that failed had started.
  Task<Status> abandon() { return close(); }

  // --- Volume ---
  std::vector<DatasetInfo> datasets() const override;
  const DatasetInfo* find_dataset(std::string_view name) const override;
  const DatasetInfo* find_dataset(DatasetId id) const override;
  Task<Result<DatasetId>> create_dataset(std::string name, DatasetOptions options) override;
  Task<Status> remove_dataset(DatasetId id) override;
  Task<Status> rename_dataset(DatasetId id, std::string name) override;
  Task<Status> set_quota(DatasetId id, std::uint32_t tree, std::uint64_t bytes,
                         std::uint64_t objects) override;
  Task<Status> create_snapshots(std::vector<SnapshotTarget> targets) override;
  Task<Status> remove_snapshot(DatasetId id, std::string name) override;
  Task<Status> detach(DatasetId id, View head) override;
  Task<Status> rollback(DatasetId id, std::string snapshot) override;
  Task<Result<std::vector<DatasetId>>> clone(DatasetId id, std::string snapshot,
                                             std::vector<std::string> names) override;
  Result<ObjectId> allocate_object(DatasetId dataset) override;
  Task<Result<Commit>> commit(Transaction transaction) override;
  Task<Result<std::optional<ObjectStat>>> stat(View view, ObjectId object) override;
  Task<Result<std::size_t>> read(View view, ObjectId object, std::uint64_t offset, MutableByteView into,
                                 Warming warming) override;
  bool try_read(const View& view, ObjectId object, std::uint64_t offset, MutableByteView into,
                Result<std::size_t>& answer) override;
  Task<Result<std::vector<Stretch>>> stretches(View view, ObjectId object, std::uint64_t offset,
                                               std::uint64_t length) override;
  Task<Result<std::optional<std::uint64_t>>> next_written(View view, ObjectId object,
                                                          std::uint64_t offset) override;
  Task<Result<std::optional<Bytes>>> xattr(View view, ObjectId object, Bytes name) override;
  Task<Result<std::vector<OmapEntry>>> xattrs(View view, ObjectId object) override;
  Task<Result<std::optional<Bytes>>> omap(View view, ObjectId object, Bytes key) override;
  Task<Result<std::vector<OmapEntry>>> omap_list(View view, ObjectId object, std::optional<Bytes> after,
                                                 std::size_t limit) override;
  Task<Result<std::vector<ObjectId>>> diff_objects(View older, View newer, ObjectId after,
                                                   std::size_t limit) override;
  Task<Result<std::vector<Range>>> diff_ranges(View older, View newer, ObjectId object, std::uint64_t offset,
                                               std::uint64_t length) override;
  Task<Status> flush(Durability level, Progress progress) override;
  Task<Status> flush() override { return flush(options_.flush_means, {}); }
  void hasten() override { committer_->hasten(); }
  Task<Status> wait(Commit commit, Durability level, Progress progress = {}) override;
  std::optional<Error> loss() const override;
  Task<Status> wait(Commit commit) override { return wait(commit, options_.flush_means); }
  Task<Result<VolumeStatus>> status(bool ask_miners) override;
  Task<Result<CheckReport>> check(bool with_data, Progress progress) override;
  Task<Result<RepairReport>> repair(RepairOptions options, Progress progress) override;
  Task<Status> drop_cache() override;
  std::vector<MinerEntry> miners() const override;
  std::string obstacle() const override;
  Task<Status> set_miners(std::vector<MinerEntry> miners, bool lost,
                          std::optional<std::vector<MinerEntry>> expected) override;
  void set_options(const VolumeOptions& options) override;
  void stop_waiting() override;
  Task<Status> close() override;

 private:
  // --- opening.cc ---
  // Where the local log begins to be needed: after segment `sequence`, whose last group was `last_group`.
  struct ReplayMark {
    Sequence sequence = 0;
    Digest chain{};
    LogPosition last_group = 0;
    std::array<std::uint8_t, 16> tag{};
  };
  InstanceId new_instance() const;
  Task<Status> open_rooms(const Superblock& record, bool fresh_index);
  Task<bool> ends_before(const Tail& tail);
  Status belongs(const Tail& tail) const;
  bool parts_from(const Tail& tail) const;
  bool begins_here(const Tail& tail) const;
  Task<Status> close_rooms();
  Task<Status> open_index(bool fresh);
  void make_tail_keeper(const Superblock& known, std::function<Status(const Tail&)> belongs = {});
  Task<Status> replay_local(const Tail& tail, LogStart& next, std::vector<SealedSegment>& segments);
  Task<Result<FetchedSegment>> fetch_wanted(WantedSegment wanted);
  Task<Status> rebuild_from_miners(Tail& tail, bool accept_loss, const Progress& progress, LogStart& next);
  Task<Status> start_writing(LogStart start, std::vector<SealedSegment> segments, Tail tail);
  Task<Status> count_stored();
  Task<Result<std::uint64_t>> count_crowded();  // as they lie now: a repair spreads them
  Task<Status> note_placements();
  Task<Status> take_over(const Superblock& newest, Ballot highest, Adopt adopt);
  Task<Status> recover_from(const Superblock& newest, Ballot highest, Adopt adopt, bool accept_loss,
                            Progress progress);
  Error fenced_error(const Superblock& newest) const;
  Task<Status> begin_later();
  // --- home_marks.cc ---
  Task<Status> save_replay_start();  // and moves the cache's floor
  Task<ReplayStart> load_replay_start();
  Task<std::optional<SegmentId>> load_repair_position();
  Task<void> keep_repair_position(std::optional<SegmentId> through);
  // --- members.cc ---
  Task<void> follow_claimed_list();
  Task<Status> may_go(std::vector<MinerEntry> gone);
  Task<Status> may_come(std::vector<MinerEntry> fresh);
  Task<void> take_back(std::vector<MinerEntry> before, std::uint64_t change);
  // --- store_volume.cc ---
  Task<Status> count_degraded(VolumeStatus& status);

  Task<Status> commit_one(Change change);
  Task<Status> commit_decided(Committer::BuildChanges build);
  Task<Status> remote(LogPosition position, const Progress& progress);
  void segment_sealed(SealedSegment segment);
  Task<Status> segment_stored(change::Placed placed);
  Task<Result<std::shared_ptr<const Buffer>>> load_segment(SealedSegment segment);
  Status room_for(std::uint64_t bytes) const;
  Task<Result<bool>> compare_bytes(const Transaction::Body::Compare& compare);
  void release_stored();
  bool may_begin_later() const;
  Task<void> mark_closed();
  Task<void> tell_closed();
  Task<void> keep_house();
  void fenced(const Error& reason);

  VolumeParts parts_;
  EndableTransport transport_;  // what keeps the volume stored; until close()
  EndableTransport asked_;      // reads and care; until stop_waiting()
  VolumeOptions options_;
  VolumeShape shape_;
  VolumeId id_;
  Epoch epoch_ = 0;
  std::string read_only_reason_;
  LogPosition recovered_ = 0;
  std::uint64_t stored_bytes_ = 0;
  std::uint64_t stored_segments_ = 0;
  std::map<DatasetId, ObjectId> next_objects_;

  HomeFile home_;
  LogBarrier barrier_;
  std::unique_ptr<SlotStore> slots_;
  std::unique_ptr<Index> index_;
  std::unique_ptr<LogWriter> log_;
  std::unique_ptr<TailKeeper> tail_;
  std::unique_ptr<Pusher> pusher_;
  std::unique_ptr<SegmentKeys> keys_;
  std::unique_ptr<SliceFetcher> fetcher_;
  std::unique_ptr<Committer> committer_;
  std::unique_ptr<CellReader> cells_;
  std::unique_ptr<Reader> reader_;

  struct Evictable {
    SegmentId segment;
    LogPosition placed_at = 0;  // the group that says where it is
  };
  std::deque<Evictable> evictable_;
  // Log segments of which the durable index does not say yet that miners hold them: the mark and eviction
  // stay behind the first.
  std::set<Sequence> unplaced_;
  std::deque<ReplayMark> replay_marks_;             // the first is what DIR/replay says, or will
  std::map<Sequence, Digest> own_chains_;           // of the local log as it was opened
  std::unique_ptr<Inventory> inventory_;            // between a rebuild and note_placements()
  std::set<const Inventory::Segment*> of_the_log_;  // of inventory_: what was replayed
  std::set<SegmentId> damaged_;                     // seen to have wrong slices by the last check or repair
  bool repairing_ = false;
  std::uint64_t list_changes_ = 0;  // calls of set_miners()
  bool closing_ = false;
  Sequence saved_mark_ = 0;  // of the mark that DIR/replay has
  Semaphore list_turn_;      // one at a time changes the miner list
  Semaphore mark_turn_;      // one at a time saves DIR/replay
  Signal house_;
  TaskGroup tasks_;
};

}  // namespace cumulus
