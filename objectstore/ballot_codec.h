// The one encoding of a ballot (FORMAT.md), for whatever holds ballots: superblocks, claims, a home's file.
// Pure; any thread. It must never change: what was signed holds these bytes.
#pragma once

#include "objectstore/base/codec.h"
#include "objectstore/base/ids.h"

namespace cumulus {

inline void put_ballot(Encoder& out, const Ballot& ballot) {
  out.u64(ballot.epoch);
  out.u64(ballot.open_number);
  out.bytes(ballot.instance.view());
}

// Zeroes where `in` ends too early: as with every field, in.done() says so.
inline Ballot take_ballot(Decoder& in) {
  Ballot ballot;
  ballot.epoch = in.u64();
  ballot.open_number = in.u64();
  ballot.instance.bytes = in.array<16>();
  return ballot;
}

}  // namespace cumulus
