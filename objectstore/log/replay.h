// Replay: reads the local log after a restart. Finds the segments in the slots, puts them in order of their
// chain, opens every group (header, records and each cell verify), and says where the log ends and why.
//
// A group that does not open is a torn tail only if nothing later proves that it was durable: a later group's
// durable_upto at or beyond it, or a later segment. Otherwise it is rot: replay stops there and reports the
// segment, which is fetched from the miners, never truncated quietly. Reactor thread; decoding runs on
// workers.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "objectstore/log/change.h"
#include "objectstore/log/group.h"
#include "objectstore/log/log_writer.h"

namespace cumulus {

// One opened group; views are valid during the call only.
struct ReplayedGroup {
  GroupHeader header;
  ByteView records;
  CellArea area;
};
using GroupVisitor = std::function<Task<Status>(const ReplayedGroup& group)>;

// How a segment's groups ended.
struct SegmentScan {
  SegmentHeader header;
  std::uint64_t good_length = 0;  // up to the end of the last whole group
  LogPosition first_group = 0;
  LogPosition last_group = 0;
  std::array<std::uint8_t, 16> last_group_tag{};
  LogPosition durable_upto = 0;  // the highest seen in it, also beyond a bad group
  std::uint64_t bad_at =
      0;  // where the first group that does not open begins; 0: none (all zeros or end after the last)
  bool whole_groups_after_bad = false;
};

// Verifies and visits every group of one segment's bytes after `after` (earlier ones are verified and
// skipped); `check_cells` opens every cell too. previous_tag continues the chain; nullopt: not checked for
// the first group.
Task<Result<SegmentScan>> scan_segment(Runtime& runtime, const KeyTree& keys,
                                       std::shared_ptr<const Buffer> bytes, std::uint64_t length,
                                       std::optional<std::array<std::uint8_t, 16>> previous_tag,
                                       LogPosition after, bool check_cells, GroupVisitor visit);

}  // namespace cumulus
