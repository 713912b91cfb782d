// The object store's door, librados in spirit: Volume -> Dataset -> View; compound atomic writes; reads at a
// view; flush() to Local, sync() to Remote. File systems and disks are written only against this.
//
// Everything a Volume owns lives on one reactor thread: call it there (io/runtime.h). Calls may overlap; each
// documents when its effect is visible. The volume's parts are handed in by whoever assembles the program
// (tools/cumulus/assemble).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/ids.h"
#include "objectstore/base/metrics.h"
#include "objectstore/base/result.h"
#include "objectstore/dataset.h"
#include "objectstore/durability.h"
#include "objectstore/io/file.h"
#include "objectstore/io/runtime.h"
#include "objectstore/options.h"
#include "objectstore/slice_transport.h"
#include "objectstore/superblock.h"

namespace cumulus {

class KeyTree;
class Engine;

// A compound write: all of it or nothing, in the order given, seen by readers at once. Built by the caller,
// committed once. Data is copied in by write(); write_shared() keeps the caller's memory instead (unchanged
// until committed).
class Transaction {
 public:
  Transaction();
  ~Transaction();
  Transaction(Transaction&&) noexcept;
  Transaction& operator=(Transaction&&) noexcept;

  // Asserts: the commit fails with `exists` / `not_found` and changes nothing when one does not hold.
  void assert_exists(ObjectRef object);
  void assert_absent(ObjectRef object);
  void assert_omap(ObjectRef object, Bytes key, std::optional<Bytes> expected);  // nullopt: the key is absent
  void assert_xattr(ObjectRef object, Bytes name, std::optional<Bytes> expected);  // nullopt: it has none
  void assert_size(ObjectRef object, std::uint64_t at_least);
  void compare(ObjectRef object, std::uint64_t offset, Bytes expected);

  void create(ObjectRef object, Bytes header);  // id from Volume::allocate_object()
  void remove(ObjectRef object);
  void write(ObjectRef object, std::uint64_t offset, ByteView data);
  void write_shared(ObjectRef object, std::uint64_t offset, ByteView data, std::shared_ptr<const void> owner);
  void append(ObjectRef object, ByteView data);
  void zero(ObjectRef object, std::uint64_t offset, std::uint64_t length, bool allocated, bool grow);
  void truncate(ObjectRef object, std::uint64_t size);
  void set_header(ObjectRef object, Bytes header);
  void set_xattr(ObjectRef object, Bytes name, Bytes value);
  void remove_xattr(ObjectRef object, Bytes name);
  void set_omap(ObjectRef object, Bytes key, Bytes value);
  void remove_omap(ObjectRef object, Bytes key);
  void clone_range(ObjectRef source, std::uint64_t source_offset, ObjectRef target,
                   std::uint64_t target_offset, std::uint64_t length);
  // Counted under a quota tree; 0 is the dataset. The commit fails (no_space, "quota") when the transaction's
  // sum for a tree is above zero and does not fit its limit.
  void add_usage(DatasetId dataset, std::uint32_t tree, std::int64_t bytes, std::int64_t objects);
  void set_quota(DatasetId dataset, std::uint32_t tree, std::uint64_t bytes, std::uint64_t objects);

  struct Body;  // store/transaction.h
  Body& body() { return *body_; }

