// LogReplayer: brings an index up to date from stored segments, in order: fetches them a few ahead, opens
// every group and every cell, checks that each segment is the one that the chain names, and replays its
// changes. Used to recover a volume from the miners and to rebuild a lost index. Reactor thread.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "objectstore/cache/slot_store.h"
#include "objectstore/index/index.h"
#include "objectstore/object_store.h"
#include "objectstore/store/inventory.h"
#include "objectstore/store/slice_fetcher.h"

namespace cumulus {

class LogReplayer {
 public:
  LogReplayer(Runtime& runtime, const KeyTree& keys, SliceFetcher& fetcher, SlotStore& slots, Index& index);

  // Replays every group after Index::applied(). `fetched` segments stay in the cache as far as it has room.
  // Errors: corrupt (names the segment), unavailable, closed (progress said stop). Where it stopped is
  // position().
  Task<Status> replay(std::vector<const Inventory::Segment*> segments, std::optional<Duration> patience,
                      Progress progress);

  // The last segment replayed whole; nullptr when none was.
  const Inventory::Segment* last() const { return last_; }

 private:
  struct Ahead {
    explicit Ahead(Runtime& runtime) : done(runtime) {}
    Signal done;
    bool ended = false;
    Result<FetchedRange> fetched = FetchedRange{};
  };
  Task<Status> replay_one(const Inventory::Segment& segment, std::shared_ptr<const Buffer> bytes);
  std::shared_ptr<Ahead> start_fetch(TaskGroup& tasks, const Inventory::Segment& segment, FetchTrust trust,
                                     std::optional<Duration> patience);

  Runtime& runtime_;
  const KeyTree& keys_;
  SliceFetcher& fetcher_;
  SlotStore& slots_;
  Index& index_;
  const Inventory::Segment* last_ = nullptr;
};

}  // namespace cumulus
