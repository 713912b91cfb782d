#include "netclient/window.h"

namespace cumulus {

void Window::Hold::release() {
  if (window_ == nullptr) return;
  --window_->requests_;
  window_->bytes_ -= bytes_;
  window_->wake_first();
  window_ = nullptr;
}

bool Window::fits(std::size_t bytes) const {
  return requests_ == 0 || (requests_ < requests_max_ && bytes_ + bytes <= bytes_max_);
}

void Window::wake_first() {
  if (!queue_.empty()) queue_.front().come.notify_all();
}

Task<Window::Hold> Window::enter(std::size_t bytes, TimePoint deadline) {
  if (closed_) co_return Hold();
  if (!queue_.empty() || !fits(bytes)) {
    queue_.emplace_back(runtime_);
    const auto turn = std::prev(queue_.end());
    bool in_time = true;
    const std::uint64_t interrupted = interrupted_;
    while (in_time && !closed_ && interrupted == interrupted_ && (turn != queue_.begin() || !fits(bytes)))
      in_time = co_await turn->come.wait_until(deadline);
    queue_.erase(turn);
    wake_first();  // the next may fit too
    if (!in_time || closed_ || interrupted != interrupted_) co_return Hold();
  }
  ++requests_;
  bytes_ += bytes;
  co_return Hold(*this, bytes);
}

void Window::close() {
  closed_ = true;
  interrupt();
}

void Window::interrupt() {
  ++interrupted_;
  for (Turn& turn : queue_) turn.come.notify_all();
}

}  // namespace cumulus
