#include "netclient/wire/grant.h"

#include "objectstore/base/codec.h"
#include "objectstore/crypto/sign.h"

namespace cumulus::wire {
namespace {

constexpr std::uint32_t kGrantMagic = 0x31475243;  // "CRG1"
constexpr std::uint32_t kGrantVersion = 1;
constexpr std::string_view kGrantLabel = "cumulus grant v1";
constexpr std::size_t kSignatureSize = 64;

std::unexpected<Error> denied(std::string_view why) {
  return fail(ErrorKind::denied, "grant: " + std::string(why));
}

}  // namespace

void Grant::encode(Bytes& into) const {
  Encoder out(into);
  out.u32(kGrantMagic);
  out.u32(kGrantVersion);
  out.bytes(volume.view());
  out.bytes(sign_public_key);
  out.bytes(tls_public_key);
  out.u32(rights);
  out.u64(not_after);
  out.bytes(signature);
}

Result<Grant> Grant::decode(ByteView bytes) {
  Decoder in(bytes);
  if (in.u32() != kGrantMagic) return fail(ErrorKind::corrupt, "grant: no magic number");
  if (in.u32() != kGrantVersion)
    return fail(ErrorKind::unsupported, "grant: of a format version that this program does not know");
  Grant grant;
  grant.volume.bytes = in.array<32>();
  grant.sign_public_key = in.array<32>();
  grant.tls_public_key = in.array<32>();
  grant.rights = in.u32();
  grant.not_after = in.u64();
  grant.signature = in.array<64>();
  if (!in.done()) return fail(ErrorKind::corrupt, "grant: short or with bytes after its end");
  if ((grant.rights & ~kAll) != 0)
    return fail(ErrorKind::unsupported, "grant: gives a right that this program does not know");
  return grant;
}

Status Grant::verify(const std::array<std::uint8_t, 32>& peer, WallTime now) const {
  if (volume_id_of(sign_public_key) != volume) return denied("its signing key is not the volume's");
  Bytes bytes;
  encode(bytes);
  if (!verify_signature(sign_public_key, kGrantLabel, ByteView(bytes).first(kEncodedSize - kSignatureSize),
                        signature))
    return denied("the signature does not verify");
  if (tls_public_key != peer)
    return denied("it was given to another TLS identity than the one that presents it");
  if (not_after != 0 && now > not_after)
    return denied("it has expired; have the volume's owner make a new one");
  return {};
}

void sign_grant(Grant& grant, const SigningKey& key) {
  grant.sign_public_key = key.public_key();
  Bytes bytes;
  grant.encode(bytes);
  grant.signature = key.sign(kGrantLabel, ByteView(bytes).first(Grant::kEncodedSize - kSignatureSize));
}

}  // namespace cumulus::wire
