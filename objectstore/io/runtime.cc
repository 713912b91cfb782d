#include "objectstore/io/runtime.h"

namespace cumulus {
namespace {

// The executor is asked from the awaiting coroutine: handlers complete on the reactor.
using Token = asio::use_awaitable_t<ReactorExecutor>;

}  // namespace

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
