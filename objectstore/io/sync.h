// What Tasks wait on. Reactor thread only; a wake-up is posted, never run inside the waker, so state may be
// changed right after notify. All of them must be empty of waiters when destroyed (checked).
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "objectstore/base/result.h"
#include "objectstore/io/runtime.h"

namespace cumulus {

// A condition without a lock: wait() returns after a later notify_all(); callers loop over their own
// predicate.
class Signal {
 public:
  explicit Signal(Runtime& runtime) : runtime_(runtime) {}
  ~Signal();
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;

  Task<void> wait();
  // False when `deadline` came first.
  Task<bool> wait_until(TimePoint deadline);
  void notify_all();
  bool has_waiters() const { return first_ != nullptr; }

 private:
  class Waiter;
  template <class Handler>
  class WaiterOf;
  void append(std::unique_ptr<Waiter> waiter, TimePoint deadline);
  std::unique_ptr<Waiter> take(Waiter& waiter);

  Runtime& runtime_;
  // Owned; linked through the waiters, so that one whose time is up leaves without a search.
  Waiter* first_ = nullptr;
  Waiter* last_ = nullptr;
};

// A weighted semaphore, first come first served: the bound of every window. acquire(n) with n above the
// capacity waits for the whole capacity (so that an oversized request passes alone rather than never). What
// is released is handed to those in front, and wakes nobody else. Outlives its holds (checked).
class Semaphore {
 public:
  Semaphore(Runtime& runtime, std::uint64_t capacity)
      : runtime_(runtime), capacity_(capacity), free_(capacity) {}
  ~Semaphore();
  Semaphore(const Semaphore&) = delete;
  Semaphore& operator=(const Semaphore&) = delete;

  // Holds `amount` until destroyed or released. Move-only.
  class Hold {
   public:
    Hold() = default;
    Hold(Hold&& other) noexcept
        : semaphore_(std::exchange(other.semaphore_, nullptr)), amount_(other.amount_) {}
    Hold& operator=(Hold&& other) noexcept {
      if (this != &other) {
        release();
        semaphore_ = std::exchange(other.semaphore_, nullptr);
        amount_ = other.amount_;
      }
      return *this;
    }
    ~Hold() { release(); }
    void release();

   private:
    friend class Semaphore;
    Hold(Semaphore& semaphore, std::uint64_t amount) : semaphore_(&semaphore), amount_(amount) {}
    Semaphore* semaphore_ = nullptr;
    std::uint64_t amount_ = 0;
  };

  Task<Hold> acquire(std::uint64_t amount = 1);
  // Holds at once, or nothing when others wait or too little is free: `hold` is then empty and false
  // returned.
  bool try_acquire(Hold& hold, std::uint64_t amount = 1);
  std::uint64_t in_use() const { return capacity_ - free_; }
  std::uint64_t capacity() const { return capacity_; }

 private:
  struct Turn;
  void hand_out();

  Runtime& runtime_;
  std::uint64_t capacity_;
  std::uint64_t free_;
  std::deque<Turn*> queue_;  // in the frames of those who wait
};

// Tasks that run beside their owner. The owner joins before it is destroyed (checked). An exception that
// leaves a task is a bug and aborts.
class TaskGroup {
 public:
  explicit TaskGroup(Runtime& runtime) : runtime_(runtime), idle_(runtime) {}
  ~TaskGroup();
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;

  void spawn(Task<void> task);
  // The callable is kept alive until its coroutine ends, so it may be a capturing lambda: group.spawn([&]()
  // -> Task<void> {...}).
  template <class F>
    requires std::is_invocable_r_v<Task<void>, F&>
  void spawn(F body) {
    spawn(run(std::move(body)));
  }
  std::size_t running() const { return running_; }
  Task<void> join();

 private:
  template <class F>
  static Task<void> run(F body) {
    co_await body();
  }
  Runtime& runtime_;
  Signal idle_;
  std::size_t running_ = 0;
};

}  // namespace cumulus
