// Run: where a stretch of plain bytes lies in the log. What index rows, change records and the reader speak
// of. Pure; any thread.
#pragma once

#include <cstdint>

#include "objectstore/base/ids.h"

namespace cumulus {

inline constexpr std::uint32_t kTagSize = 16;

// A run of cells in one segment: cell i holds at most 2^cell_log2 plain bytes and begins at base + i *
// (2^cell_log2 + 16). `nonce` is the group's 64 random nonce bits: with the cell's offset they are the AEAD
// nonce, so a run is self-contained.
struct Run {
  SegmentId segment;
  std::uint32_t base = 0;          // offset of the first cell in the segment
  std::uint32_t plain_length = 0;  // bytes in the whole run
  std::uint8_t cell_log2 = 14;     // 9..20
  std::uint8_t codec = 0;          // 0 = as it is; others are reserved for compression
  std::uint64_t nonce = 0;

  bool operator==(const Run&) const = default;

  std::uint32_t cell_size() const { return std::uint32_t{1} << cell_log2; }
  std::uint32_t cell_count() const { return (plain_length + cell_size() - 1) >> cell_log2; }
  // Bytes in the segment: cells and their tags.
  std::uint32_t sealed_length() const { return plain_length + cell_count() * kTagSize; }
};

inline std::uint32_t sealed_length_of(std::uint32_t plain_length, std::uint8_t cell_log2) {
  return Run{.plain_length = plain_length, .cell_log2 = cell_log2}.sealed_length();
}

// Runs that are not in the log yet: plain bytes in memory, numbered by `sequence`. Segments have kinds >= 1,
// so this "segment" can never be one. They exist in memory only and are never encoded.
inline constexpr SegmentKind kStagedKind{0};
inline bool is_staged(const Run& run) { return run.segment.kind == kStagedKind; }

}  // namespace cumulus
