#include "tests/fakes/sim_runtime.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <list>

#include "objectstore/base/check.h"

namespace cumulus {
namespace {

constexpr WallTime kDayZero = 1'750'000'000'000'000'000;  // 2025-06-15

// What was killed: kept, so that nothing of it is ever destroyed.
struct Remains {
  std::unique_ptr<SimProcess> process;
  std::vector<Callback> events;
};
std::list<Remains>& graveyard() {
  static auto* remains = new std::list<Remains>;
  return *remains;
}

}  // namespace

SimWorld::SimWorld(std::uint64_t seed) : random_(seed) {}

SimWorld::~SimWorld() {
  // Events may own handlers of processes: first the events, while their processes still stand.
  events_.clear();
}

WallTime SimWorld::wall_now() const {
  return kDayZero + static_cast<WallTime>(now_.time_since_epoch().count());
}

SimProcess& SimWorld::start_process(std::string name) {
  processes_.push_back(std::make_unique<SimProcess>(*this, std::move(name), random_.u64()));
  return *processes_.back();
}

void SimWorld::kill(SimProcess& process) {
  Remains remains;
  for (auto event = events_.begin(); event != events_.end();) {
    if (event->second.process == &process) {
      remains.events.push_back(std::move(event->second.callback));
      event = events_.erase(event);
    } else {
      ++event;
    }
  }
  const auto found = std::ranges::find(processes_, &process, &std::unique_ptr<SimProcess>::get);
  CHECK(found != processes_.end());
  remains.process = std::move(*found);
  processes_.erase(found);
  graveyard().push_back(std::move(remains));
}

SimWorld::EventId SimWorld::schedule(TimePoint when, SimProcess& process, Callback callback) {
  const EventId id{std::max(when, now_), next_event_++};
  events_.emplace(id, Event{&process, std::move(callback)});
  return id;
}

bool SimWorld::step() {
  ++steps_;
  for (std::size_t tried = 0; tried < processes_.size(); ++tried)
    if (processes_[turn_++ % processes_.size()]->run_one()) return true;
  if (events_.empty()) return false;
  const auto first = events_.begin();
  now_ = first->first.first;
  // The callback runs inside its process, as a handler: what asks for the running thread finds the reactor.
  asio::post(first->second.process->context_, std::move(first->second.callback));
  events_.erase(first);
  return true;
}

SimProcess::SimProcess(SimWorld& world, std::string name, std::uint64_t seed)
    : world_(world), name_(std::move(name)), random_(seed) {}

SimProcess::~SimProcess() = default;

void SimProcess::spawn(Task<void> task, Callback ended) {
  asio::co_spawn(context_, std::move(task),
                 [then = std::move(ended)](const std::exception_ptr& failure) mutable {
                   CHECK(!failure);
                   if (then) then();
                 });
}

void run_at_once(Task<void> task) {
  asio::io_context context(1);
  bool done = false;
  asio::co_spawn(context, std::move(task), [&done](const std::exception_ptr& failure) {
    CHECK(!failure);
    done = true;
  });
  context.poll();
  CHECK(done);
}

TimerId SimProcess::start_timer(TimePoint when, Callback callback) {
  const TimerId id = next_timer_++;
  timers_[id] = world_.schedule(when, *this, [this, id, then = std::move(callback)]() mutable {
    // Cancelled between its time and its turn: it does not run.
    if (timers_.erase(id) != 0) then();
  });
  return id;
}

void SimProcess::cancel_timer(TimerId timer) {
  const auto found = timers_.find(timer);
  if (found == timers_.end()) return;
  world_.events_.erase(found->second);
  timers_.erase(found);
}

void SimProcess::start_work(Callback work, Callback done) {
  const auto draw = [this] {
    return Duration(static_cast<Duration::rep>(
        world_.random().below(static_cast<std::uint64_t>(work_time_max_.count()) + 1)));
  };
  const TimePoint begin = now() + draw();
  world_.schedule(begin, *this,
                  [this, end = begin + draw(), job = std::move(work), then = std::move(done)]() mutable {
                    job();
                    world_.schedule(end, *this, std::move(then));
                  });
}

}  // namespace cumulus
