// PageCacheReader: what the page cache holds of a file that is never written again, without waiting for its
// disk. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"

namespace cumulus {

class PageCacheReader {
 public:
  // Errors: those of open(2).
  static Result<std::unique_ptr<PageCacheReader>> open(const std::string& path);
  ~PageCacheReader();
  PageCacheReader(const PageCacheReader&) = delete;
  PageCacheReader& operator=(const PageCacheReader&) = delete;

  std::uint64_t size() const { return size_; }
  // True when all of `into` was there; it lies within the file. RWF_NOWAIT: preadv2(2).
  bool try_read(std::uint64_t offset, MutableByteView into) const;

 private:
  PageCacheReader(int descriptor, std::uint64_t size) : descriptor_(descriptor), size_(size) {}

  const int descriptor_;
  const std::uint64_t size_;
};

}  // namespace cumulus
