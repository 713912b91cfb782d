// Placement: which miners hold a segment's slices. Weighted rendezvous hashing (Thaler and Ravishankar 1998;
// weights after Schindelhauer and Schomaker 2005): each miner's score for a segment is drawn from a hash of
// both, so load follows weight and a miner that comes or goes moves only its own share. Distinct failure
// domains come first, then distinct miners; when there are too few, slices double up, at most max(m, 1) on
// one miner, and the segment is crowded. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"

namespace cumulus {

// A miner that may take slices now.
struct Candidate {
  MinerId id;
  std::string domain;
  double weight = 1.0;  // > 0
};

struct Placement {
  std::vector<MinerId> miners;  // slice i goes to miners[i]
  bool crowded = false;         // some miner holds more than one
};

// Chooses for the slots of `placed` that are all zeros (MinerId{}); the others are kept and counted.
// no_space, saying how many miners would be enough, when the slices cannot be placed without more than max(m,
// 1) of them on one miner.
Result<Placement> place(const VolumeId& volume, const SegmentId& segment, std::uint8_t m,
                        std::vector<MinerId> placed, std::span<const Candidate> candidates);

}  // namespace cumulus
