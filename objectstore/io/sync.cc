#include "objectstore/io/sync.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "objectstore/base/check.h"

namespace cumulus {

namespace {
using Token = asio::use_awaitable_t<ReactorExecutor>;
}

// Finished once: by notify_all() (woken = true) or by its timer (woken = false).
class Signal::Waiter : public Suspension {
 public:
  virtual ~Waiter() = default;
  // Posts the wake-up, which refers to neither the waiter nor the signal: both may be gone by then.
  virtual void finish(const ReactorExecutor& executor, bool woken) = 0;

 private:
  friend class Signal;
  Waiter* previous_waiter_ = nullptr;
  Waiter* next_waiter_ = nullptr;
  TimerId timer_ = 0;
};

template <class Handler>
class Signal::WaiterOf final : public Waiter {
 public:
  explicit WaiterOf(Handler handler) : handler_(std::move(handler)) {}
  void finish(const ReactorExecutor& executor, [[maybe_unused]] bool woken) override {
    if constexpr (std::is_invocable_v<Handler, bool>)
      asio::post(executor, [held = std::move(handler_), woken]() mutable { std::move(held)(woken); });
    else
      asio::post(executor, std::move(handler_));
  }

 private:
  Handler handler_;
};

Signal::~Signal() { CHECK(first_ == nullptr); }

Task<void> Signal::wait() {
  Token token;
  return asio::async_initiate<Token, void()>(
      [this](auto handler) {
        append(std::make_unique<WaiterOf<decltype(handler)>>(std::move(handler)), TimePoint::max());
      },
      token);
}

Task<bool> Signal::wait_until(TimePoint deadline) {
  Token token;
  return asio::async_initiate<Token, void(bool)>(
      [this, deadline](auto handler) {
        append(std::make_unique<WaiterOf<decltype(handler)>>(std::move(handler)), deadline);
      },
      token);
}

void Signal::append(std::unique_ptr<Waiter> waiter, TimePoint deadline) {
  Waiter* const added = waiter.release();
  added->previous_waiter_ = last_;
  (last_ == nullptr ? first_ : last_->next_waiter_) = added;
  last_ = added;
  runtime_.enlist(*added);
  if (deadline == TimePoint::max()) return;
  added->timer_ =
      runtime_.start_timer(deadline, [this, added] { take(*added)->finish(runtime_.executor(), false); });
}

std::unique_ptr<Signal::Waiter> Signal::take(Waiter& waiter) {
  Waiter* const before = waiter.previous_waiter_;
  Waiter* const after = waiter.next_waiter_;
  (before == nullptr ? first_ : before->next_waiter_) = after;
  (after == nullptr ? last_ : after->previous_waiter_) = before;
  return std::unique_ptr<Waiter>(&waiter);
}

void Signal::notify_all() {
  while (first_ != nullptr) {
    const auto waiter = take(*first_);
    if (waiter->timer_ != 0) runtime_.cancel_timer(waiter->timer_);
    waiter->finish(runtime_.executor(), true);
  }
}

// Stands in the queue; lives in the frame of the one who waits.
struct Semaphore::Turn {
  Signal come;
  std::uint64_t wanted;
  bool granted = false;
};

Semaphore::~Semaphore() { CHECK(free_ == capacity_ && queue_.empty()); }

void Semaphore::Hold::release() {
  Semaphore* const semaphore = std::exchange(semaphore_, nullptr);
  if (semaphore == nullptr) return;
  semaphore->free_ += amount_;
  semaphore->hand_out();
}

void Semaphore::hand_out() {
  while (!queue_.empty() && queue_.front()->wanted <= free_) {
    Turn& turn = *queue_.front();
    queue_.pop_front();
    free_ -= turn.wanted;
    turn.granted = true;
    turn.come.notify_all();
  }
}

Task<Semaphore::Hold> Semaphore::acquire(std::uint64_t amount) {
  const std::uint64_t wanted = std::min(amount, capacity_);
  Hold hold;
  if (try_acquire(hold, wanted)) co_return hold;
  Turn turn{Signal(runtime_), wanted};
  queue_.push_back(&turn);
  while (!turn.granted) co_await turn.come.wait();
  co_return Hold(*this, wanted);
}

bool Semaphore::try_acquire(Hold& hold, std::uint64_t amount) {
  const std::uint64_t wanted = std::min(amount, capacity_);
  if (!queue_.empty() || free_ < wanted) return false;
  free_ -= wanted;
  hold = Hold(*this, wanted);
  return true;
}

TaskGroup::~TaskGroup() { CHECK(running_ == 0); }

void TaskGroup::spawn(Task<void> task) {
  ++running_;
  asio::co_spawn(runtime_.executor(), std::move(task), [this](const std::exception_ptr& failure) {
    CHECK(!failure);
    if (--running_ == 0) idle_.notify_all();
  });
}

Task<void> TaskGroup::join() {
  while (running_ != 0) co_await idle_.wait();
}

}  // namespace cumulus
