// DetachedLane: one thread of its own for calls that may block for as long as somebody else likes and cannot
// be cancelled (the system's name resolver), and whose answer may not matter any more when it comes. One call
// at a time, in order. Reactor thread; calls run elsewhere.
//
// Destroying it never waits: a call that runs is left to end by itself, with the process at the latest, and
// what it answers is dropped.
#pragma once

#include <condition_variable>
#include <memory>
#include <optional>

#include "objectstore/base/thread_annotations.h"
#include "objectstore/io/runtime.h"

namespace cumulus {

class DetachedLane {
 public:
  // The thread begins with the first call.
  explicit DetachedLane(Runtime& runtime) : runtime_(runtime) {}
  ~DetachedLane();
  DetachedLane(const DetachedLane&) = delete;
  DetachedLane& operator=(const DetachedLane&) = delete;

  // `work` on the lane's thread, then `done` on the reactor. `work` may outlive everything: it owns all that
  // it touches. `done` never outlives the lane. Only when not busy().
  void start(Callback work, Callback done);
  bool busy() const;

 private:
  struct Shared {
    Mutex mutex;
    std::condition_variable ready;
    Runtime* runtime GUARDED_BY(mutex) = nullptr;  // null: the lane is gone
    std::optional<Callback> work GUARDED_BY(mutex);
    std::optional<Callback> done GUARDED_BY(mutex);  // until it is called: busy
  };
  static void finish(Shared& shared);
  static void loop(const std::shared_ptr<Shared>& shared);

  Runtime& runtime_;
  std::shared_ptr<Shared> shared_;
};

}  // namespace cumulus
