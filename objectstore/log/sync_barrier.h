// SyncBarrier: the part of the log that other threads may use. It knows the files whose bytes are not durable
// yet, and lets any thread make them durable while the reactor writes, syncs, starts new segments and
// replaces broken ones.
//
// A failed fdatasync may report its error to only one of two callers of the same file, so each side waits for
// the other's outcome before it believes its own success. What it must never do: call datasync again on a
// file that failed.
//
// Lock order: mutex_ is a leaf; no call leaves this class while it is held.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"
#include "objectstore/base/thread_annotations.h"
#include "objectstore/io/runtime.h"
#include "objectstore/log/segment_files.h"

namespace cumulus {

class SyncBarrier {
 public:
  // `wake` is called from any thread when the reactor should look again (quiet(), failed()).
  SyncBarrier(Runtime& runtime, std::function<void()> wake) : runtime_(runtime), wake_(std::move(wake)) {}

  // Reactor side. A segment is added before its first write and removed when all of it is durable.
  void add(Sequence segment, std::shared_ptr<SegmentSlot> slot) EXCLUDES(mutex_);
  void remove(Sequence segment) EXCLUDES(mutex_);
  // The segment lies whole and durable in another file.
  void replace(Sequence segment, std::shared_ptr<SegmentSlot> slot) EXCLUDES(mutex_);
  void begin_reactor_sync(Sequence segment) EXCLUDES(mutex_);
  void end_reactor_sync(Sequence segment, const Status& status) EXCLUDES(mutex_);
  void set_failed(Sequence segment, const Error& error) EXCLUDES(mutex_);
  // No other thread is syncing this segment's file.
  bool quiet(Sequence segment) const EXCLUDES(mutex_);
  std::optional<Error> failed(Sequence segment) const EXCLUDES(mutex_);
  // The log is read-only: everyone who waits, now and later, gets this error.
  void give_up(const Error& error) EXCLUDES(mutex_);

  // Any thread, blocking it: what was written before the call is durable after. Waits while a broken file is
  // being replaced (except on the reactor, which does the replacing: an error there).
  Status sync_all_blocking() EXCLUDES(mutex_);

 private:
  struct Entry {
    std::shared_ptr<SegmentSlot> slot;
    unsigned blocking = 0;      // other threads inside datasync
    bool reactor_sync = false;  // the reactor's datasync is running
    bool durable = false;       // left the barrier
    std::optional<Error> error;
  };
  Status sync_entry(const std::shared_ptr<Entry>& entry) EXCLUDES(mutex_);
  bool on_reactor() const { return runtime_.executor().running_in_this_thread(); }

  Runtime& runtime_;
  const std::function<void()> wake_;
  mutable Mutex mutex_;
  std::condition_variable changed_;
  std::map<Sequence, std::shared_ptr<Entry>> entries_ GUARDED_BY(mutex_);
  std::optional<Error> given_up_ GUARDED_BY(mutex_);
};

}  // namespace cumulus
