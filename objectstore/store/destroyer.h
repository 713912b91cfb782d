// Destroyer: ends a volume. A quorum of holders accepts the destroyed mark first, so that no other home can
// open or write it any more; then every slice is deleted on every miner that answers. Reactor thread.
#pragma once

#include <string>
#include <vector>

#include "objectstore/object_store.h"
#include "objectstore/slice_transport.h"
#include "objectstore/store/tail_keeper.h"

namespace cumulus {

class Destroyer {
 public:
  Destroyer(Runtime& runtime, SliceTransport& transport, TailKeeper& tail, Duration request_deadline);

  // Progress in slices deleted (total unknown: 0). Returns the miners that did not answer, or not to the end,
  // each with the reason: what they hold is ciphertext without an owner. unavailable, fenced: the mark was
  // not accepted and nothing was deleted. closed: interrupted after the mark; call again to go on.
  Task<Result<std::vector<std::string>>> destroy(Progress progress,
                                                 Duration patience = std::chrono::seconds(30));

 private:
  Task<void> empty_miner(MinerEntry miner, std::vector<std::string>& left, const Progress& progress);

  Runtime& runtime_;
  SliceTransport& transport_;
  TailKeeper& tail_;
  Duration request_deadline_;
  std::uint64_t deleted_ = 0;
  bool interrupted_ = false;
};

}  // namespace cumulus
