// The holders of the superblock: who they should be, and what they say now. A survey only reads; it decides
// nothing. Reactor thread.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"
#include "objectstore/io/sync.h"
#include "objectstore/slice_transport.h"
#include "objectstore/store/home_file.h"
#include "objectstore/superblock.h"

namespace cumulus {

class KeyTree;

// n holders (QuorumShape::for_volume): those of `current` that are still listed stay, then distinct failure
// domains first, in list order. Deterministic.
std::vector<MinerId> choose_holders(const std::vector<MinerEntry>& miners, std::uint8_t m,
                                    const std::vector<MinerId>& current);

// Does `yes` hold a quorum of the record's holders, and of its next holders when the set is changing?
bool quorum_of(const Superblock& record, const std::function<bool(const MinerId&)>& yes);
// "3 of the 5 holders of the volume", for messages.
std::string quorum_in_words(const Superblock& record);

struct Survey {
  std::optional<Superblock> newest;  // by (ballot, version), of those that answered
  Ballot highest;                    // highest ballot seen, promises included
  bool quorum_reached = false;       // a quorum of the newest record's holders answered: it is the newest
  std::set<MinerId> heard;           // who answered, at the address that the transport has
  std::map<MinerId, Error> errors;   // miners that did not answer, and why
};

// Asks all of the transport's miners at once; returns as soon as a quorum of the newest record's holders
// answered, or when `patience` is over, with what there is. Records of other volumes are ignored; a destroyed
// one is returned like any other. corrupt: the newest record of a quorum is older than `home` has seen (the
// miners were rolled back).
// Requests that nobody waits for any more end in `stragglers`, by the same deadline.
Task<Result<Survey>> survey_holders(Runtime& runtime, SliceTransport& transport, VolumeId volume,
                                    HomeRecord home, Duration patience, TaskGroup& stragglers);

// The record's list says who the volume's miners are; whatever the transport was given (a home's file) may be
// of before a change that another home made. From here on the transport has the record's list; of miners that
// both know it keeps its own address when `keep_addresses`, and of those that answered there. False: it had
// that list already, or the record's cannot be read.
bool follow_list(SliceTransport& transport, const KeyTree& keys, const Superblock& record,
                 bool keep_addresses, const std::set<MinerId>& heard = {});

// As survey_holders(), and follows the newest record's list: asks again while that names miners that were not
// asked and a quorum of its holders has not answered. `given`: the transport's addresses were just given by
// the owner, and are kept; otherwise those of a record that another home wrote are newer.
Task<Result<Survey>> survey_members(Runtime& runtime, SliceTransport& transport, const KeyTree& keys,
                                    HomeRecord home, bool given, Duration patience, TaskGroup& stragglers);

}  // namespace cumulus
