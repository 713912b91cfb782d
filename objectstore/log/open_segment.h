// OpenSegment: the memory of the segment that is being written. Reserving a group seals its header at once,
// in the order of the log; its records and cells are sealed later, on any thread, each group into its own
// range. No I/O. What it must never do: reserve a range twice, or change a byte that was sealed.
//
// reserve() on the reactor; fill() on any thread, once for each place.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/crypto/aead.h"
#include "objectstore/log/group.h"
#include "objectstore/log/log_writer.h"
#include "objectstore/manifest.h"

namespace cumulus {

class OpenSegment {
 public:
  struct Place {
    LogPosition number = 0;
    GroupLayout layout;
    std::uint64_t nonce = 0;
    GroupTag tag{};
  };

  OpenSegment(const KeyTree& keys, const SegmentHeader& header, std::shared_ptr<Buffer> memory,
              std::uint32_t segment_size);

  bool fits(std::uint32_t records_length, std::uint32_t cells_length) const;
  // `group` lacks only its lengths. The reserved range must fit.
  Place reserve(GroupHeader group, std::uint32_t records_length, std::uint32_t cells_length,
                std::uint64_t nonce);
  void fill(const Place& place, const GroupDraft& draft) const;

  const SegmentHeader& header() const { return header_; }
  const std::shared_ptr<Buffer>& memory() const { return memory_; }
  std::uint32_t end() const { return end_; }  // of what was reserved
  bool empty() const { return groups_ == 0; }
  LogPosition first_group() const { return first_group_; }
  LogPosition last_group() const { return last_group_; }
  bool bookkeeping_only() const { return bookkeeping_only_; }
  // Final once nothing more will be reserved.
  Digest chain() const { return chain_value(header_, last_tag_, end_); }
  SealedSegment sealed() const;

  // Plain length of what is sealed as the group's records: the run table and the draft's records.
  static std::uint32_t unit_length(const GroupDraft& draft);
  // Largest records + sealed cells of one group in a segment of this size and alignment.
  static std::uint32_t room(std::uint32_t segment_size, std::uint8_t align_log2);

 private:
  const SegmentHeader header_;
  const AeadKey key_;
  const std::shared_ptr<Buffer> memory_;
  const std::uint32_t segment_size_;
  std::array<std::uint8_t, SegmentHeader::kEncodedSize> header_bytes_{};
  std::uint32_t end_ = 0;
  std::uint32_t groups_ = 0;
  LogPosition first_group_ = 0;
  LogPosition last_group_ = 0;
  GroupTag last_tag_{};
  bool bookkeeping_only_ = true;
};

}  // namespace cumulus
