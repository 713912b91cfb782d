// Time, handed in: the real clocks live in io/, the simulated one in tests/fakes. Pure.
#pragma once

#include <chrono>
#include <cstdint>

namespace cumulus {

using Duration = std::chrono::nanoseconds;
struct MonotonicClockTag {
  using duration = Duration;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<MonotonicClockTag>;
  static constexpr bool is_steady = true;
};
using TimePoint = MonotonicClockTag::time_point;  // monotonic; comparable within one process only
using WallTime = std::uint64_t;                   // nanoseconds since 1970-01-01T00:00:00Z

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;
  virtual WallTime wall_now() const = 0;
};

}  // namespace cumulus
