// SliceIndex: the port to the table of all slices: where each lies, its manifest, what volumes and bundles
// hold.
//
// The index is the bundles replayed: it may always be thrown away and rebuilt. apply() is atomic and carries
// the position in the bundles that it makes the index reach; after a crash the index stands at some applied
// position, never between two, and never past what the bundles hold, because the store applies only what it
// has synced. RocksSliceIndex is the real one; tests bring an ordered map that forgets its newest batches.
//
// Thread rule: any thread for find, list and pages; apply() and clear() by one thread at a time. All may
// block on the disk, but find_cached().
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"
#include "tools/miner/store/slice_key.h"

namespace cumulus {

struct VolumeUsage {
  std::uint64_t bytes = 0;  // charges of its slices
  std::uint64_t slices = 0;
  bool operator==(const VolumeUsage&) const = default;
};

struct BundleUsage {
  std::uint64_t end = 0;         // where its next batch would begin
  std::uint64_t live_bytes = 0;  // charges of the slices that live in it
  std::uint64_t held_bytes = 0;  // disk space that it takes: all batches, less what was punched out
  std::uint64_t live_slices = 0;
  bool operator==(const BundleUsage&) const = default;
};

struct IndexChange {
  SliceKey key;
  std::optional<SliceLocation> location;  // absent: the slice is gone
  std::optional<Bytes> manifest;          // absent: unchanged (or gone with the slice)
};

struct IndexBatch {
  std::vector<IndexChange> changes;
  // New absolute values; a bundle without a value is gone.
  std::vector<std::pair<VolumeId, VolumeUsage>> volumes;
  std::vector<std::pair<std::uint32_t, std::optional<BundleUsage>>> bundles;
  BundlePosition position;  // everything before it is in the index
};

struct IndexTotals {
  BundlePosition position;
  std::vector<std::pair<VolumeId, VolumeUsage>> volumes;
  std::vector<std::pair<std::uint32_t, BundleUsage>> bundles;
};

struct IndexedSlice {
  SliceKey key;
  SliceLocation location;
};
struct IndexedManifest {
  SliceKey key;
  Bytes manifest;
};

class SliceIndex {
 public:
  virtual ~SliceIndex() = default;

  virtual Result<IndexTotals> totals() = 0;
  virtual Result<std::optional<SliceLocation>> find(const SliceKey& key) = 0;
  // Answers from memory alone: an outer nothing means "ask find() on a worker".
  virtual std::optional<std::optional<SliceLocation>> find_cached(const SliceKey& key) = 0;
  virtual Result<std::optional<Bytes>> manifest(const SliceKey& key) = 0;
  // A volume's slices after `after` (from the first when absent), in key order, until `bytes_max` of
  // manifests or `count_max` are reached; at least one when there is one.
  virtual Result<std::vector<IndexedManifest>> list(const VolumeId& volume, std::optional<SliceId> after,
                                                    std::size_t count_max, std::size_t bytes_max) = 0;
  // All slices in key order, strictly after `after`.
  virtual Result<std::vector<IndexedSlice>> page(std::optional<SliceKey> after, std::size_t count_max) = 0;

  virtual Status apply(const IndexBatch& batch) = 0;
  virtual Status flush() = 0;  // what was applied is durable
  virtual Status clear() = 0;  // forget everything: position 0
};

}  // namespace cumulus
