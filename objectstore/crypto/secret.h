// SecretBytes: key material that is wiped when it goes, is never copied by accident and never printed. Any
// thread.
#pragma once

#include <array>
#include <cstdint>

#include "objectstore/base/bytes.h"

namespace cumulus {

// Overwrites in a way that the compiler keeps.
void wipe(MutableByteView bytes);

template <std::size_t N>
class Secret {
 public:
  Secret() = default;
  explicit Secret(const std::array<std::uint8_t, N>& bytes) : bytes_(bytes) {}
  Secret(Secret&& other) noexcept : bytes_(other.bytes_) { wipe(other.bytes_); }
  Secret& operator=(Secret&& other) noexcept {
    if (this != &other) {
      bytes_ = other.bytes_;
      wipe(other.bytes_);
    }
    return *this;
  }
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret() { wipe(bytes_); }

  Secret clone() const { return Secret(bytes_); }
  ByteView view() const { return bytes_; }
  MutableByteView view() { return bytes_; }
  const std::array<std::uint8_t, N>& array() const { return bytes_; }

 private:
  std::array<std::uint8_t, N> bytes_{};
};

using SecretKey = Secret<32>;

}  // namespace cumulus
