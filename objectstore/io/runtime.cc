#include "objectstore/io/runtime.h"

namespace cumulus {
namespace {

// The executor is asked from the awaiting coroutine: handlers complete on the reactor.
using Token = asio::use_awaitable_t<ReactorExecutor>;

}  // namespace

void Runtime::enlist(Suspension& suspension) {
  suspension.next_ = suspensions_.next_;
  suspension.previous_ = &suspensions_;
  suspension.next_->previous_ = suspension.previous_->next_ = &suspension;
}

std::size_t Runtime::suspended() const {
  std::size_t count = 0;
  for (const Suspension* at = suspensions_.next_; at != &suspensions_; at = at->next_) ++count;
  return count;
}

Task<void> Runtime::yield() {
  Token token;
  return asio::post(executor(), token);
}

Task<void> Runtime::sleep_until(TimePoint when) {
  Token token;
  return asio::async_initiate<Token, void()>(
      [this, when](auto handler) {
        start_timer(when, [held = std::move(handler)]() mutable { std::move(held)(); });
      },
      token);
}

Task<void> Runtime::run_work(Callback work) {
  Token token;
  return asio::async_initiate<Token, void()>(
      [this](auto handler, Callback job) {
        start_work(std::move(job), [held = std::move(handler)]() mutable { std::move(held)(); });
      },
      token, std::move(work));
}

}  // namespace cumulus
