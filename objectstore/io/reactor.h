// Reactor: the real Runtime. run() turns the calling thread into the reactor until its main task is done;
// `worker_count` threads do offloaded work. Destroy only after run() has returned.
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <deque>
#include <map>
#include <thread>
#include <vector>

#include "objectstore/base/thread_annotations.h"
#include "objectstore/io/runtime.h"

namespace cumulus {

class Reactor final : public Runtime {
 public:
  static constexpr std::size_t kWorkersMax = 64;

  // At most kWorkersMax workers; with none, offloaded work runs on the reactor.
  explicit Reactor(std::size_t worker_count);
  ~Reactor() override;

  // Runs `main` and everything it started; returns when `main` is done. Signals and other threads reach the
  // reactor by post().
  void run(Task<void> main);
  asio::io_context& context() { return context_; }

  TimePoint now() const override;
  WallTime wall_now() const override;
  ReactorExecutor executor() override { return context_.get_executor(); }
  Random& random() override { return random_; }
  TimerId start_timer(TimePoint when, Callback callback) override;
  void cancel_timer(TimerId timer) override;
  void start_work(Callback work, Callback done) override;

 private:
  struct Job {
    Callback work;
    Callback done;
  };
  void arm_timer();
  void fire_timers();
  void work_loop();

  asio::io_context context_;
  SystemRandom random_;

  // Timers: reactor only. One asio timer stands for the earliest of ours.
  asio::basic_waitable_timer<std::chrono::steady_clock, asio::wait_traits<std::chrono::steady_clock>,
                             ReactorExecutor>
      alarm_;
  std::map<std::pair<TimePoint, TimerId>, Callback> timers_;
  std::map<TimerId, TimePoint> timer_times_;
  TimerId next_timer_ = 1;
  TimePoint armed_for_ = TimePoint::max();

  Mutex mutex_;
  std::condition_variable work_ready_;
  std::deque<Job> jobs_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<std::thread> workers_;
};

}  // namespace cumulus
