// SimWorld and SimProcess: virtual time for a whole cluster in one thread. Everything that happens is either
// a handler that is ready in some process, or an event at a later virtual time; the order follows from the
// seed alone.
//
// A process is a Runtime. kill() is what kill -9 is to a real one: no destructor of it runs, nothing of it
// runs again. Its coroutine frames, handlers and timers stay in memory, unreachable to the world and
// reachable to leak checkers, until this process (the test program) ends: whoever simulates many crashes runs
// batches of them in child processes. One thread.
#pragma once

#include <boost/asio/executor_work_guard.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "objectstore/io/runtime.h"
#include "tests/fakes/seeded_random.h"

namespace cumulus {

class SimProcess;

class SimWorld {
 public:
  explicit SimWorld(std::uint64_t seed);
  ~SimWorld();
  SimWorld(const SimWorld&) = delete;
  SimWorld& operator=(const SimWorld&) = delete;

  TimePoint now() const { return now_; }
  // Virtual wall time: a fixed day plus now().
  WallTime wall_now() const;
  SeededRandom& random() { return random_; }
  std::uint64_t steps() const { return steps_; }

  // A process of its own; lives as long as the world, or until killed.
  SimProcess& start_process(std::string name);
  void kill(SimProcess& process);

  // Runs one ready handler, or else the earliest event. False when nothing can ever happen again.
  bool step();
  // Steps until `ended`; false when nothing is left to do or `step_budget` steps did not get there (a
  // livelock).
  template <class Predicate>
  bool run_until(Predicate ended, std::uint64_t step_budget) {
    for (std::uint64_t left = step_budget; !ended(); --left)
      if (left == 0 || !step()) return false;
    return true;
  }

 private:
  friend class SimProcess;
  using EventId = std::pair<TimePoint, std::uint64_t>;
  struct Event {
    SimProcess* process = nullptr;
    Callback callback;
  };
  EventId schedule(TimePoint when, SimProcess& process, Callback callback);

  SeededRandom random_;
  TimePoint now_{};
  std::uint64_t steps_ = 0;
  std::uint64_t next_event_ = 1;
  std::map<EventId, Event> events_;
  std::vector<std::unique_ptr<SimProcess>> processes_;
  std::size_t turn_ = 0;
};

// Runs a task that waits for nothing: no process takes a turn, and no time passes.
void run_at_once(Task<void> task);

class SimProcess final : public Runtime {
 public:
  SimProcess(SimWorld& world, std::string name, std::uint64_t seed);
  ~SimProcess() override;

  const std::string& name() const { return name_; }
  // Starts `task`; `ended` runs in this process when it is done.
  void spawn(Task<void> task, Callback ended = {});
  // What the process draws from instead of its own seeded source; nullptr: its own again.
  void use_random(Random* random) { random_in_use_ = random != nullptr ? random : &random_; }
  // Timers that were started and have neither run nor been cancelled.
  std::size_t timers() const { return timers_.size(); }
  // How long offloaded work takes, at most.
  void set_work_time_max(Duration duration) { work_time_max_ = duration; }

  TimePoint now() const override { return world_.now(); }
  WallTime wall_now() const override { return world_.wall_now(); }
  ReactorExecutor executor() override { return context_.get_executor(); }
  Random& random() override { return *random_in_use_; }
  TimerId start_timer(TimePoint when, Callback callback) override;
  void cancel_timer(TimerId timer) override;
  void start_work(Callback work, Callback done) override;

 private:
  friend class SimWorld;
  bool run_one() { return context_.poll_one() != 0; }

  SimWorld& world_;
  const std::string name_;
  asio::io_context context_{1};
  asio::executor_work_guard<ReactorExecutor> keep_{context_.get_executor()};
  SeededRandom random_;
  Random* random_in_use_ = &random_;
  Duration work_time_max_ = std::chrono::microseconds(300);
  std::map<TimerId, SimWorld::EventId> timers_;
  TimerId next_timer_ = 1;
};

}  // namespace cumulus
