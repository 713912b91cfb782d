// Bytes, views and buffers. A view never owns; a Buffer owns aligned memory; a BufferPool recycles Buffers,
// because touching fresh memory is dearer than any cipher. Buffer and views: any thread, one at a time.
// BufferPool: any thread.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cumulus {

using Bytes = std::vector<std::uint8_t>;
using ByteView = std::span<const std::uint8_t>;
using MutableByteView = std::span<std::uint8_t>;
using Digest = std::array<std::uint8_t, 32>;

inline ByteView view_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
inline std::string_view text_of(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline bool equal(ByteView a, ByteView b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}
inline std::strong_ordering compare(ByteView a, ByteView b) {
  const std::size_t common = a.size() < b.size() ? a.size() : b.size();
  const int order = common == 0 ? 0 : std::memcmp(a.data(), b.data(), common);
  return order != 0 ? order <=> 0 : a.size() <=> b.size();
}
// Not std::ranges::copy: GCC 12 makes that a loop of single bytes.
inline void copy_bytes(ByteView from, std::uint8_t* to) {
  if (!from.empty()) std::memmove(to, from.data(), from.size());
}
std::string to_hex(ByteView bytes);
// Empty optional-like: false when the text is not exactly 2*into.size() hex digits.
bool from_hex(std::string_view text, MutableByteView into);

// Memory that direct I/O accepts: 4096-byte aligned. Move-only. The content of a new one is unspecified.
class Buffer {
 public:
  static constexpr std::size_t kAlignment = 4096;

  Buffer() = default;
  explicit Buffer(std::size_t size);

  std::uint8_t* data() { return memory_.get(); }
  const std::uint8_t* data() const { return memory_.get(); }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  MutableByteView view() { return {memory_.get(), size_}; }
  ByteView view() const { return {memory_.get(), size_}; }
  MutableByteView view(std::size_t offset, std::size_t length) { return view().subspan(offset, length); }
  ByteView view(std::size_t offset, std::size_t length) const { return view().subspan(offset, length); }

 private:
  struct Free {
    void operator()(std::uint8_t* memory) const;
  };
  std::unique_ptr<std::uint8_t[], Free> memory_;
  std::size_t size_ = 0;
};

// Buffers of one size, kept for the next user: at most `kept_max` idle ones. acquire() never blocks and never
// fails for want of a pooled buffer (it makes a new one): the bound on buffers in use is the caller's window.
class BufferPool {
 public:
  BufferPool(std::size_t buffer_size, std::size_t kept_max);

  // Shared so that one segment's bytes can be read, hashed and sent by several tasks; returns to the pool
  // when the last reference goes. The pool must outlive nothing: buffers keep its free list alive.
  std::shared_ptr<Buffer> acquire();
  std::size_t buffer_size() const { return shared_->buffer_size; }

 private:
  struct Shared {
    std::mutex mutex;
    std::vector<std::unique_ptr<Buffer>> idle;
    std::size_t buffer_size = 0;
    std::size_t kept_max = 0;
  };
  std::shared_ptr<Shared> shared_;
};

}  // namespace cumulus
