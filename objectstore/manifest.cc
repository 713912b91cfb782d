#include "objectstore/manifest.h"

#include <algorithm>
#include <array>

#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/digest.h"
#include "objectstore/crypto/sign.h"

namespace cumulus {
namespace {

constexpr std::uint32_t kHeaderMagic = 0x534D5543;    // "CUMS"
constexpr std::uint32_t kManifestMagic = 0x4D4D5543;  // "CUMM"
constexpr std::uint16_t kVersion = 1;
constexpr std::uint8_t kSuiteAes256Gcm = 1;
constexpr std::uint8_t kAlignLog2Max = 16;
constexpr std::size_t kHeaderReserved = 16;
constexpr std::size_t kHeaderCheck = 8;
constexpr std::string_view kManifestLabel = "cumulus manifest v1";
constexpr std::string_view kChainLabel = "cumulus chain v1";

std::unexpected<Error> corrupt(std::string message) { return fail(ErrorKind::corrupt, std::move(message)); }
std::unexpected<Error> unsupported(std::string message) {
  return fail(ErrorKind::unsupported, std::move(message) + "; a newer Cumulus wrote it");
}

bool all_zero(ByteView bytes) {
  for (const std::uint8_t byte : bytes)
    if (byte != 0) return false;
  return true;
}

// Everything that the signature covers.
Bytes signed_part(const Manifest& manifest) {
  Bytes bytes;
  bytes.reserve(Manifest::kEncodedSizeMax);
  Encoder out(bytes);
  out.u32(kManifestMagic);
  out.u16(kVersion);
  out.u8(Manifest::kHashSha256);
  out.u8(Manifest::kLeafLog2);
  manifest.header.encode(bytes);
  out.u64(manifest.segment_length);
  out.u8(manifest.k);
  out.u8(manifest.m);
  out.u16(0);
  out.u64(manifest.slice_length);
  out.u64(manifest.first_group);
  out.u64(manifest.last_group);
  out.bytes(manifest.last_group_tag);
  for (const Digest& root : manifest.roots) out.bytes(root);
  out.bytes(manifest.sign_public_key);
  return bytes;
}

Status check_geometry(const Manifest& manifest) {
  const unsigned slices = manifest.k + manifest.m;
  if (manifest.k == 0 || slices > Manifest::kSlicesMax)
    return corrupt(format("manifest: a code of {}+{} is not possible", manifest.k, manifest.m));
  if (manifest.segment_length < SegmentHeader::kEncodedSize ||
      manifest.slice_length > Manifest::kSliceLengthMax ||
      manifest.slice_length * manifest.k < manifest.segment_length)
    return corrupt(format("manifest: {} bytes do not fit in {} slices of {}", manifest.segment_length,
                          manifest.k, manifest.slice_length));
  if (manifest.first_group > manifest.last_group || (manifest.first_group == 0) != (manifest.last_group == 0))
    return corrupt("manifest: its group numbers are not a range");
  return {};
}

}  // namespace

namespace {

std::array<std::uint8_t, kHeaderCheck> header_check(ByteView before) {
  std::array<std::uint8_t, kHeaderCheck> check;
  copy_bytes(ByteView(sha256(before)).first(kHeaderCheck), check.data());
  return check;
}

}  // namespace

void SegmentHeader::encode(Bytes& into) const {
  const std::size_t before = into.size();
  Encoder out(into);
  out.u32(kHeaderMagic);
  out.u16(kVersion);
  out.u8(static_cast<std::uint8_t>(id.kind));
  out.u8(suite);
  out.u8(align_log2);
  out.zeros(3);
  out.u32(key_id);
  out.u64(features);
  out.bytes(volume.view());
  out.u64(id.epoch);
  out.u64(id.sequence);
  out.bytes(instance.view());
  out.bytes(salt);
  out.bytes(previous_chain);
  out.zeros(kHeaderReserved);
  out.bytes(header_check(ByteView(into).subspan(before)));
  CHECK(into.size() - before == kEncodedSize);
}

Result<SegmentHeader> SegmentHeader::decode(ByteView bytes) {
  if (bytes.size() != kEncodedSize) return corrupt("segment header: wrong length");
  Decoder in(bytes);
  if (in.u32() != kHeaderMagic) return corrupt("segment header: no magic number");
  // Before the version is judged, which every version has it for: a flipped bit is damage, not the future.
  constexpr std::size_t kChecked = kEncodedSize - kHeaderCheck;
  if (!equal(header_check(bytes.first(kChecked)), bytes.last(kHeaderCheck)))
    return corrupt("segment header: damaged, its checksum does not match");
  if (const auto version = in.u16(); version != kVersion)
    return unsupported(format("segment header: format version {} is not known", version));
  SegmentHeader header;
  const std::uint8_t kind = in.u8();
  header.suite = in.u8();
  header.align_log2 = in.u8();
  const bool padding_clear = all_zero(in.bytes(3));
  header.key_id = in.u32();
  header.features = in.u64();
  header.volume.bytes = in.array<32>();
  header.id.epoch = in.u64();
  header.id.sequence = in.u64();
  header.instance.bytes = in.array<16>();
  header.salt = in.array<16>();
  header.previous_chain = in.array<32>();
  const bool rest_clear = all_zero(in.bytes(kHeaderReserved));
  in.bytes(kHeaderCheck);
  CHECK(in.done());
  if (header.features != 0)
    return unsupported(format("segment header: feature bits {:#x} are not known", header.features));
  if (header.suite != kSuiteAes256Gcm)
    return unsupported(format("segment header: cipher suite {} is not known", header.suite));
  if (kind < static_cast<std::uint8_t>(SegmentKind::log) ||
      kind > static_cast<std::uint8_t>(SegmentKind::manifest))
    return unsupported(format("segment header: segment kind {} is not known", kind));
  header.id.kind = static_cast<SegmentKind>(kind);
  if (!padding_clear || !rest_clear || header.id.sequence == 0 || header.align_log2 > kAlignLog2Max ||
      (std::size_t{1} << header.align_log2) < kEncodedSize)
    return corrupt("segment header: a field has an impossible value");
  return header;
}

Digest chain_value(const SegmentHeader& header, ByteView last_group_tag, std::uint64_t segment_length) {
  Bytes bytes;
  Encoder out(bytes);
  out.bytes(view_of(kChainLabel));
  header.encode(bytes);
  out.bytes(last_group_tag);
  out.u64(segment_length);
  return sha256(bytes);
}

Digest Manifest::chain() const { return chain_value(header, last_group_tag, segment_length); }

std::uint64_t Manifest::stored_length(std::uint16_t index) const {
  CHECK(index < k + m);
  if (index >= k) return slice_length;
  const std::uint64_t begin = std::min(index * slice_length, segment_length);
  return std::min(slice_length, segment_length - begin);
}

Bytes Manifest::encode() const {
  CHECK(roots.size() == std::size_t{k} + m);
  Bytes bytes = signed_part(*this);
  Encoder(bytes).bytes(signature);
  CHECK(bytes.size() <= kEncodedSizeMax);
  return bytes;
}

namespace {

// Whatever its version, a manifest ends with the owner's key and signature. Only what somebody signed can be
// of the future: a version that is not known and not signed is a flipped bit.
bool signed_at_its_end(ByteView bytes) {
  constexpr std::size_t kKeySize = 32;
  constexpr std::size_t kSignatureSize = 64;
  if (bytes.size() < kKeySize + kSignatureSize) return false;
  const ByteView message = bytes.first(bytes.size() - kSignatureSize);
  std::array<std::uint8_t, kKeySize> key;
  std::array<std::uint8_t, kSignatureSize> signature;
  copy_bytes(message.last(kKeySize), key.data());
  copy_bytes(bytes.last(kSignatureSize), signature.data());
  return verify_signature(key, kManifestLabel, message, signature);
}

Result<Manifest> parse_manifest(ByteView bytes) {
  Decoder in(bytes);
  if (in.u32() != kManifestMagic) return corrupt("manifest: no magic number");
  if (const auto version = in.u16(); version != kVersion)
    return unsupported(format("manifest: format version {} is not known", version));
  if (const auto hash = in.u8(); hash != Manifest::kHashSha256)
    return unsupported(format("manifest: hash {} is not known", hash));
  if (const auto leaf = in.u8(); leaf != Manifest::kLeafLog2)
    return unsupported(format("manifest: leaves of 2^{} bytes are not known", leaf));
  Manifest manifest;
  TRY(manifest.header, SegmentHeader::decode(in.bytes(SegmentHeader::kEncodedSize)));
  manifest.segment_length = in.u64();
  manifest.k = in.u8();
  manifest.m = in.u8();
  const std::uint16_t reserved = in.u16();
  manifest.slice_length = in.u64();
  manifest.first_group = in.u64();
  manifest.last_group = in.u64();
  manifest.last_group_tag = in.array<16>();
  if (!in.ok() || reserved != 0) return corrupt("manifest: short, or a reserved field is set");
  TRY_OK(check_geometry(manifest));
  for (unsigned i = 0; i < unsigned{manifest.k} + manifest.m; ++i) manifest.roots.push_back(in.array<32>());
  manifest.sign_public_key = in.array<32>();
  const std::size_t signed_size = bytes.size() - in.remaining();
  manifest.signature = in.array<64>();
  if (!in.done()) return corrupt("manifest: short, or with bytes after its end");
  if (volume_id_of(manifest.sign_public_key) != manifest.header.volume)
    return corrupt("manifest: its signing key is not the volume's");
  if (!verify_signature(manifest.sign_public_key, kManifestLabel, bytes.first(signed_size),
                        manifest.signature))
    return corrupt("manifest: the signature does not verify");
  return manifest;
}

}  // namespace

Result<Manifest> Manifest::decode(ByteView bytes) {
  if (bytes.size() > kEncodedSizeMax) return corrupt("manifest: too long");
  auto manifest = parse_manifest(bytes);
  if (!manifest && manifest.error().kind() == ErrorKind::unsupported && !signed_at_its_end(bytes))
    return corrupt("manifest: its version or features are not known, and nobody signed them");
  return manifest;
}

void sign_manifest(Manifest& manifest, const SigningKey& key) {
  manifest.sign_public_key = key.public_key();
  manifest.signature = key.sign(kManifestLabel, signed_part(manifest));
}

}  // namespace cumulus
