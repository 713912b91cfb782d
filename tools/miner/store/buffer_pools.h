// BufferPools: aligned buffers of any size from a few pools, so that payloads land in memory that is already
// mapped and that direct I/O accepts. Any thread. How many are in use is bounded by the callers' windows.
#pragma once

#include <array>
#include <bit>
#include <memory>

#include "objectstore/base/bytes.h"

namespace cumulus {

class BufferPools {
 public:
  // At least `size` bytes; always a multiple of 4096.
  std::shared_ptr<Buffer> acquire(std::size_t size) {
    for (auto& pool : pools_) {
      if (size <= pool.buffer_size()) return pool.acquire();
    }
    return std::make_shared<Buffer>((size + Buffer::kAlignment - 1) / Buffer::kAlignment *
                                    Buffer::kAlignment);
  }

 private:
  // Powers of two and two blocks: a range rarely begins on a block.
  static BufferPool pool_of(std::size_t size, std::size_t kept_max) { return {size + 8192, kept_max}; }
  std::array<BufferPool, 5> pools_{pool_of(16 << 10, 64), pool_of(128 << 10, 32), pool_of(512 << 10, 16),
                                   pool_of(2 << 20, 12), pool_of(8 << 20, 2)};
};

}  // namespace cumulus
