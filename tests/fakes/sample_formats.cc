#include "tests/fakes/sample_formats.h"

#include <random>

#include "objectstore/crypto/merkle.h"

namespace cumulus {

SigningKey sample_key(std::uint8_t which) {
  std::array<std::uint8_t, 32> seed{};
  seed.fill(which);
  return SigningKey(seed);
}

VolumeId sample_volume(std::uint8_t which) { return volume_id_of(sample_key(which).public_key()); }

Manifest sample_manifest() {
  Manifest manifest;
  manifest.header.volume = sample_volume();
  manifest.header.id = {SegmentKind::log, 1, 7};
  manifest.header.instance.bytes.fill(0x11);
  manifest.header.salt.fill(0x22);
  manifest.header.previous_chain.fill(0x33);
  manifest.segment_length = 50'000;
  manifest.k = 4;
  manifest.m = 2;
  manifest.slice_length = 16'384;
  manifest.first_group = 20;
  manifest.last_group = 24;
  manifest.last_group_tag.fill(0x44);
  for (std::uint8_t i = 0; i < 6; ++i) {
    Digest root{};
    root.fill(static_cast<std::uint8_t>(0x50 + i));
    manifest.roots.push_back(root);
  }
  sign_manifest(manifest, sample_key());
  return manifest;
}

Superblock sample_superblock() {
  Superblock record;
  record.volume = sample_volume();
  record.ballot.epoch = 1;
  record.ballot.open_number = 2;
  record.ballot.instance.bytes.fill(0x11);
  record.version = 9;
  record.previous.fill(0x66);
  record.k = 4;
  record.m = 2;
  for (std::uint8_t i = 0; i < 6; ++i) {
    MinerId holder;
    holder.bytes.fill(static_cast<std::uint8_t>(0xA0 + i));
    record.holders.push_back(holder);
  }
  record.tail = {{SegmentKind::log, 1, 7}, {}, 24};
  record.tail.chain.fill(0x77);
  record.checkpoints[0] = {20, {SegmentKind::manifest, 1, 2}, {}};
  record.checkpoints[0].manifest_digest.fill(0x88);
  record.written_at = 1'700'000'000'000'000'000;
  record.sealed_miners = {1, 2, 3};
  record.sealed_writer = {4, 5};
  sign_superblock(record, sample_key());
  return record;
}

BallotClaim sample_claim(std::uint8_t which) {
  BallotClaim claim;
  claim.volume = sample_volume(which);
  claim.ballot.epoch = 1;
  claim.ballot.open_number = 2;
  claim.ballot.instance.bytes.fill(0x11);
  sign_claim(claim, sample_key(which));
  return claim;
}

SampleSegment sample_segment(const SegmentId& id, std::uint8_t owner, std::uint64_t fill,
                             std::uint64_t slice_length) {
  SampleSegment segment;
  Manifest& manifest = segment.manifest;
  manifest = sample_manifest();
  manifest.header.volume = sample_volume(owner);
  manifest.header.id = id;
  manifest.k = 2;
  manifest.m = 1;
  manifest.slice_length = slice_length;
  manifest.segment_length = slice_length * 2 - slice_length / 3;
  manifest.roots.clear();
  std::mt19937_64 random(fill * 1000 + id.sequence);
  for (std::uint16_t i = 0; i < 3; ++i) {
    Bytes bytes(manifest.stored_length(i));
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
    manifest.roots.push_back(merkle_root(bytes));
    segment.slices.push_back(std::make_shared<const Bytes>(std::move(bytes)));
  }
  sign_manifest(manifest, sample_key(owner));
  segment.encoded = std::make_shared<const Bytes>(manifest.encode());
  return segment;
}

}  // namespace cumulus
