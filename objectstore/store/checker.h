// Checker: looks for everything that is wrong and changes nothing (`volume check [--data]`). The index is
// walked; with data, every slice of every placed segment is read from its miner and verified against the
// signed manifest. Reactor thread; two segments at a time.
#pragma once

#include "objectstore/index/index.h"
#include "objectstore/object_store.h"
#include "objectstore/store/segment_audit.h"

namespace cumulus {

class Checker {
 public:
  static constexpr std::size_t kProblemsMax = 100;

  Checker(Runtime& runtime, SliceTransport& transport, Index& index, VolumeId volume,
          std::uint32_t segment_size, Duration request_deadline);

  // Progress in rows, then (with data) in segments. closed: interrupted. What is wrong is in the report, not
  // an error.
  Task<Result<CheckReport>> run(bool with_data, Progress progress);
  void stop() { stopping_ = true; }

 private:
  Task<void> work(std::vector<change::Placed>& segments, std::size_t& next, CheckReport& report,
                  const Progress& progress);
  void note_segment(const change::Placed& placed, const AuditedSegment& audited, CheckReport& report);

  Runtime& runtime_;
  Index& index_;
  SegmentAudit audit_;
  bool stopping_ = false;
  std::size_t done_ = 0;
};

}  // namespace cumulus
