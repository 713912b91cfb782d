// SliceKey: a slice's identity on a miner (volume and slice), and its sortable form. Where: the place of a
// stored slice in the bundles. Pure; any thread.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

#include "objectstore/base/bytes.h"
#include "objectstore/base/ids.h"

namespace cumulus {

struct SliceKey {
  VolumeId volume;
  SliceId slice;
  auto operator<=>(const SliceKey&) const = default;

  // 51 bytes, big-endian, so that byte order is the order of (volume, kind, epoch, sequence, index).
  static constexpr std::size_t kSortableSize = 51;
  std::string sortable() const;
  // False when `text` is not a sortable key.
  static bool parse_sortable(ByteView text, SliceKey& into);
  // "volume 1a2b3c4d log segment 1/42 slice 3": for messages.
  std::string describe() const;
};

// A place in the log of bundles; ordered as written.
struct BundlePosition {
  std::uint32_t bundle = 0;
  std::uint64_t offset = 0;
  auto operator<=>(const BundlePosition&) const = default;
};

// Where a stored slice lies, and what it must hash to.
struct SliceLocation {
  BundlePosition data;
  std::uint64_t length = 0;
  std::uint32_t manifest_length = 0;
  bool rotten = false;  // scrub or a proof found that its bytes do not match its root
  Digest root{};
  bool operator==(const SliceLocation&) const = default;

  // Bytes that a slice takes in a bundle: what quotas and capacity count.
  std::uint64_t charge() const;
};

}  // namespace cumulus

template <>
struct std::hash<cumulus::SliceKey> {
  std::size_t operator()(const cumulus::SliceKey& key) const noexcept {
    return std::hash<cumulus::VolumeId>()(key.volume) ^
           std::hash<cumulus::SegmentId>()(key.slice.segment) * 31 ^ key.slice.index;
  }
};
