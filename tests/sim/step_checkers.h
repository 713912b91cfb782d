// The checkers that run after every step beside those of checkers.h. Each remembers what it has seen to be
// right, and looks only at what came since. One thread.
#pragma once

#include <set>

#include "tests/sim/checkers.h"
#include "tests/sim/local_log.h"

namespace cumulus {

// R1: what the index made durable, the log has durably: on this disk alone, whatever the volume says of
// itself, from there back to what miners store.
class IndexChecker {
 public:
  // `stored`: the newest tail that a quorum accepted.
  Violation look(Cluster& cluster, const Home& home, const Tail& stored);
  std::uint64_t looks() const { return looks_; }

 private:
  LogPosition seen_ = 0;
  std::set<Digest> whole_;  // chain values of segments that were durable, with all before them
  std::uint64_t looks_ = 0;
};

// R2, the stored prefix: every tail that a quorum accepts continues the one before it, without a gap, over
// segments of which all slices were acknowledged and enough are there. What fails later on the miners is not
// its concern.
class TailChecker {
 public:
  Violation look(Cluster& cluster, const Tail& accepted);
  std::uint64_t segments() const { return segments_; }

 private:
  Tail checked_;
  std::uint64_t segments_ = 0;
};

// What a volume holds at once, against what it promises.
class BoundsChecker {
 public:
  // `options`: those that the volume has now.
  Violation look(Cluster& cluster, const Home& home, const VolumeStatus& status,
                 const VolumeOptions& options);

 private:
  std::map<std::string, std::uint64_t> files_;  // by home: as the last look found them
};

}  // namespace cumulus
