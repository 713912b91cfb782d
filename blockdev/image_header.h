// The header of an image's one data object (blockdev/FORMAT.md). The disk's size is the object's own size, so
// that there is one truth; the header says that this object is a disk, and what its guests prefer. Pure.
#pragma once

#include <cstdint>

#include "objectstore/base/bytes.h"
#include "objectstore/base/clock.h"
#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"
#include "objectstore/object_store.h"

namespace cumulus {

inline constexpr ObjectId kImageObject = 1;
inline constexpr std::uint64_t kImageSizeMax = std::uint64_t{1} << 60;
// Chunks of 256 KiB and cells of 4 KiB: a random 4 KiB read opens one cell, and a chunk's row stays small.
inline constexpr DatasetOptions kImageDataset{.type = DatasetType::image, .chunk_log2 = 18, .cell_log2 = 12};

struct ImageHeader {
  WallTime created_at = 0;
  std::uint32_t block_preferred = 4096;  // bytes, a power of two, 512 to 1 MiB

  Bytes encode() const;
  // unsupported: a version or feature that this program does not know; corrupt: not an image's header.
  static Result<ImageHeader> decode(ByteView header);
  bool operator==(const ImageHeader&) const = default;
};

}  // namespace cumulus
