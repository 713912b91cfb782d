// Lists of miners, taken together and apart. Plain functions.
#pragma once

#include <vector>

#include "objectstore/slice_transport.h"

namespace cumulus {

using Miners = std::vector<MinerEntry>;

bool names(const Miners& miners, const MinerId& id);
// Those of `these` that `others` does not name.
Miners only_in(const Miners& these, const Miners& others);
// These, where the others' entries of them say that they are.
Miners at_addresses_of(Miners these, const Miners& others);
// `first`, and what only `second` names, to be reached and given nothing.
Miners with_guests(Miners first, const Miners& second);

}  // namespace cumulus
