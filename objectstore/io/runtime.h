// Runtime: the reactor, its clock, its timers, its workers and its randomness, handed to everything that
// needs one.
//
// The real one (reactor.h) runs an asio::io_context on the calling thread with a few worker threads beside
// it. The simulated one (tests/fakes) runs one io_context in virtual time; its "workers" run jobs in a seeded
// order. Thread rule: reactor thread only, except post(), which any thread may call.
#pragma once

#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "objectstore/base/clock.h"
#include "objectstore/base/random.h"
#include "objectstore/io/task.h"

namespace cumulus {

using Callback = std::move_only_function<void()>;
using TimerId = std::uint64_t;  // 0 is no timer

// A Task that waits for something other than a timer or a worker, in its Runtime's list of those: so that
// the simulator can say who waits, and still reaches the tasks of a process that it killed.
class Suspension {
 public:
  Suspension() = default;
  Suspension(const Suspension&) = delete;
  Suspension& operator=(const Suspension&) = delete;

 protected:
  ~Suspension() { unlink(); }

 private:
  friend class Runtime;
  void unlink() {
    previous_->next_ = next_;
    next_->previous_ = previous_;
  }
  Suspension* previous_ = this;
  Suspension* next_ = this;
};

class Runtime : public Clock {
 public:
  // `suspension` leaves the list when it is destroyed.
  void enlist(Suspension& suspension);
  // Tasks in the list: for diagnostics, it counts them.
  std::size_t suspended() const;

  virtual ReactorExecutor executor() = 0;
  virtual Random& random() = 0;

  // Runs `callback` on the reactor at or soon after `when`. cancel_timer() of a fired or unknown timer does
  // nothing.
  virtual TimerId start_timer(TimePoint when, Callback callback) = 0;
  virtual void cancel_timer(TimerId timer) = 0;

  // Runs `work` on a worker thread, then `done` on the reactor. The queue is bounded by the callers' own
  // windows.
  virtual void start_work(Callback work, Callback done) = 0;

  // Runs `callback` on the reactor after what is ready now. Any thread.
  template <std::invocable F>
  void post(F callback) {
    asio::post(executor(), std::move(callback));
  }

  // Lets everybody else who is ready run first.
  Task<void> yield();
  Task<void> sleep_until(TimePoint when);
  Task<void> sleep_for(Duration duration) { return sleep_until(now() + duration); }

  // co_await offload(f): f() on a worker thread; its value here. `f` must not touch reactor-owned state that
  // may change meanwhile. The caller's frame lives until it is done: capture by reference what outlives the
  // co_await.
  // Captures must be trivially destructible (references, pointers, numbers): GCC 12 destroys a temporary
  // inside a co_await expression twice. What needs an owner is a named variable, captured by reference.
  template <std::invocable F>
  Task<std::invoke_result_t<F&>> offload(F f) {
    static_assert(std::is_trivially_destructible_v<F>,
                  "capture by reference: the caller's frame outlives the work");
    using Value = std::invoke_result_t<F&>;
    if constexpr (std::is_void_v<Value>) {
      co_await run_work([&f] { f(); });
    } else {
      std::optional<Value> value;
      co_await run_work([&f, &value] { value.emplace(f()); });
      co_return std::move(*value);
    }
  }

 private:
  Task<void> run_work(Callback work);

  struct Anchor final : Suspension {};
  Anchor suspensions_;
};

}  // namespace cumulus
