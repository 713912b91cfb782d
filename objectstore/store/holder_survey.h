// The holders of the superblock: who they should be, and what they say now. A survey only reads; it decides
// nothing. Reactor thread.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"
#include "objectstore/io/sync.h"
#include "objectstore/slice_transport.h"
#include "objectstore/store/home_file.h"
#include "objectstore/superblock.h"

namespace cumulus {

// n holders (QuorumShape::for_volume): those of `current` that are still listed stay, then distinct failure
// domains first, in list order. Deterministic.
std::vector<MinerId> choose_holders(const std::vector<MinerEntry>& miners, std::uint8_t m,
                                    const std::vector<MinerId>& current);

// Does `yes` hold a quorum of the record's holders, and of its next holders when the set is changing?
bool quorum_of(const Superblock& record, const std::function<bool(const MinerId&)>& yes);

struct Survey {
  std::optional<Superblock> newest;  // by (ballot, version), of those that answered
  Ballot highest;                    // highest ballot seen, promises included
  bool quorum_reached = false;       // a quorum of the newest record's holders answered: it is the newest
  std::uint32_t answered = 0;
  std::map<MinerId, Error> errors;  // miners that did not answer, and why
};

// Asks all of the transport's miners at once; returns as soon as a quorum of the newest record's holders
// answered, or when `patience` is over, with what there is. Records of other volumes are ignored; a destroyed
// one is returned like any other. corrupt: the newest record of a quorum is older than `home` has seen (the
// miners were rolled back).
// Requests that nobody waits for any more end in `stragglers`, by the same deadline.
Task<Result<Survey>> survey_holders(Runtime& runtime, SliceTransport& transport, VolumeId volume,
                                    HomeRecord home, Duration patience, TaskGroup& stragglers);

}  // namespace cumulus
