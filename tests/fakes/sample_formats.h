// Well-formed signed structures for tests and fuzz seeds: small, fixed, the same in every run. Pure; any
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "objectstore/crypto/sign.h"
#include "objectstore/manifest.h"
#include "objectstore/superblock.h"

namespace cumulus {

// The owner's signing key number `which`.
SigningKey sample_key(std::uint8_t which = 1);
VolumeId sample_volume(std::uint8_t which = 1);
// A 4+2 log segment of 50,000 bytes in slices of 16 KiB.
Manifest sample_manifest();
Superblock sample_superblock();
BallotClaim sample_claim(std::uint8_t which = 1);

// A segment whose slices are any bytes (no erasure code), with a true manifest over them.
struct SampleSegment {
  Manifest manifest;
  std::shared_ptr<const Bytes> encoded;
  std::vector<std::shared_ptr<const Bytes>> slices;  // k + m
};
// `fill` tells apart segments of one identity. Slices of `slice_length` bytes; the last data slice is
// shorter.
SampleSegment sample_segment(const SegmentId& id, std::uint8_t owner = 1, std::uint64_t fill = 1,
                             std::uint64_t slice_length = 16'384);

}  // namespace cumulus
