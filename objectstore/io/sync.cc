#include "objectstore/io/sync.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "objectstore/base/check.h"

namespace cumulus {

namespace {
using Token = asio::use_awaitable_t<ReactorExecutor>;
}

// Finished once: by notify_all() (woken = true) or by its timer (woken = false).
struct Signal::Waiter {
  std::move_only_function<void(bool)> finish;
  TimerId timer = 0;
};

Signal::~Signal() { CHECK(waiters_.empty()); }

Task<void> Signal::wait() { co_await wait_until(TimePoint::max()); }

Task<bool> Signal::wait_until(TimePoint deadline) {
  Token token;
  return asio::async_initiate<Token, void(bool)>(
      [this, deadline](auto handler) {
        auto waiter = std::make_shared<Waiter>();
        waiter->finish = [held = std::move(handler), executor = runtime_.executor()](bool woken) mutable {
          asio::post(executor, [h = std::move(held), woken]() mutable { std::move(h)(woken); });
        };
        waiters_.push_back(waiter);
        if (deadline == TimePoint::max()) return;
        waiter->timer = runtime_.start_timer(deadline, [this, waiter] {
          waiters_.remove(waiter);
          waiter->finish(false);
        });
      },
      token);
}

void Signal::notify_all() {
  for (auto woken = std::exchange(waiters_, {}); const auto& waiter : woken) {
    if (waiter->timer != 0) runtime_.cancel_timer(waiter->timer);
    waiter->finish(true);
  }
}

void Semaphore::Hold::release() {
  if (semaphore_ == nullptr) return;
  semaphore_->free_ += amount_;
  semaphore_->signal_.notify_all();
  semaphore_ = nullptr;
}

Task<Semaphore::Hold> Semaphore::acquire(std::uint64_t amount) {
  const std::uint64_t wanted = std::min(amount, capacity_);
  const std::uint64_t ticket = next_ticket_++;
  while (ticket != serving_ || free_ < wanted) co_await signal_.wait();
  ++serving_;
  free_ -= wanted;
  signal_.notify_all();  // the next ticket may fit too
  co_return Hold(*this, wanted);
}

bool Semaphore::try_acquire(Hold& hold, std::uint64_t amount) {
  const std::uint64_t wanted = std::min(amount, capacity_);
  if (next_ticket_ != serving_ || free_ < wanted) return false;
  ++next_ticket_;
  ++serving_;
  free_ -= wanted;
  hold = Hold(*this, wanted);
  return true;
}

TaskGroup::~TaskGroup() { CHECK(running_ == 0); }

void TaskGroup::spawn(Task<void> task) {
  ++running_;
  asio::co_spawn(runtime_.executor(), std::move(task), [this](std::exception_ptr failure) {
    CHECK(!failure);
    if (--running_ == 0) idle_.notify_all();
  });
}

Task<void> TaskGroup::join() {
  while (running_ != 0) co_await idle_.wait();
}

}  // namespace cumulus
