// SliceGeometry: how a sealed segment lies on k + m slices. Data slice i is the contiguous run of the
// segment's bytes [i * slice_length, (i + 1) * slice_length), so a small read touches one miner; the last
// ones may be shorter, or empty, and count as zero-padded for the code. Parity slices have slice_length
// bytes. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ranges>
#include <vector>

namespace cumulus {

// A stretch of a segment's bytes within one data slice.
struct SlicePiece {
  std::uint16_t slice = 0;
  std::uint64_t offset = 0;  // in the slice
  std::uint64_t length = 0;
  std::uint64_t target_offset = 0;  // in the range that was asked for
};

// 0..count-1 as slices are numbered. `count` is a segment's k + m, which have one byte each: 510 at most.
inline auto slice_indices(std::size_t count) {
  return std::views::iota(std::uint16_t{0}, static_cast<std::uint16_t>(count));
}

struct SliceGeometry {
  static constexpr std::uint64_t kGranule = 64;  // slice_length is a multiple: whole vector registers

  std::uint64_t segment_length = 0;
  std::uint8_t k = 0;
  std::uint8_t m = 0;
  std::uint64_t slice_length = 0;

  // k >= 1.
  static SliceGeometry of(std::uint64_t segment_length, std::uint8_t k, std::uint8_t m);

  std::uint16_t slices() const { return static_cast<std::uint16_t>(k + m); }
  // Bytes that the slice stores: what its Merkle root covers.
  std::uint64_t stored_length(std::uint16_t slice) const;
  // The pieces that [offset, offset + length) of the segment is made of, in order. The range lies within the
  // segment.
  std::vector<SlicePiece> pieces(std::uint64_t offset, std::uint64_t length) const;
};

}  // namespace cumulus
