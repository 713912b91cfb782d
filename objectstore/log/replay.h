// Replay: reads the local log after a restart. Finds the segments in the slots, puts them in order of their
// chain, opens every group (header, records and each cell verify), and says where the log ends and why.
//
// A group that does not open is a torn tail only if nothing later proves that it was durable: a later group's
// durable_upto at or beyond it, in the same or a later segment, or a later segment that chains to the whole
// of this one. (A later segment alone proves nothing: it is begun before the one before it is durable.)
// Otherwise it is rot: replay stops there and reports the segment, which is fetched from the miners, never
// truncated quietly. Reactor thread; decoding runs on workers.
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
  GroupTag last_group_tag{};
  LogPosition durable_upto = 0;  // the highest seen in it, also beyond a bad group
  std::uint64_t bad_at =
      0;  // where the first group that does not open begins; 0: none (all zeros or end after the last)
  bool whole_groups_after_bad = false;
};

// Looks at what the whole segment showed before any of its groups is visited; its error ends the scan.
using ScanCheck = std::function<Status(const SegmentScan& scan)>;

// Verifies and visits every group of one segment's bytes after `after` (earlier ones are verified and
// skipped); `check_cells` opens every cell too. previous_tag continues the chain; nullopt: not checked for
// the first group.
Task<Result<SegmentScan>> scan_segment(Runtime& runtime, const KeyTree& keys,
                                       std::shared_ptr<const Buffer> bytes, std::uint64_t length,
                                       std::optional<GroupTag> previous_tag, LogPosition after,
                                       bool check_cells, GroupVisitor visit, ScanCheck agree = {});

struct LastGroup {
  LogPosition group = 0;
  GroupTag tag{};  // of its header
};

// Where replay begins: with segment `sequence`, whose previous segment has chain value `previous_chain`. The
// defaults are a new volume's.
struct ReplayStart {
  Sequence sequence = 1;
  Digest previous_chain{};
  std::optional<LastGroup> previous = LastGroup{};  // before `sequence`; nullopt: not known
  LogPosition after = 0;                            // groups up to it are verified, not visited
  // At least this much was durable and accepted, whatever the segments say (the tail record, the index).
  LogPosition durable_upto = 0;
};

// A segment that the local log lacks. A writer that was taken over may have left another one of the same
// sequence on the miners, behind the same segment: what is here tells which of them is meant.
struct WantedSegment {
  Sequence sequence = 0;
  Digest previous_chain{};
  std::vector<SegmentHeader> headers;  // of damaged local copies
  std::vector<Digest> chains;          // what the local segments of the next sequence continue
};

// One whole segment's bytes from the miners: what the miners hold of it is what was sealed.
struct FetchedSegment {
  std::shared_ptr<const Buffer> bytes;
  std::uint64_t length = 0;
};
using FetchSegment = std::function<Task<Result<FetchedSegment>>(WantedSegment wanted)>;

struct RecoveredLog {
  // Where the next segment starts; epoch and instance are the opener's to fill in.
  LogStart next;
  // Every segment from the start on, in order, each sealed at its last whole group and durable locally.
  std::vector<SealedSegment> segments;
  bool cut_whole_groups = false;  // whole groups behind a torn one, never durable, were cut
  std::vector<Sequence> healed;   // fetched because the local copy was rotten or gone
};

// Finds, verifies and visits the log from `start` on; `fetch` may be empty. Makes what it found durable, and
// discards what can never belong to the log any more. Errors: corrupt, naming segment and offset, when bytes
// that were durable are gone and could not be fetched; what the visitor says; io.
Task<Result<RecoveredLog>> recover_local_log(Runtime& runtime, const KeyTree& keys, LocalSegments& segments,
                                             ReplayStart start, FetchSegment fetch, GroupVisitor visit);

}  // namespace cumulus
