// Slices of which nobody listed is known: a volume that was recovered while miners were away does not know
// what they hold, and a miner's slices may have come to another identity. What is learned here is the
// miners' own word: whoever reads the slices verifies them. Reactor thread.
#pragma once

#include "objectstore/io/runtime.h"
#include "objectstore/log/change.h"
#include "objectstore/slice_transport.h"

namespace cumulus {

bool is_listed(const SliceTransport& transport, const MinerId& miner);

// Asks every miner, until then (a second at least), for the slices of `placed` whose miner is not listed, and
// writes those that have them into it. True when that told of any. `placed` stays until it returns.
Task<bool> find_lost_slices(Runtime& runtime, SliceTransport& transport, change::Placed& placed,
                            TimePoint until);

}  // namespace cumulus
