// SliceUpload: puts slices of one segment on miners until each has been acknowledged. A failing miner's slice
// goes to another at once; with fewer miners than slices they double up. Nothing is copied: slices are views
// into memory that the request shares. Never gives up by itself: when nobody can take a slice it waits.
// Reactor thread.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "objectstore/io/sync.h"
#include "objectstore/slice_transport.h"
#include "objectstore/store/eligible_miners.h"

namespace cumulus {

struct SliceSource {
  std::uint16_t index = 0;
  ByteView data;
  std::shared_ptr<const void> owner;
  MinerId preferred;  // tried first; all-zero: wherever placement says
};

struct UploadPlan {
  VolumeId volume;
  SegmentId segment;
  std::uint8_t m = 0;
  std::shared_ptr<const Bytes> manifest;  // encoded
  std::vector<SliceSource> slices;        // to be put
  std::vector<MinerId> miners;            // k + m: where the others are already; all-zero: nowhere
  Duration request_deadline = std::chrono::seconds(30);
  // When set: give up (unavailable) rather than wait for miners to come back.
  bool once = false;
  std::vector<MinerId> avoid;  // with `once`: take no slice of these now
  // When set: called when a miner says that the volume was destroyed.
  std::function<void()> on_destroyed;
  // When set: called when nobody can take the rest now, with the reason, before it waits; and when miners
  // have not answered for some seconds.
  std::function<void(const std::string& reason)> on_waiting;
};

// The miners of all k + m slices, in order. closed: `stopping` became true (its owner notifies `wake`). That
// a miner calls the volume destroyed is one miner's word: it is passed over like any other failure, and told.
Task<Result<std::vector<MinerId>>> upload_slices(Runtime& runtime, SliceTransport& transport,
                                                 EligibleMiners& eligible, UploadPlan plan,
                                                 const bool& stopping, Signal& wake);

// More than one slice on some miner?
bool is_crowded(const std::vector<MinerId>& miners);

}  // namespace cumulus
