#include "objectstore/io/blocking_lane.h"

namespace cumulus {

BlockingLane::BlockingLane(Runtime& runtime) : runtime_(runtime), thread_([this] { loop(); }) {}

BlockingLane::~BlockingLane() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  ready_.notify_all();
  thread_.join();
}

Task<void> BlockingLane::run_job(Callback work) {
  asio::use_awaitable_t<ReactorExecutor> token;
  return asio::async_initiate<decltype(token), void()>(
      [this](auto handler, Callback job) {
        start(std::move(job), [held = std::move(handler)]() mutable { std::move(held)(); });
      },
      token, std::move(work));
}

void BlockingLane::start(Callback work, Callback done) {
  {
    const MutexLock lock(mutex_);
    jobs_.push_back({std::move(work), std::move(done)});
  }
  ready_.notify_one();
}

void BlockingLane::loop() {
  for (;;) {
    Job job;
    {
      MutexLock lock(mutex_);
      lock.wait(ready_, [this]() NO_THREAD_SAFETY_ANALYSIS { return stopping_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job.work();
    runtime_.post(std::move(job.done));
  }
}

}  // namespace cumulus
