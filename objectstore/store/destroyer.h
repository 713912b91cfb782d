// Destroyer: gives back what a destroyed volume holds: every slice is deleted on every miner that answers.
// It must never begin before a quorum of holders has accepted the destroyed mark: until then another home may
// still write the volume. Reactor thread.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "objectstore/object_store.h"
#include "objectstore/slice_transport.h"
#include "objectstore/superblock.h"

namespace cumulus {

class Destroyer {
 public:
  // `mark`: the destroyed record that a quorum has accepted (checked).
  Destroyer(Runtime& runtime, SliceTransport& transport, const Superblock& mark, Duration request_deadline);

  // Progress in slices deleted (total unknown: 0). Returns the miners that did not answer, or not to the end,
  // each with the reason: what they hold is ciphertext without an owner. May be called again, for those.
  // closed: interrupted.
  Task<Result<std::vector<std::string>>> delete_slices(Progress progress);

 private:
  Task<void> empty_miner(MinerEntry miner, std::vector<std::string>& left, const Progress& progress);

  Runtime& runtime_;
  SliceTransport& transport_;
  const VolumeId volume_;
  Duration request_deadline_;
  std::uint64_t deleted_ = 0;
  bool interrupted_ = false;
};

}  // namespace cumulus
