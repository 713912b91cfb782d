// Checker: looks for everything that is wrong and changes nothing (`volume check [--data]`). The index is
// walked; with data, every slice of every placed segment is read from its miner and verified against the
// signed manifest. Reactor thread; two segments at a time.
#pragma once

#include <set>

#include "objectstore/index/index.h"
#include "objectstore/object_store.h"
#include "objectstore/store/segment_audit.h"

namespace cumulus {

class Checker {
 public:
  static constexpr std::size_t kProblemsMax = 100;

  Checker(Runtime& runtime, Index& index, SliceTransport& transport, VolumeId volume,
          Duration request_deadline);

  // Progress in rows (total 0), then (with data) in segments. closed: interrupted. What is wrong is in the
  // report, not an error.
  Task<Result<CheckReport>> check(bool with_data, Progress progress);
  // Segments that the last check with data found wrong slices of.
  const std::set<SegmentId>& damaged() const { return damaged_; }

 private:
  Task<void> work(const Progress& progress);
  void note_segment(const change::Placed& placed, const AuditedSegment& audited);
  void note_problem(std::string problem);

  Index& index_;
  Runtime& runtime_;
  SegmentAudit audit_;

  // Of the run that is under way.
  std::vector<change::Placed> segments_;
  std::size_t next_ = 0;
  std::size_t done_ = 0;
  bool interrupted_ = false;
  CheckReport report_;
  std::set<SegmentId> damaged_;
};

}  // namespace cumulus