 private:
  std::unique_ptr<Body> body_;
};

// Where a commit stands in the log: wait for it with Volume::wait().
struct Commit {
  LogPosition position = 0;
};

struct DatasetOptions {
  DatasetType type = DatasetType::bucket;
  std::uint8_t chunk_log2 = 20;
  std::uint8_t cell_log2 = 14;
};

struct MinerHealth {
  MinerEntry entry;
  bool answers = false;
  std::string error;  // why not
  MinerStatus status;
};

struct VolumeStatus {
  VolumeId id;
  VolumeShape shape;
  Epoch epoch = 0;
  bool writable = false;
  std::string read_only_reason;
  std::uint64_t capacity = 0;  // bytes a user can store in all: miners' capacity x k/(k+m)
  std::uint64_t free = 0;
  std::uint64_t used = 0;              // logical bytes of the log on the miners, garbage included
  std::uint64_t live = 0;              // bytes that a view can see (estimate from dataset usage)
  std::uint64_t garbage = 0;           // used - live
  bool disks_uncounted = false;        // there are disk images: what they hold is in `garbage`, not in `live`
  std::uint64_t dirty = 0;             // bytes not yet Remote
  std::uint64_t segments = 0;          // stored
  std::uint64_t segments_crowded = 0;  // more than one slice on a miner; counted by status(true)
  // With slices that are missing (by the miners' own word, or because they do not answer) or were seen to be
  // wrong by a check or a repair; counted by status(true).
  std::uint64_t segments_degraded = 0;
  LogPosition accepted = 0;  // last group drafted or written
  LogPosition written = 0;
  LogPosition durable = 0;  // Local
  LogPosition remote = 0;   // Remote
  Tail tail;
  LogPosition recovered = 0;  // what this opening found
  QuorumShape quorum;
  std::uint64_t cache_bytes = 0;
  std::vector<MinerHealth> miners;  // filled by status(true)
};

// Progress of long work: done and total in `unit`s (bytes or segments); return false to interrupt (Error:
// closed).
using Progress = std::function<bool(std::uint64_t done, std::uint64_t total)>;

struct CheckReport {
  std::uint64_t rows = 0;
  std::uint64_t segments = 0;
  std::uint64_t slices = 0;  // looked at, with data
  std::uint64_t slices_missing = 0;
  std::uint64_t slices_wrong = 0;
  std::uint64_t cells = 0;
  std::vector<std::string> problems;  // at most 100, the first ones
  bool clean() const { return problems.empty() && slices_missing == 0 && slices_wrong == 0; }
};

struct RepairReport {
  std::uint64_t segments = 0;
  std::uint64_t rebuilt = 0;       // slices
  std::uint64_t spread = 0;        // slices moved off a crowded miner
  std::uint64_t unrepairable = 0;  // segments with fewer than k good slices
  std::uint64_t resumed = 0;       // segments that an interrupted run had looked at and this one left alone
  std::uint64_t unspread = 0;      // segments left crowded or on a draining miner though the list has enough
  std::vector<std::string> problems;
  bool whole() const { return unrepairable == 0 && unspread == 0 && problems.empty(); }
};

struct RepairOptions {
  bool restart = false;  // look at every segment again, whatever an interrupted run has done already
};

// What a Volume is made of. All outlive it. `directory` is the volume's own folder of the home.
struct VolumeParts {
  Runtime& runtime;
  FileSystem& disk;
  SliceTransport& transport;
  const KeyTree& keys;
  Metrics& metrics;
  std::string directory;
  // Opens the index's engine; `barrier` makes all written log groups durable, from any thread (R1). `fresh`:
  // discard what is there.
  std::function<Task<Result<std::unique_ptr<Engine>>>(std::string directory, std::function<Status()> barrier,
                                                      bool fresh)>
      open_engine;
  std::string writer_label;  // "user@host", shown to whoever is fenced out
  // Miners that the list names no more and that may hold slices still: destroy() visits them too.
  std::vector<MinerEntry> former_miners;
};

enum class OpenMode : std::uint8_t {
  read_write,
  steal,  // take the volume over from a home that did not close cleanly
};

class Volume {
 public:
  // Makes a new volume: proposes its first superblock at a quorum of holders.
  static Task<Result<std::unique_ptr<Volume>>> create(VolumeParts parts, VolumeShape shape,
                                                      VolumeOptions options);
  // Opens it from this home: replays the local log, then promises its ballot in the background when this home
  // wrote the newest record it knows. Errors: fenced (names host, user and since when), corrupt, unsupported,
  // unavailable.
  static Task<Result<std::unique_ptr<Volume>>> open(VolumeParts parts, VolumeOptions options, OpenMode mode);
  // Rebuilds it in an empty home from the miners alone: newest accepted tail, full replay. `accept_loss`: go
  // on with the longest whole prefix when the tail's segments cannot all be read. Then like open().
  static Task<Result<std::unique_ptr<Volume>>> recover(VolumeParts parts, VolumeOptions options,
                                                       OpenMode mode, bool accept_loss, Progress progress);
  // Ends a volume that nobody has open on this home, for good: a quorum accepts the destroyed mark, then
  // every slice is deleted on every miner that answers. Returns those that were not told, or not to the end,
  // each with the reason. Until that list is empty it may be called again and goes on from where it came to.
  // From the moment that the mark is first offered to a miner this home opens the volume no more; an error
  // before that says that nothing was destroyed. Errors: as open(), not_found, closed (interrupted).
  static Task<Result<std::vector<std::string>>> destroy(VolumeParts parts, VolumeOptions options,
                                                        Progress progress);
  virtual ~Volume() = default;

