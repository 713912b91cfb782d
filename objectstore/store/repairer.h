// Repairer: brings every stored segment back to k + m verified slices on distinct miners (`volume repair`).
// Missing and wrong slices are rebuilt from any k good ones; crowded segments are spread when there are
// miners enough. The most endangered segments come first. It needs no read key, deletes nothing, and reports
// what it cannot mend.
//
// It keeps no position: a run is idempotent, and one that was interrupted begins again with what is most in
// danger. Reactor thread; erasure code and hashing run on workers; two segments at a time.
#pragma once

#include <functional>
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

  Repairer(Runtime& runtime, Index& index, SliceTransport& transport, VolumeId volume,
           Duration request_deadline, Note note);

  // Progress in segments; false interrupts (closed). io and fenced: what `note` said.
  Task<Result<RepairReport>> repair(Progress progress);

 private:
  Task<Result<std::vector<change::Placed>>> order_by_danger();
  Task<void> work(const Progress& progress);
  Task<void> repair_segment(change::Placed placed);
  Task<bool> rebuild(const change::Placed& placed, AuditedSegment& audited);
  Task<std::vector<MinerId>> put_slices(const change::Placed& placed, const AuditedSegment& audited,
                                        std::vector<std::uint16_t> which, bool same_miner_first);
  std::vector<std::uint16_t> missing_of(const change::Placed& placed, const AuditedSegment& audited) const;
  Task<void> spread(const change::Placed& placed, const AuditedSegment& audited,
                    std::vector<MinerId>& miners);
  void note_problem(const change::Placed& placed, std::string_view problem);

  Runtime& runtime_;
  Index& index_;
  SliceTransport& transport_;
  VolumeId volume_;
  Duration request_deadline_;
  Note note_;
  EligibleMiners eligible_;
  SegmentAudit audit_;

  // Of the run that is under way.
  std::vector<change::Placed> segments_;
  std::size_t next_ = 0;
  std::size_t done_ = 0;
  RepairReport report_;
  std::optional<Error> failure_;
  bool stopping_ = false;
  Signal never_;
};

}  // namespace cumulus
