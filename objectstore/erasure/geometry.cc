#include "objectstore/erasure/geometry.h"

#include <algorithm>

#include "objectstore/base/check.h"

namespace cumulus {

SliceGeometry SliceGeometry::of(std::uint64_t segment_length, std::uint8_t k, std::uint8_t m) {
  CHECK(k >= 1);
  const std::uint64_t share = (segment_length + k - 1) / k;
  return {segment_length, k, m, (share + kGranule - 1) / kGranule * kGranule};
}

std::uint64_t SliceGeometry::stored_length(std::uint16_t slice) const {
  if (slice >= k) return slice_length;
  const std::uint64_t begin = slice * slice_length;
  return begin >= segment_length ? 0 : std::min(slice_length, segment_length - begin);
}

std::vector<SlicePiece> SliceGeometry::pieces(std::uint64_t offset, std::uint64_t length) const {
  CHECK(offset <= segment_length && length <= segment_length - offset);
  std::vector<SlicePiece> all;
  for (std::uint64_t done = 0; done < length;) {
    const std::uint64_t at = offset + done;
    const std::uint64_t within = at % slice_length;
    const std::uint64_t part = std::min(slice_length - within, length - done);
    all.push_back({static_cast<std::uint16_t>(at / slice_length), within, part, done});
    done += part;
  }
  return all;
}

}  // namespace cumulus
