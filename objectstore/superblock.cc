#include "objectstore/superblock.h"

#include <algorithm>
#include <string_view>

#include "objectstore/ballot_codec.h"
#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/digest.h"
#include "objectstore/crypto/sign.h"

namespace cumulus {
namespace {

constexpr std::uint32_t kSuperblockMagic = 0x424D5543;  // "CUMB"
constexpr std::uint32_t kClaimMagic = 0x434D5543;       // "CUMC"
constexpr std::uint32_t kStateMagic = 0x484D5543;       // "CUMH"
constexpr std::uint16_t kVersion = 1;
constexpr std::uint8_t kClosedCleanly = 1;
constexpr std::uint8_t kDestroyed = 2;
constexpr std::uint8_t kSegmentLog2Min = 12;
constexpr std::uint8_t kSegmentLog2Max = 30;
constexpr unsigned kSlicesMax = 64;  // k + m, as a manifest bounds it
constexpr std::string_view kSuperblockLabel = "cumulus superblock v1";
constexpr std::string_view kClaimLabel = "cumulus ballot v1";
// What is left for the two sealed parts of a record once 2 x 64 holders and the fixed fields are in.
constexpr std::size_t kSealedMax = 48 * 1024;

std::unexpected<Error> corrupt(std::string message) { return fail(ErrorKind::corrupt, std::move(message)); }

// Magic, version and a reserved u16 that open every structure here.
Status open_structure(Decoder& in, std::uint32_t magic, std::string_view what) {
  if (in.u32() != magic) return corrupt(format("{}: no magic number", what));
  const std::uint16_t version = in.u16();
  if (in.ok() && version != kVersion)
    return fail(ErrorKind::unsupported,
                format("{}: format version {} is not known; a newer Cumulus wrote it", what, version));
  if (in.u16() != 0 || !in.ok()) return corrupt(format("{}: short, or a reserved field is set", what));
  return {};
}

void start_structure(Encoder& out, std::uint32_t magic) {
  out.u32(magic);
  out.u16(kVersion);
  out.u16(0);
}

void put_segment(Encoder& out, const SegmentId& id) {
  out.u8(static_cast<std::uint8_t>(id.kind));
  out.u64(id.epoch);
  out.u64(id.sequence);
}

SegmentId take_segment(Decoder& in) {
  SegmentId id;
  const std::uint8_t kind = in.u8();
  if (kind < static_cast<std::uint8_t>(SegmentKind::log) ||
      kind > static_cast<std::uint8_t>(SegmentKind::manifest))
    in.mark_bad();
  id.kind = static_cast<SegmentKind>(kind);
  id.epoch = in.u64();
  id.sequence = in.u64();
  return id;
}

void put_holders(Encoder& out, const std::vector<MinerId>& holders) {
  out.u8(static_cast<std::uint8_t>(holders.size()));
  for (const MinerId& holder : holders) out.bytes(holder.view());
}

// No holder twice: one miner's word must not count as two.
std::vector<MinerId> take_holders(Decoder& in) {
  const std::uint8_t count = in.u8();
  if (count > Superblock::kHoldersMax) in.mark_bad();
  std::vector<MinerId> holders;
  for (unsigned i = 0; i < count && in.ok(); ++i) {
    const MinerId holder{in.array<32>()};
    if (std::ranges::find(holders, holder) != holders.end()) in.mark_bad();
    holders.push_back(holder);
  }
  return holders;
}

Bytes signed_part(const Superblock& record) {
  Bytes bytes;
  Encoder out(bytes);
  start_structure(out, kSuperblockMagic);
  out.u64(record.features);
  out.bytes(record.volume.view());
  out.bytes(record.sign_public_key);
  put_ballot(out, record.ballot);
  out.u64(record.version);
  out.bytes(record.previous);
  out.u8(record.k);
  out.u8(record.m);
  out.u8(record.segment_log2);
  out.u8(static_cast<std::uint8_t>((record.closed_cleanly ? kClosedCleanly : 0) |
                                   (record.destroyed ? kDestroyed : 0)));
  out.u64(record.holder_generation);
  put_holders(out, record.holders);
  put_holders(out, record.next_holders);
  put_segment(out, record.tail.through);
  out.bytes(record.tail.chain);
  out.u64(record.tail.position);
  for (const CheckpointRef& checkpoint : record.checkpoints) {
    out.u64(checkpoint.position);
    put_segment(out, checkpoint.manifest_segment);
    out.bytes(checkpoint.manifest_digest);
  }
  out.u64(record.written_at);
  out.block(record.sealed_miners);
  out.block(record.sealed_writer);
  return bytes;
}

Bytes signed_part(const BallotClaim& claim) {
  Bytes bytes;
  Encoder out(bytes);
  start_structure(out, kClaimMagic);
  out.bytes(claim.volume.view());
  out.bytes(claim.sign_public_key);
  put_ballot(out, claim.ballot);
  return bytes;
}

Status check_shape(const Superblock& record) {
  if (record.k == 0 || unsigned{record.k} + record.m > kSlicesMax)
    return corrupt(format("superblock: a code of {}+{} is not possible", record.k, record.m));
  if (record.segment_log2 < kSegmentLog2Min || record.segment_log2 > kSegmentLog2Max)
    return corrupt(format("superblock: segments of 2^{} bytes are not possible", record.segment_log2));
  if (record.holders.empty() || record.version == 0 || record.ballot == Ballot{})
    return corrupt("superblock: it has no holders, version or ballot");
  if (record.features != 0)
    return fail(
        ErrorKind::unsupported,
        format("superblock: the volume uses features {:#x} that this version of Cumulus does not know",
               record.features));
  return {};
}

Status check_signature(std::string_view what, std::string_view label, const VolumeId& volume,
                       const std::array<std::uint8_t, 32>& key, ByteView message,
                       const std::array<std::uint8_t, 64>& signature) {
  if (volume_id_of(key) != volume) return corrupt(format("{}: its signing key is not the volume's", what));
  if (!verify_signature(key, label, message, signature))
    return corrupt(format("{}: the signature does not verify", what));
  return {};
}

bool other_volume(const HolderState& state, const VolumeId& volume) {
  return (state.promised && state.promised->volume != volume) ||
         (state.accepted && state.accepted->volume != volume);
}

}  // namespace

std::uint32_t QuorumShape::quorum_of(std::uint32_t holders, std::uint8_t m) {
  const std::uint32_t majority = holders / 2 + 1;
  return holders > m ? std::max(holders - m, majority) : majority;
}

QuorumShape QuorumShape::for_volume(std::uint32_t miners, std::uint8_t m) {
  CHECK(miners >= 1);
  const std::uint32_t wanted = std::max<std::uint32_t>(3, 3u * m + 1);
  const std::uint32_t most = std::min<std::uint32_t>(wanted, Superblock::kHoldersMax);
  QuorumShape shape;
  shape.holders = std::min(miners, most);
  shape.quorum = quorum_of(shape.holders, m);
  return shape;
}

Bytes Superblock::encode() const {
  CHECK(holders.size() <= kHoldersMax && next_holders.size() <= kHoldersMax);
  CHECK(sealed_miners.size() + sealed_writer.size() <= kSealedMax);
  Bytes bytes = signed_part(*this);
  Encoder(bytes).bytes(signature);
  return bytes;
}

namespace {

// Whatever its version, a record has these places for its volume and key, and ends with the signature.
bool signed_at_its_end(ByteView bytes) {
  constexpr std::size_t kVolumeAt = 16;
  constexpr std::size_t kSignatureSize = 64;
  Decoder in(bytes);
  in.bytes(kVolumeAt);
  VolumeId volume;
  volume.bytes = in.array<32>();
  const auto key = in.array<32>();
  if (!in.ok() || in.remaining() < kSignatureSize) return false;
  std::array<std::uint8_t, kSignatureSize> signature;
  copy_bytes(bytes.last(kSignatureSize), signature.data());
  const ByteView message = bytes.first(bytes.size() - kSignatureSize);
  return check_signature("superblock", kSuperblockLabel, volume, key, message, signature).has_value();
}

Result<Superblock> parse_superblock(ByteView bytes) {
  Decoder in(bytes);
  TRY_OK(open_structure(in, kSuperblockMagic, "superblock"));
  Superblock record;
  record.features = in.u64();
  record.volume.bytes = in.array<32>();
  record.sign_public_key = in.array<32>();
  record.ballot = take_ballot(in);
  record.version = in.u64();
  record.previous = in.array<32>();
  record.k = in.u8();
  record.m = in.u8();
  record.segment_log2 = in.u8();
  const std::uint8_t flags = in.u8();
  record.closed_cleanly = (flags & kClosedCleanly) != 0;
  record.destroyed = (flags & kDestroyed) != 0;
  record.holder_generation = in.u64();
  record.holders = take_holders(in);
  record.next_holders = take_holders(in);
  record.tail.through = take_segment(in);
  record.tail.chain = in.array<32>();
  record.tail.position = in.u64();
  for (CheckpointRef& checkpoint : record.checkpoints) {
    checkpoint.position = in.u64();
    checkpoint.manifest_segment = take_segment(in);
    checkpoint.manifest_digest = in.array<32>();
  }
  record.written_at = in.u64();
  const ByteView miners = in.block(kSealedMax);
  const ByteView writer = in.block(kSealedMax - miners.size());
  const std::size_t signed_size = bytes.size() - in.remaining();
  record.signature = in.array<64>();
  if (!in.done() || (flags & ~(kClosedCleanly | kDestroyed)) != 0)
    return corrupt("superblock: short, with bytes after its end, or with an impossible value");
  record.sealed_miners.assign(miners.begin(), miners.end());
  record.sealed_writer.assign(writer.begin(), writer.end());
  TRY_OK(check_signature("superblock", kSuperblockLabel, record.volume, record.sign_public_key,
                         bytes.first(signed_size), record.signature));
  TRY_OK(check_shape(record));
  return record;
}

}  // namespace

Result<Superblock> Superblock::decode(ByteView bytes) {
  if (bytes.size() > kEncodedSizeMax) return corrupt("superblock: too long");
  auto record = parse_superblock(bytes);
  if (!record && record.error().kind() == ErrorKind::unsupported && !signed_at_its_end(bytes))
    return corrupt("superblock: its version or features are not known, and nobody signed them");
  return record;
}

Digest Superblock::digest() const { return sha256(encode()); }

bool Superblock::newer_than(const Superblock& other) const {
  return ballot != other.ballot ? ballot > other.ballot : version > other.version;
}

void sign_superblock(Superblock& record, const SigningKey& key) {
  record.sign_public_key = key.public_key();
  record.signature = key.sign(kSuperblockLabel, signed_part(record));
}

Bytes BallotClaim::encode() const {
  Bytes bytes = signed_part(*this);
  Encoder(bytes).bytes(signature);
  return bytes;
}

Result<BallotClaim> BallotClaim::decode(ByteView bytes) {
  Decoder in(bytes);
  TRY_OK(open_structure(in, kClaimMagic, "ballot"));
  BallotClaim claim;
  claim.volume.bytes = in.array<32>();
  claim.sign_public_key = in.array<32>();
  claim.ballot = take_ballot(in);
  const std::size_t signed_size = bytes.size() - in.remaining();
  claim.signature = in.array<64>();
  if (!in.done()) return corrupt("ballot: short, or with bytes after its end");
  TRY_OK(check_signature("ballot", kClaimLabel, claim.volume, claim.sign_public_key, bytes.first(signed_size),
                         claim.signature));
  return claim;
}

void sign_claim(BallotClaim& claim, const SigningKey& key) {
  claim.sign_public_key = key.public_key();
  claim.signature = key.sign(kClaimLabel, signed_part(claim));
}

Ballot HolderState::highest_ballot() const {
  Ballot highest;
  if (promised) highest = promised->ballot;
  if (accepted) highest = std::max(highest, accepted->ballot);
  return highest;
}

Bytes HolderState::encode() const {
  Bytes bytes;
  Encoder out(bytes);
  start_structure(out, kStateMagic);
  out.block(promised ? promised->encode() : Bytes{});
  out.block(accepted ? accepted->encode() : Bytes{});
  return bytes;
}

Result<HolderState> HolderState::decode(ByteView bytes) {
  Decoder in(bytes);
  TRY_OK(open_structure(in, kStateMagic, "holder state"));
  const ByteView promised = in.block(BallotClaim::kEncodedSizeMax);
  const ByteView accepted = in.block(Superblock::kEncodedSizeMax);
  if (!in.done()) return corrupt("holder state: short, or with bytes after its end");
  HolderState state;
  if (!promised.empty()) {
    TRY(state.promised, BallotClaim::decode(promised));
  }
  if (!accepted.empty()) {
    TRY(state.accepted, Superblock::decode(accepted));
  }
  if (state.promised && state.accepted && state.promised->volume != state.accepted->volume)
    return corrupt("holder state: its parts are of two volumes");
  return state;
}

HolderAnswer hold_promise(const HolderState& state, const BallotClaim& claim) {
  HolderAnswer answer{false, state};
  if (other_volume(state, claim.volume)) return answer;
  if (state.accepted && state.accepted->destroyed) return answer;
  if (claim.ballot < state.highest_ballot()) return answer;
  answer.accepted = true;
  answer.state.promised = claim;
  return answer;
}

HolderAnswer hold_accept(const HolderState& state, const Superblock& record) {
  HolderAnswer answer{false, state};
  if (other_volume(state, record.volume)) return answer;
  // Again, after a lost answer: it was accepted before whatever was promised since, and every promise since
  // was answered with it, so saying so again misleads nobody.
  if (state.accepted && *state.accepted == record) {
    answer.accepted = true;
    return answer;
  }
  if (state.accepted && state.accepted->destroyed) return answer;
  if (record.ballot < state.highest_ballot()) return answer;
  if (state.accepted && record.version <= state.accepted->version) return answer;
  answer.accepted = true;
  answer.state.accepted = record;
  return answer;
}

}  // namespace cumulus