  // --- datasets ---
  virtual std::vector<DatasetInfo> datasets() const = 0;
  virtual const DatasetInfo* find_dataset(std::string_view name) const = 0;
  virtual const DatasetInfo* find_dataset(DatasetId id) const = 0;
  virtual Task<Result<DatasetId>> create_dataset(std::string name, DatasetOptions options) = 0;
  virtual Task<Status> remove_dataset(DatasetId id) = 0;
  virtual Task<Status> rename_dataset(DatasetId id, std::string name) = 0;
  virtual Task<Status> set_quota(DatasetId id, std::uint32_t tree, std::uint64_t bytes,
                                 std::uint64_t objects) = 0;
  // One instant for all targets: one transaction.
  struct SnapshotTarget {
    DatasetId dataset = 0;
    std::string name;
  };
  virtual Task<Status> create_snapshots(std::vector<SnapshotTarget> targets) = 0;
  virtual Task<Status> remove_snapshot(DatasetId id, std::string name) = 0;
  virtual Task<Status> rollback(DatasetId id, std::string snapshot) = 0;
  virtual Task<Result<std::vector<DatasetId>>> clone(DatasetId id, std::string snapshot,
                                                     std::vector<std::string> names) = 0;
  // Cuts a clone off from its parents: its head shows its own rows only from then on. The caller has made
  // those cover all that `head` shows (clone_range of an object onto itself does). invalid: the head is not
  // `head` any more (a rollback came between); nothing was done. Snapshots keep the parents.
  virtual Task<Status> detach(DatasetId id, View head) = 0;

