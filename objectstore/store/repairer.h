// Repairer: brings every stored segment back to k + m verified slices on distinct miners (`volume repair`).
// Missing and wrong slices are rebuilt from any k good ones; crowded segments are spread when there are
// miners enough. The most endangered segments come first. It needs no read key, deletes nothing, and reports
// what it cannot mend.
//
// First comes whatever the miners' own listings show to be in danger, then all the rest in order of identity,
// so that slices which are wrong without their miner saying so are found too. How far that order has come is
// handed out to be kept: a run that was interrupted goes on there. A miner that returns wrong bytes for a
// slice that it was just given loses it to another. Reactor thread; erasure code and hashing run on workers;
// two segments at a time.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "objectstore/index/index.h"
#include "objectstore/object_store.h"
#include "objectstore/store/eligible_miners.h"
#include "objectstore/store/segment_audit.h"

namespace cumulus {

class Repairer {
 public:
  // Writes a segment's new whereabouts into the log.
  using Note = std::function<Task<Status>(change::Placed placed)>;

  // Keeps how far the run has come, for the next one to go on after; nullopt: it is through. Called once a
  // second; that it could not be kept costs only time.
  using Keep = std::function<Task<void>(std::optional<SegmentId> through)>;

  Repairer(Runtime& runtime, Index& index, SliceTransport& transport, VolumeId volume,
           Duration request_deadline, Note note, Keep keep);

  // Tries every miner now, whatever failed before. `after`: what an interrupted run kept. Progress in
  // segments; false interrupts (closed). io and fenced: what `note` said.
  Task<Result<RepairReport>> repair(std::optional<SegmentId> after, Progress progress);
  // Segments that the last run knows to be damaged still.
  const std::set<SegmentId>& damaged() const { return damaged_; }

 private:
  Task<void> find_miners();
  Task<Status> plan(std::optional<SegmentId> after);
  Task<void> work(const Progress& progress);
  Task<void> settle(std::size_t at);
  Task<void> repair_segment(change::Placed placed);
  Task<bool> replace_liars(const change::Placed& placed, const AuditedSegment& audited,
                           std::vector<MinerId>& miners);
  Task<void> try_unspread_again();
  Task<bool> rebuild(const change::Placed& placed, AuditedSegment& audited);
  Task<std::vector<MinerId>> put_slices(const change::Placed& placed, const AuditedSegment& audited,
                                        std::vector<std::uint16_t> which, bool same_miner_first,
                                        std::vector<MinerId> avoid);
  std::vector<std::uint16_t> missing_of(const change::Placed& placed, const AuditedSegment& audited) const;
  Task<void> spread(const change::Placed& placed, const AuditedSegment& audited,
                    std::vector<MinerId>& miners);
  bool list_is_wide_enough(const change::Placed& placed) const;
  void note_problem(const change::Placed& placed, std::string_view problem);
  void note_unspread();

  Runtime& runtime_;
  Index& index_;
  SliceTransport& transport_;
  VolumeId volume_;
  Duration request_deadline_;
  Note note_;
  Keep keep_;
  EligibleMiners eligible_;
  SegmentAudit audit_;

  // Of the run that is under way.
  std::vector<change::Placed> segments_;
  std::size_t next_ = 0;
  std::size_t done_ = 0;
  std::size_t in_order_ = 0;   // from here on segments_ is in order of identity
  std::vector<bool> settled_;  // looked at
  std::size_t kept_ = 0;       // segments_ up to here are
  TimePoint keep_at_;
  std::set<SegmentId> unspread_;
  std::set<SegmentId> undrained_;  // on a draining miner, and the list is too short to move them
  std::set<SegmentId> damaged_;
  RepairReport report_;
  std::optional<Error> failure_;
  bool stopping_ = false;
  Signal never_;
};

}  // namespace cumulus
