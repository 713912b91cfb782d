// Repairer: brings every stored segment back to k + m verified slices on distinct miners (`volume repair`).
// Missing and wrong slices are rebuilt from any k good ones; crowded segments are spread when there are
// miners enough. Most endangered segments first. It needs no read key. It deletes nothing, and reports what
// it cannot mend.
//
// Interrupted, it goes on where it stopped: DIR/repair.position names the segments verified in this run.
// Reactor thread; erasure code and hashing run on workers; two segments at a time.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "objectstore/index/index.h"
#include "objectstore/io/file.h"
#include "objectstore/object_store.h"
#include "objectstore/store/eligible_miners.h"
#include "objectstore/store/segment_audit.h"

namespace cumulus {

class Repairer {
 public:
  // Stages the segment's new Placed change in the log.
  using OnMoved = std::function<Task<Status>(change::Placed placed)>;
  struct Options {
    std::string position_path;  // DIR/repair.position
    std::uint32_t segment_size = 8u << 20;
    std::uint32_t parallel = 2;
    Duration request_deadline = std::chrono::seconds(30);
  };

  Repairer(Runtime& runtime, SliceTransport& transport, Index& index, FileSystem& disk,
           EligibleMiners& eligible, VolumeId volume, Options options, OnMoved on_moved);
  ~Repairer();

  // Progress in segments. closed: interrupted; call again to go on. One run at a time.
  Task<Result<RepairReport>> run(Progress progress);
  void stop();  // run() ends soon with `closed`

 private:
  struct Job {
    change::Placed placed;
    std::uint32_t missing = 0;
  };

  Task<Result<std::vector<Job>>> order_by_danger();
  Task<void> work(std::vector<Job>& jobs, std::size_t& next, RepairReport& report, const Progress& progress);
  Task<void> repair_segment(change::Placed placed, RepairReport& report);
  Task<Status> rebuild(change::Placed& placed, AuditedSegment& audited, RepairReport& report);
  Task<void> spread(change::Placed& placed, const AuditedSegment& audited, RepairReport& report);
  Task<void> load_position();
  Task<void> save_position(bool at_once);
  void note_problem(RepairReport& report, std::string problem);

  Runtime& runtime_;
  SliceTransport& transport_;
  Index& index_;
  FileSystem& disk_;
  EligibleMiners& eligible_;
  Options options_;
  OnMoved on_moved_;
  SegmentAudit audit_;
  BufferPool rebuilt_;

  std::set<SegmentId> verified_;  // in this run, also before it was interrupted
  TimePoint saved_at_{};
  std::size_t done_ = 0;
  std::optional<Error> failure_;
  bool stopping_ = false;
  Signal wake_;
};

}  // namespace cumulus
