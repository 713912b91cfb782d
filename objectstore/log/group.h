// Group: the layout of one commit inside a segment (FORMAT.md, "Group"): where its parts lie, and the header
// that is sealed in front of them. Only layout and parsing; open_segment.h seals, segment_reader.h opens.
// Pure; any thread.
#pragma once

#include <array>
#include <cstdint>

#include "objectstore/base/bytes.h"
#include "objectstore/base/clock.h"
#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"
#include "objectstore/log/run.h"

namespace cumulus {

using GroupTag = std::array<std::uint8_t, kTagSize>;  // of a group's sealed header: chains the groups

inline constexpr std::uint32_t kGroupNonceSize = 8;    // in clear, in front
inline constexpr std::uint32_t kGroupHeaderSize = 80;  // plain
inline constexpr std::uint32_t kGroupFixedSize = kGroupNonceSize + kGroupHeaderSize + kTagSize;

struct GroupHeader {
  LogPosition number = 0;
  WallTime written_at = 0;
  LogPosition durable_upto = 0;  // every group up to it was durable before this one was sealed
  bool bookkeeping = false;
  std::uint32_t total_length = 0;    // from the nonce to the end of the padding
  std::uint32_t records_length = 0;  // plain: the run table and the records
  std::uint32_t cells_length = 0;    // sealed
  GroupTag previous_tag{};           // the header's before it in the log; zeros for group 1

  bool operator==(const GroupHeader&) const = default;
  std::array<std::uint8_t, kGroupHeaderSize> encode() const;
  // corrupt when a field is impossible in a segment with groups at multiples of 1 << align_log2; unsupported
  // for flags that are not known.
  static Result<GroupHeader> decode(ByteView plain, std::uint8_t align_log2);
};

// Where the parts of a group that begins at `begin` lie; all offsets are in the segment.
struct GroupLayout {
  std::uint32_t begin = 0;
  std::uint32_t records_length = 0;
  std::uint32_t cells_length = 0;
  std::uint8_t align_log2 = 9;

  std::uint32_t header_at() const { return begin + kGroupNonceSize; }
  std::uint32_t records_at() const { return begin + kGroupFixedSize; }
  std::uint32_t cells_at() const { return records_at() + records_length + kTagSize; }
  std::uint32_t content_end() const { return cells_at() + cells_length; }
  std::uint32_t end() const {
    const std::uint32_t align = std::uint32_t{1} << align_log2;
    return (content_end() + align - 1) / align * align;
  }
};

}  // namespace cumulus
