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
  double weight = 1.0;  // > 0; anything else counts as next to nothing
};

struct Placement {
  std::vector<MinerId> miners;  // slice i goes to miners[i]
  bool crowded = false;         // some miner holds more than one
};

// Chooses for the slots of `placed` that are all zeros (MinerId{}); the others are kept and counted, in their
// domains too as far as they are among the candidates. Each candidate is given once.
// no_space, saying how many miners would be enough, when the slices cannot be placed without more than max(m,
// 1) of them on one miner. The order of the candidates does not matter.
Result<Placement> place(const VolumeId& volume, const SegmentId& segment, std::uint8_t m,
                        std::vector<MinerId> placed, std::span<const Candidate> candidates);

}  // namespace cumulus
