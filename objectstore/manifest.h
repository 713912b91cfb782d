// Segment header and manifest: what every slice says about its segment. A door: the miner verifies the same
// bytes.
//
// The header opens a segment and is the associated data of every group header in it. The manifest is its
// signed description; it travels with every slice, so that a segment is discovered from any one slice, a lost
// slice can be rebuilt and checked, and none of that needs a key. FORMAT.md has the layout and a worked
// example. Pure; any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"

namespace cumulus {

struct SegmentHeader {
  static constexpr std::size_t kEncodedSize = 160;

  std::uint8_t suite = 1;       // 1 = AES-256-GCM
  std::uint8_t align_log2 = 9;  // groups begin at multiples of this; the first one at 1 << align_log2
  std::uint32_t key_id = 1;     // which read key, when keys are ever rotated
  std::uint64_t features = 0;   // incompatible-feature bits
  VolumeId volume;
  SegmentId id;         // kind, epoch, sequence
  InstanceId instance;  // of the opening that wrote it: tells apart two homes that share an epoch
  std::array<std::uint8_t, 16> salt{};  // random; the segment's key is derived from it
  Digest previous_chain{};              // the chain value of sequence - 1 (zeros for the first)

  bool operator==(const SegmentHeader&) const = default;
  void encode(Bytes& into) const;  // appends exactly kEncodedSize bytes
  // unsupported for an unknown version, suite or feature; corrupt for anything else that does not parse.
  static Result<SegmentHeader> decode(ByteView bytes);
};

// chain = SHA-256("cumulus chain v1" ‖ header ‖ last group header's tag ‖ segment length): ready at sealing,
// and it binds every earlier byte through previous_chain and the tags.
Digest chain_value(const SegmentHeader& header, ByteView last_group_tag, std::uint64_t segment_length);

struct Manifest {
  static constexpr std::uint8_t kHashSha256 = 1;
  static constexpr std::uint8_t kLeafLog2 = 12;
  static constexpr std::size_t kEncodedSizeMax = 4096;
  static constexpr unsigned kSlicesMax = 64;                                 // k + m
  static constexpr std::uint64_t kSliceLengthMax = std::uint64_t{32} << 20;  // what one PUT carries

  SegmentHeader header;
  std::uint64_t segment_length = 0;  // sealed bytes, header included
  std::uint8_t k = 0;
  std::uint8_t m = 0;
  std::uint64_t slice_length =
      0;                        // SliceGeometry's: data slices may be stored shorter, parity has exactly this
  LogPosition first_group = 0;  // groups in it; both 0 for kinds without groups
  LogPosition last_group = 0;
  std::array<std::uint8_t, 16> last_group_tag{};
  std::vector<Digest> roots;                       // k + m Merkle roots, of each slice's stored bytes
  std::array<std::uint8_t, 32> sign_public_key{};  // header.volume is its hash
  std::array<std::uint8_t, 64> signature{};        // Ed25519 over the label and everything before

  const SegmentId& id() const { return header.id; }
  Digest chain() const;
  // Bytes that slice `index` stores: what its root covers.
  std::uint64_t stored_length(std::uint16_t index) const;

  bool operator==(const Manifest&) const = default;
  Bytes encode() const;
  // Parses and checks structure, limits, the volume id and the signature: what decode() returns may be
  // trusted to come from the volume's owner. corrupt / unsupported otherwise.
  static Result<Manifest> decode(ByteView bytes);
};

class SigningKey;
// Fills sign_public_key and signature.
void sign_manifest(Manifest& manifest, const SigningKey& key);

}  // namespace cumulus
