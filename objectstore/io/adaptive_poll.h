// AdaptivePoll: look again for a while before sleeping. Waking a thread costs several times what most
// requests cost, and who works request by request sends the next one some microseconds after the answer.
// Whether looking pays is seen from the last sleep: after a long one, the next wait sleeps at once, so who is
// idle costs nothing. (The kernel's adaptive halt polling and NAPI busy polling do the same.)
//
//   while (!input()) {
//     if (poll.again()) { co_await runtime.yield(); continue; }   // the others on the reactor run between
//     co_await readable();
//     poll.woke();
//   }
//   poll.arrived();
//
// Reactor thread.
#pragma once

#include <chrono>
#include <optional>

#include "objectstore/base/clock.h"

namespace cumulus {

class AdaptivePoll {
 public:
  explicit AdaptivePoll(const Clock& clock) : clock_(clock) {}

  // Whether to look again at once. False: sleep, then tell woke().
  bool again() {
    const TimePoint now = clock_.now();
    if (!since_) {
      since_ = now;
      looks_ = 0;
    }
    if (pays_ && ++looks_ < kLooksMax && now < *since_ + kPollFor) return true;
    since_ = now;
    return false;
  }
  void woke() {
    pays_ = clock_.now() < *since_ + kPaysBelow;
    since_.reset();
  }
  void arrived() { since_.reset(); }

 private:
  static constexpr Duration kPollFor = std::chrono::microseconds(50);
  static constexpr Duration kPaysBelow = std::chrono::microseconds(300);
  static constexpr unsigned kLooksMax =
      1000;  // where time stands still while anybody is ready: the simulator

  const Clock& clock_;
  std::optional<TimePoint> since_;  // when it began to wait, or to sleep
  unsigned looks_ = 0;
  bool pays_ = false;
};

}  // namespace cumulus
