// What the kernel's page cache holds of a file, without waiting for its disk; PageCacheReader: of one that is
// never written again. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"

namespace cumulus {

// What the page cache has of an open file: false when not all of `into` is there. RWF_NOWAIT, preadv2(2).
bool read_cached(int descriptor, std::uint64_t offset, MutableByteView into);

class PageCacheReader {
 public:
  // Errors: those of open(2).
  static Result<std::unique_ptr<PageCacheReader>> open(const std::string& path);
  ~PageCacheReader();
  PageCacheReader(const PageCacheReader&) = delete;
  PageCacheReader& operator=(const PageCacheReader&) = delete;

  std::uint64_t size() const { return size_; }
  bool try_read(std::uint64_t offset, MutableByteView into) const {
    return read_cached(descriptor_, offset, into);
  }

 private:
  PageCacheReader(int descriptor, std::uint64_t size) : descriptor_(descriptor), size_(size) {}

  const int descriptor_;
  const std::uint64_t size_;
};

}  // namespace cumulus
