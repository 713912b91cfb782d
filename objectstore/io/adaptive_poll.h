// AdaptivePoll: look again for a while before sleeping. Waking a thread costs several times what most
// requests cost, and who works request by request sends the next one some microseconds after the answer.
// Whether looking pays is seen from the last wait: when it was longer than looking lasts, the next one sleeps
// at once, so who is idle costs nothing. (The kernel's adaptive halt polling and NAPI busy polling do the
// same.) 200 us are the time that a small synchronous write takes on an SSD: who waits for one is answered
// without a wake-up.
//
//   while (!input()) {
//     if (poll.again(1)) { co_await runtime.yield(); continue; }   // the others on the reactor run between
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

  // Whether to look again at once, with so many requests under way. False: sleep, then tell woke(). With
  // several, those who sent them wait together and need the processors that looking takes: it is shorter.
  bool again(std::size_t under_way) {
    const TimePoint now = clock_.now();
    if (!since_) {
      since_ = now;
      looks_ = 0;
    }
    return pays_ && ++looks_ < kLooksMax && now < *since_ + (under_way > 1 ? kPollForMany : kPollFor);
  }
  void woke() {
    pays_ = clock_.now() < *since_ + kPollFor;
    since_.reset();
  }
  void arrived() { since_.reset(); }

 private:
  static constexpr Duration kPollFor = std::chrono::microseconds(200);
  static constexpr Duration kPollForMany = std::chrono::microseconds(50);
  static constexpr unsigned kLooksMax =
      1000;  // where time stands still while anybody is ready: the simulator

  const Clock& clock_;
  std::optional<TimePoint> since_;  // when it began to wait
  unsigned looks_ = 0;
  bool pays_ = false;
};

}  // namespace cumulus
