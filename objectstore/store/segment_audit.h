// SegmentAudit: looks at every slice of a placed segment on its miners and says of each whether it is good.
// Nothing is believed: with bytes, a slice is good when its Merkle root is that of the signed manifest. Reads
// only; what the repairer and the checker have in common. Reactor thread; hashing runs on workers.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

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

struct AuditedSlice {
  SliceState state = SliceState::unreached;
  std::shared_ptr<Buffer> bytes;  // good ones, of stored_length(index)
  std::string detail;             // why it is not good
};

struct AuditedSegment {
  std::optional<Manifest> manifest;  // none: no miner showed one that fits the Placed change
  std::vector<AuditedSlice> slices;

  std::size_t count(SliceState state) const;
};

class SegmentAudit {
 public:
  SegmentAudit(Runtime& runtime, SliceTransport& transport, VolumeId volume, std::uint64_t slice_size_max,
               Duration request_deadline);

  // Reads and verifies every slice, all miners at once. Memory: (k + m) slices, pooled.
  Task<AuditedSegment> examine(change::Placed placed);
  // How many slices of each segment are not there by the miners' own word (HAVE): a cheap order of urgency.
  // Slices of miners that do not answer count as missing.
  Task<std::vector<std::uint32_t>> count_missing(std::vector<change::Placed> segments);

 private:
  Task<void> read_slice(change::Placed placed, std::uint16_t index, Bytes* manifest, AuditedSlice* into);
  bool fits(const Manifest& manifest, const change::Placed& placed) const;

  Runtime& runtime_;
  SliceTransport& transport_;
  VolumeId volume_;
  Duration request_deadline_;
  std::shared_ptr<BufferPool> slices_;
};

}  // namespace cumulus
