// Coalescing: what a group need not say twice. A group comes back whole or not at all, so of several headers
// that one object was given in it only the last was ever to be seen, and usage is a sum. For small files this
// is more than half of their records: a file is made, written and its folder's times are set, all in one
// group. Pure; any thread.
#pragma once

#include <vector>

#include "objectstore/log/change.h"

namespace cumulus {

// `changes` of one group, in their order, left with the same effect: an object's last header stands where its
// first one did (or in its creation), and a quota tree's usage where it was first changed. Nothing is moved
// past a change of the catalogue: a snapshot shows what was before it.
void coalesce(std::vector<Change>& changes);

}  // namespace cumulus
