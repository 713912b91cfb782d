// SeededRandom: the Random that replays a run. xoshiro256** (Blackman and Vigna, 2018), seeded by splitmix64:
// the same bytes on every machine and library. Never for real keys. One thread.
#pragma once

#include <array>
#include <bit>
#include <cstring>

#include "objectstore/base/random.h"

namespace cumulus {

class SeededRandom final : public Random {
 public:
  explicit SeededRandom(std::uint64_t seed) {
    for (std::uint64_t& word : state_) {
      seed += 0x9E3779B97F4A7C15u;
      std::uint64_t z = seed;
      z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
      z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
      word = z ^ (z >> 31);
    }
  }

  void fill(MutableByteView into) override {
    while (!into.empty()) {
      const std::uint64_t word = next();
      const std::size_t length = std::min(into.size(), sizeof word);
      std::memcpy(into.data(), &word, length);
      into = into.subspan(length);
    }
  }
  // True once in `one_in` draws; never when it is 0.
  bool once_in(std::uint64_t one_in) { return one_in != 0 && next() % one_in == 0; }
  // low <= value <= high.
  std::uint64_t between(std::uint64_t low, std::uint64_t high) { return low + next() % (high - low + 1); }

 private:
  std::uint64_t next() {
    const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const std::uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }
  std::array<std::uint64_t, 4> state_{};
};

}  // namespace cumulus
