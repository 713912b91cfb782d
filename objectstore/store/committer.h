// Committer: turns transactions into groups. Owns the open group: the changes and plain bytes accepted since
// the last one was closed. Accepting means staged in the index (readers see it); a group is closed when it is
// full, when its interval has passed, or when somebody asks for durability, and is then written by the
// LogWriter and applied by the Index.
//
// One transaction at a time is validated and staged (the turnstile), so that it is decided against one state
// and lands in one group. What it must never do: stage part of a transaction; reuse a staged run's number; go
// on after the log failed. Reactor thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "objectstore/index/index.h"
#include "objectstore/io/sync.h"
#include "objectstore/log/log_writer.h"
#include "objectstore/options.h"
#include "objectstore/store/transaction.h"

namespace cumulus {

class Committer {
 public:
  // Reads object bytes at the head for Transaction::compare().
  using CompareBytes = std::function<Task<Result<bool>>(const Transaction::Body::Compare&)>;
  // Decides catalogue changes against the state it sees; called under the turnstile, must not suspend.
  using BuildChanges = std::function<Result<std::vector<Change>>()>;

  // Can the log write `bytes` in all, and its bookkeeping behind them, although nothing leaves the local
  // disk? Users wait until it can: what says that segments are stored, and so makes room, must not queue
  // behind what waits for room. `unavailable` (the network must take something first) is waited for without
  // end; any other refusal, the disk's own, for outage_wait: then the commit fails with it, and the next one
  // tries afresh.
  using HasRoom = std::function<Status(std::uint64_t bytes)>;

  Committer(Runtime& runtime, Index& index, LogWriter& log, VolumeOptions options, HasRoom has_room,
            CompareBytes compare);
  ~Committer();

  void start();  // background closing; the log syncs by itself every second
  Task<Result<Commit>> commit(Transaction transaction);
  // `bookkeeping` changes do not start the early-sealing clock.
  Task<Result<Commit>> commit_changes(BuildChanges build, bool bookkeeping);

  // Everything up to `position` written (survives this process) / durable (survives power loss).
  Task<Status> written(LogPosition position);
  Task<Status> durable(LogPosition position);
  // Begins what durable(accepted()) waits for, unless something is on its way already.
  void hasten();
  LogPosition accepted() const { return open_.empty() ? open_.number - 1 : open_.number; }
  // The last group with anything but bookkeeping in it: what "everything" means when somebody asks for
  // Remote.
  LogPosition accepted_data() const { return accepted_data_; }

  // Plain bytes of a staged run; null once its group was written (the extents then name the log: look up
  // again).
  struct Staged {
    ByteView plain;
    std::shared_ptr<const void> owner;
  };
  std::optional<Staged> staged(const Run& run) const;

  // Somebody waits until the log has room.
  bool awaits_room() const { return door_.in_use() != 0; }
  // Why nothing can be accepted any more; nullopt while all is well.
  const std::optional<Error>& failure() const { return failure_; }
  // Refuses new commits from now on (fenced, destroyed).
  void refuse(const Error& reason);
  // Something that was accepted is in no log, and will never be.
  bool lost() const { return failure_ && accepted() > written_; }
  void set_options(const VolumeOptions& options) { options_ = options; }
  // Writes what is open, stops background work. The log stays open.
  Task<Status> close();

 private:
  struct StagedRun {
    std::uint64_t number = 0;
    ByteView plain;
    std::shared_ptr<const void> owner;
    std::uint8_t cell_log2 = 14;
    std::shared_ptr<Run> resolved;  // runs staged ahead of their transaction: filled when written

    Run run() const {
      return {.segment = {kStagedKind, 0, number},
              .plain_length = static_cast<std::uint32_t>(plain.size()),
              .cell_log2 = cell_log2};
    }
  };
  struct OpenGroup {
    LogPosition number = 0;
    std::vector<Change> changes;
    std::vector<StagedRun> runs;
    std::vector<Semaphore::Hold> holds;
    std::size_t record_bytes = 0;
    std::size_t cell_bytes = 0;
    bool bookkeeping = true;
    std::optional<TimePoint> opened;  // since its first transaction began to be staged
    bool empty() const { return changes.empty() && runs.empty(); }
    std::uint64_t bytes() const { return record_bytes + cell_bytes; }
  };

  // What one transaction does, decided: changes, with the bytes of its writes still to be staged as runs.
  struct Draft {
    struct Known {
      bool exists = false;
      std::uint64_t size = 0;
    };
    struct Data {
      std::size_t change = 0;  // index of the Write that the bytes belong to
      ByteView plain;
      std::shared_ptr<const void> owner;
      std::uint8_t cell_log2 = 14;
    };
    std::vector<Change> changes;
    std::vector<Data> data;
    std::map<ObjectRef, Known> objects;  // as this transaction has left them so far
    struct Usage {
      std::int64_t bytes = 0;
      std::int64_t objects = 0;
    };
    std::map<std::pair<DatasetId, std::uint32_t>, Usage> usage;  // by quota tree, summed
    std::size_t record_bytes = 0;
    std::size_t cell_bytes = 0;

    void add(Change change) {
      record_bytes += record_size_bound(change);
      changes.push_back(std::move(change));
    }
    void name_runs(const std::vector<std::vector<Run>>& runs);
  };

  Task<Result<Draft::Known*>> known_object(ObjectRef object, Draft& draft);
  Task<Status> decide(Transaction::Body& body, Draft& draft);
  Status check_quotas(const Draft& draft) const;
  Task<Status> decide_change(const Change& change, Draft& draft);
  Task<Result<Commit>> stage(Draft draft, bool bookkeeping, Semaphore::Hold memory);
  Task<Status> stage_ahead(Transaction::Body& body, std::vector<std::vector<Run>>& runs);
  Status check_open();
  Task<Result<Semaphore::Hold>> turn_with_room(std::uint64_t bytes);
  std::size_t group_limit() const;
  bool fits(std::size_t record_bytes, std::size_t cell_bytes) const;
  Run add_run(ByteView plain, std::shared_ptr<const void> owner, std::uint8_t cell_log2,
              std::shared_ptr<Run> resolved);
  void note_opened(bool bookkeeping);
  void close_group();
  Task<void> write_group(OpenGroup group);
  Task<void> close_by_interval();
  void fail_with(const Error& error);
  Task<void> take_back();

  Runtime& runtime_;
  Index& index_;
  LogWriter& log_;
  VolumeOptions options_;
  HasRoom has_room_;
  CompareBytes compare_;

  OpenGroup open_;
  std::unordered_map<std::uint64_t, StagedRun> staged_;  // by number: open and closed-but-unwritten groups
  std::uint64_t next_staged_ = 1;
  LogPosition written_ = 0;
  LogPosition accepted_data_ = 0;
  LogPosition awaited_ = 0;  // somebody waits until it is durable
  std::uint32_t groups_in_flight_ = 0;
  std::uint64_t bytes_in_flight_ = 0;  // of those groups
  std::optional<Error> failure_;
  bool closing_ = false;

  Semaphore turnstile_;
  Semaphore door_;          // held by the first of those who wait for room
  Semaphore staged_bytes_;  // plain bytes accepted and not yet written
  Signal opened_;           // the open group got its first change, or closing
  Signal progress_;         // a group was written, or failed
  TaskGroup tasks_;
};

}  // namespace cumulus