  // --- objects ---
  // Never used again in the dataset, not even after a crash once a transaction that names it was accepted.
  virtual Result<ObjectId> allocate_object(DatasetId dataset) = 0;
  // Visible to readers when it returns. Waits for space and for room in the log. Errors: exists, not_found
  // (an assert), no_space (quota), invalid, fenced, io.
  virtual Task<Result<Commit>> commit(Transaction transaction) = 0;
  virtual Task<Result<std::optional<ObjectStat>>> stat(View view, ObjectId object) = 0;
  // Bytes read: fewer than asked only at the object's end. not_found when the object is not in the view.
  // Never returns bytes that did not verify: corrupt or unavailable instead.
  virtual Task<Result<std::size_t>> read(View view, ObjectId object, std::uint64_t offset,
                                         MutableByteView into, Warming warming = Warming::small) = 0;
  // The non-blocking form: false when it must wait (then call read()); never touches disk or network.
  virtual bool try_read(const View& view, ObjectId object, std::uint64_t offset, MutableByteView into,
                        Result<std::size_t>& answer) = 0;
  struct Stretch {
    enum class Kind : std::uint8_t { data, hole, zero };
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    Kind kind = Kind::hole;
  };
  virtual Task<Result<std::vector<Stretch>>> stretches(View view, ObjectId object, std::uint64_t offset,
                                                       std::uint64_t length) = 0;
  // The first offset >= `offset` from which stretches() may say anything but hole, whatever the object's
  // size; nullopt: none. Costs one look-up, however far it is.
  virtual Task<Result<std::optional<std::uint64_t>>> next_written(View view, ObjectId object,
                                                                  std::uint64_t offset) = 0;
  virtual Task<Result<std::optional<Bytes>>> xattr(View view, ObjectId object, Bytes name) = 0;
  virtual Task<Result<std::vector<OmapEntry>>> xattrs(View view, ObjectId object) = 0;
  virtual Task<Result<std::optional<Bytes>>> omap(View view, ObjectId object, Bytes key) = 0;
  virtual Task<Result<std::vector<OmapEntry>>> omap_list(View view, ObjectId object,
                                                         std::optional<Bytes> after, std::size_t limit) = 0;
  virtual Task<Result<std::vector<ObjectId>>> diff_objects(View older, View newer, ObjectId after,
                                                           std::size_t limit) = 0;
  struct Range {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
  };
  virtual Task<Result<std::vector<Range>>> diff_ranges(View older, View newer, ObjectId object,
                                                       std::uint64_t offset, std::uint64_t length) = 0;

  // --- durability ---
  // Everything accepted before the call, durable as `level` says. Progress in dirty bytes.
  virtual Task<Status> flush(Durability level, Progress progress = {}) = 0;
  virtual Task<Status> flush() = 0;  // to VolumeOptions::flush_means
  // A flush is expected in a moment: what was accepted begins to become durable on this machine, so that its
  // caller waits for less. Promises nothing.
  virtual void hasten() = 0;
  virtual Task<Status> wait(Commit commit, Durability level, Progress progress = {}) = 0;
  virtual Task<Status> wait(Commit commit) = 0;  // to VolumeOptions::flush_means
  // Why something that was accepted before is lost: the local disk failed, or another home has taken the
  // volume over before it was on the miners. For good; nullopt while all is well.
  virtual std::optional<Error> loss() const = 0;

  // --- care ---
  virtual Task<Result<VolumeStatus>> status(bool ask_miners) = 0;
  virtual Task<Result<CheckReport>> check(bool with_data, Progress progress) = 0;
  virtual Task<Result<RepairReport>> repair(RepairOptions options, Progress progress) = 0;
  virtual Task<Status> drop_cache() = 0;
  // Miners of the volume: the superblock's encrypted list and, where a holder changes, its holder set follow.
  // exists: the list is not `expected` any more; nothing was changed. unavailable: a new miner does not
  // answer, or too few that keep the superblock do; then the change is taken back when they answer, and
  // whoever opens the volume before that may find either list. invalid: too few for the shape, whatever is
  // said. denied, unless `lost`: one that goes holds slices that the volume knows of; repair rebuilds them
  // afterwards, as it does those of any lost miner.
  virtual Task<Status> set_miners(std::vector<MinerEntry> miners, bool lost = false,
                                  std::optional<std::vector<MinerEntry>> expected = std::nullopt) = 0;
  virtual void set_options(const VolumeOptions& options) = 0;
  // The miners as the volume knows them now, at the addresses where they are asked; it may be another list
  // than the volume was opened with.
  virtual std::vector<MinerEntry> miners() const = 0;
  // Why nothing reaches the miners just now; empty: it does, or there is nothing to send.
  virtual std::string obstacle() const = 0;

  // From now on nothing waits for miners: reads that need them, remote flushes, checks, repairs and other
  // care end with `closed`, those under way too. What the local disk answers goes on. Before close(), when
  // those who use the volume take too long to end.
  virtual void stop_waiting() = 0;
  // Flushes to Local, marks the superblock closed cleanly when all is Remote and miners answer, stops
  // everything.
  virtual Task<Status> close() = 0;
};

}  // namespace cumulus
