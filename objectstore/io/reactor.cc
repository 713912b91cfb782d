#include "objectstore/io/reactor.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <time.h>

#include "objectstore/base/check.h"

namespace cumulus {

Reactor::Reactor(std::size_t worker_count) : context_(1), alarm_(context_) {
  for (std::size_t i = 0; i < std::min(worker_count, kWorkersMax); ++i)
    workers_.emplace_back([this] { work_loop(); });
}

Reactor::~Reactor() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  work_ready_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void Reactor::run(Task<void> main) {
  context_.restart();
  asio::co_spawn(context_, std::move(main), [this](const std::exception_ptr& failure) {
    CHECK(!failure);
    context_.stop();
  });
  const auto keep = asio::make_work_guard(context_);
  context_.run();
}

TimePoint Reactor::now() const { return TimePoint(std::chrono::steady_clock::now().time_since_epoch()); }

WallTime Reactor::wall_now() const {
  return static_cast<WallTime>(
      std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count());
}

TimerId Reactor::start_timer(TimePoint when, Callback callback) {
  // Nothing is due earlier than now: a task that only ever waits for moments past takes turns with the
  // others.
  when = std::max(when, now());
  const TimerId timer = next_timer_++;
  timers_.emplace(std::pair(when, timer), std::move(callback));
  timer_times_.emplace(timer, when);
  if (when < armed_for_) arm_timer();
  return timer;
}

void Reactor::cancel_timer(TimerId timer) {
  const auto found = timer_times_.find(timer);
  if (found == timer_times_.end()) return;
  timers_.erase({found->second, timer});
  timer_times_.erase(found);
}

void Reactor::arm_timer() {
  if (timers_.empty()) return;
  armed_for_ = timers_.begin()->first.first;
  alarm_.expires_at(std::chrono::steady_clock::time_point(armed_for_.time_since_epoch()));
  alarm_.async_wait([this](const boost::system::error_code& error) {
    if (!error) fire_timers();
  });
}

void Reactor::fire_timers() {
  armed_for_ = TimePoint::max();
  const TimePoint until = now();
  const TimerId begun = next_timer_;  // what the callbacks start waits for the next turn
  while (!timers_.empty() && timers_.begin()->first.first <= until && timers_.begin()->first.second < begun) {
    auto first = timers_.extract(timers_.begin());
    timer_times_.erase(first.key().second);
    first.mapped()();
  }
  if (armed_for_ == TimePoint::max()) arm_timer();
}

void Reactor::start_work(Callback work, Callback done) {
  if (workers_.empty()) {
    post([job = std::move(work), after = std::move(done)]() mutable {
      job();
      after();
    });
    return;
  }
  {
    const MutexLock lock(mutex_);
    jobs_.push_back({std::move(work), std::move(done)});
  }
  work_ready_.notify_one();
}

void Reactor::work_loop() {
  for (;;) {
    Job job;
    {
      MutexLock lock(mutex_);
      lock.wait(work_ready_, [this]() NO_THREAD_SAFETY_ANALYSIS { return stopping_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job.work();
    // Posted with outstanding work counted by the job itself: run() holds a work guard until `main` is done.
    post(std::move(job.done));
  }
}

}  // namespace cumulus
