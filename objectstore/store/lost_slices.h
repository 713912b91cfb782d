// Slices that the miners named for them do not have: a volume that was recovered while miners were away does
// not know what they hold, and a repair may have moved slices and been killed before that was written down.
// What is learned here is the miners' own word: whoever reads the slices verifies them. Reactor thread.
#pragma once

#include <set>
#include <utility>
#include <vector>

#include "objectstore/io/runtime.h"
#include "objectstore/log/change.h"
#include "objectstore/slice_transport.h"

namespace cumulus {

bool is_listed(const SliceTransport& transport, const MinerId& miner);

// Slices and miners that were asked for them in vain.
using TriedHolders = std::set<std::pair<std::uint16_t, MinerId>>;

// Asks every miner, until then (a second at least), for the `lost` slices of `placed`, and writes those that
// say they have them into it. Who was named before goes into `tried`, and nobody in there is named again: it
// can be called until it returns false, which means that nobody else has any. `placed` and `tried` stay until
// it returns.
Task<bool> find_lost_slices(Runtime& runtime, SliceTransport& transport, change::Placed& placed,
                            std::vector<std::uint16_t> lost, TriedHolders& tried, TimePoint until);

}  // namespace cumulus
