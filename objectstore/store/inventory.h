// Inventory: what the miners hold of a volume's log, learnt from their listings alone. Each slice carries the
// segment's signed manifest, and each manifest the chain value of the one before: so the log's segments up to
// an accepted tail are found and put in order without trusting any miner's word. Reactor thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "objectstore/io/sync.h"
#include "objectstore/log/change.h"
#include "objectstore/manifest.h"
#include "objectstore/slice_transport.h"

namespace cumulus {

class Inventory {
 public:
  struct Segment {
    Manifest manifest;
    std::vector<MinerId>
        miners;  // slice i is (by its own word) on miners[i]; all zeros: nobody that answered has it
    std::vector<std::pair<std::uint16_t, MinerId>> copies;  // what others have of the same slices
    bool holds(std::uint16_t index, const MinerId& miner) const;
    change::Placed placed() const;
    std::size_t slices_seen() const;
  };

  // Lists every miner, page by page, at once. Never fails as a whole: `unanswered` names who did not answer,
  // or not to the end, and why.
  static Task<Inventory> list(Runtime& runtime, SliceTransport& transport, VolumeId volume,
                              Duration request_deadline);

  // The log's segments up to and including the tail, oldest first. When one is missing the chain ends there:
  // `missing` then says which sequence and what that means; what could be found *before* the gap is not part
  // of the answer.
  struct Chain {
    std::vector<const Segment*> segments;
    std::string missing;
  };
  Chain chain_to(const Tail& tail) const;
  // What can be read of the tail's history from the first segment on, for a person's decision to accept loss.
  // Where nobody lists a segment of it, the histories that end there, and of those that part the newer
  // writer's.
  Chain longest_prefix(const Tail& tail) const;

  const std::map<SegmentId, std::vector<std::unique_ptr<Segment>>>& segments() const { return segments_; }
  const std::vector<std::string>& unanswered() const { return unanswered_; }

 private:
  static Task<void> list_miner(Inventory& inventory, SliceTransport& transport, Runtime& runtime,
                               VolumeId volume, MinerEntry miner, Duration request_deadline);
  void add(const MinerId& miner, std::uint16_t index, Manifest manifest);
  struct History {
    std::vector<const Segment*> segments;  // in order
    Sequence below = 0;                    // the segment before them, 0: there is none
    Digest chain{};                        // its chain value
  };
  History history_of(const Tail& tail) const;
  static bool is_newer(const std::vector<const Segment*>& one, const std::vector<const Segment*>& other);

  // Two homes may have written the same identity; the chain tells which one counts.
  std::map<SegmentId, std::vector<std::unique_ptr<Segment>>> segments_;
  std::vector<std::string> unanswered_;
};

}  // namespace cumulus
