// Randomness, handed in. The system's source (getrandom) is safe for keys and nonces; the seeded one of
// tests/fakes replays a run. Any thread for SystemRandom.
#pragma once

#include <cstdint>

#include "objectstore/base/bytes.h"

namespace cumulus {

class Random {
 public:
  virtual ~Random() = default;
  virtual void fill(MutableByteView into) = 0;

  std::uint64_t u64() {
    std::uint64_t value = 0;
    fill({reinterpret_cast<std::uint8_t*>(&value), sizeof value});
    return value;
  }
  // Uniform enough for jitter and sampling; `bound` > 0.
  std::uint64_t below(std::uint64_t bound) { return u64() % bound; }
};

class SystemRandom final : public Random {
 public:
  void fill(MutableByteView into) override;
};

}  // namespace cumulus
