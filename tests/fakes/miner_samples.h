// Signed slices to put on a miner: a sample volume that makes well-formed manifests over pseudo-random
// content. Header-only, for tests of the miner and of the transport. Any thread.
#pragma once

#include <memory>

#include "objectstore/crypto/merkle.h"
#include "objectstore/crypto/sign.h"
#include "objectstore/manifest.h"

namespace cumulus {

struct SampleSlice {
  SliceId id;
  std::shared_ptr<const Bytes> manifest;
  Bytes data;
  Digest root{};
};

// Deterministic bytes, cheap to make.
inline Bytes sample_bytes(std::size_t length, std::uint64_t seed) {
  Bytes bytes((length + 7) / 8 * 8);
  std::uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::memcpy(bytes.data() + i, &state, 8);
  }
  bytes.resize(length);
  return bytes;
}

class SampleVolume {
 public:
  explicit SampleVolume(std::uint8_t seed) : key_(seed_of(seed)), id_(volume_id_of(key_.public_key())) {}

  const VolumeId& id() const { return id_; }
  const SigningKey& key() const { return key_; }

  // Slice `index` (0 or 1) of a 1+1 segment whose slices have `length` (>= 160) bytes; `content` picks the
  // bytes.
  SampleSlice slice(Sequence sequence, std::uint16_t index, std::size_t length, std::uint64_t content = 0,
                    SegmentKind kind = SegmentKind::log, Epoch epoch = 1) const {
    SampleSlice slice;
    slice.id = {{kind, epoch, sequence}, index};
    Manifest manifest;
    manifest.header.volume = id_;
    manifest.header.id = slice.id.segment;
    manifest.segment_length = length;
    manifest.slice_length = length;
    manifest.k = 1;
    manifest.m = 1;
    manifest.first_group = sequence;
    manifest.last_group = sequence;
    slice.data = sample_bytes(length, content + sequence * 1000 + index);
    slice.root = merkle_root(slice.data);
    manifest.roots = {Digest{}, Digest{}};
    manifest.roots[index] = slice.root;
    sign_manifest(manifest, key_);
    slice.manifest = std::make_shared<const Bytes>(manifest.encode());
    return slice;
  }

 private:
  static std::array<std::uint8_t, 32> seed_of(std::uint8_t seed) {
    std::array<std::uint8_t, 32> bytes{};
    bytes.fill(seed);
    return bytes;
  }
  SigningKey key_;
  VolumeId id_;
};

}  // namespace cumulus
