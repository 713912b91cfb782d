// SegmentAudit: looks at every slice of a placed segment on its miners and says of each whether it is good.
// Nothing is believed: with bytes, a slice is good when its Merkle root is that of the signed manifest. Reads
// only; what the repairer and the checker have in common. Reactor thread; hashing runs on workers.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "objectstore/index/index.h"
#include "objectstore/io/sync.h"
#include "objectstore/log/change.h"
#include "objectstore/manifest.h"
#include "objectstore/slice_transport.h"

namespace cumulus {

enum class SliceState : std::uint8_t {
  good,      // verified
  missing,   // the miner answers and has no such slice
  wrong,     // it has one that does not verify
  unreached  // the miner does not answer, or is not in the list any more
};
std::string_view to_string(SliceState state);

// All segments of every kind that the index knows to be placed.
Task<Result<std::vector<change::Placed>>> placed_segments(Index& index);

struct AuditedSlice {
  SliceState state = SliceState::unreached;
  std::shared_ptr<Buffer> owner;  // good ones
  ByteView bytes;                 // stored_length(index) of them
  std::string detail;             // why it is not good
};

struct AuditedSegment {
  std::optional<Manifest> manifest;  // none: no miner showed one that fits the Placed change
  std::vector<AuditedSlice> slices;

  std::size_t count(SliceState state) const;
};

class SegmentAudit {
 public:
  SegmentAudit(Runtime& runtime, SliceTransport& transport, VolumeId volume, Duration request_deadline);

  // Memory for one slice of up to `length` bytes, pooled by the largest asked for so far.
  std::shared_ptr<Buffer> slice_buffer(std::size_t length);

  // Reads and verifies every slice, all miners at once. Everybody is asked for slices of which no listed
  // miner is known, and, when too few are good, for all that are not: `placed`, which stays until it returns,
  // names who has them then. Memory: (k + m) slices, pooled.
  Task<AuditedSegment> examine(change::Placed& placed);
  // Reads and verifies one slice.
  Task<SliceState> examine_slice(change::Placed placed, std::uint16_t index);
  // How many slices of each segment are not there by the miners' own word (HAVE): a cheap order of urgency.
  // Slices of miners that do not answer count as missing.
  Task<std::vector<std::uint32_t>> count_missing(std::vector<change::Placed> segments);

 private:
  Task<AuditedSegment> examine_named(const change::Placed& placed);
  Task<void> read_slice(change::Placed placed, std::uint16_t index, AuditedSegment& into);
  Result<Manifest> fitting(ByteView encoded, const change::Placed& placed) const;

  Runtime& runtime_;
  SliceTransport& transport_;
  VolumeId volume_;
  Duration request_deadline_;
  std::optional<BufferPool> slices_;
};

}  // namespace cumulus
