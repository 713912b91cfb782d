// SegmentReader: opens the groups of one segment's bytes, wherever they come from: a slot after a restart, a
// miner, a file that somebody inspects. Nothing in the bytes is believed before it verifies. Pure: no I/O;
// any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"
#include "objectstore/log/group.h"
#include "objectstore/log/replay.h"
#include "objectstore/manifest.h"

namespace cumulus {

struct OpenedGroup {
  GroupHeader header;
  Bytes records;  // without the run table
  CellArea area;
};

struct OpenedSegment {
  SegmentScan scan;
  std::vector<OpenedGroup> groups;  // whole ones from the first on, in order
};

// `length`: how many bytes may hold groups (a segment's length, or a slot's size when that is not known).
// With `previous_tag`, the first group must follow the group with that header tag. Errors: corrupt or
// unsupported segment header, unsupported group; groups that do not open are told in the scan.
Result<OpenedSegment> open_segment_bytes(const KeyTree& keys, ByteView bytes, std::uint64_t length,
                                         std::optional<GroupTag> previous_tag, bool check_cells);

}  // namespace cumulus
