// BlockingLane: one thread of its own for calls that may block until this very reactor has answered somebody
// (the kernel writing out a mount's pages, umount(2)). On the ordinary workers such calls could take the last
// worker that the answer needs. One call at a time, in order. Reactor thread; calls run elsewhere.
#pragma once

#include <condition_variable>
#include <deque>
#include <thread>

#include "objectstore/base/thread_annotations.h"
#include "objectstore/io/runtime.h"

namespace cumulus {

class BlockingLane {
 public:
  explicit BlockingLane(Runtime& runtime);
  // Joins: nothing may be running or waiting.
  ~BlockingLane();
  BlockingLane(const BlockingLane&) = delete;
  BlockingLane& operator=(const BlockingLane&) = delete;

  // co_await lane.run(f): f() on the lane's thread; its value here. As Runtime::offload: capture by reference
  // what outlives the co_await.
  template <std::invocable F>
  Task<std::invoke_result_t<F&>> run(F f) {
    static_assert(std::is_trivially_destructible_v<F>,
                  "capture by reference: the caller's frame outlives the call");
    std::optional<std::invoke_result_t<F&>> value;
    co_await run_job([&f, &value] { value.emplace(f()); });
    co_return std::move(*value);
  }

 private:
  struct Job {
    Callback work;
    Callback done;
  };
  Task<void> run_job(Callback work);
  void start(Callback work, Callback done);
  void loop();

  Runtime& runtime_;
  Mutex mutex_;
  std::condition_variable ready_;
  std::deque<Job> jobs_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace cumulus
