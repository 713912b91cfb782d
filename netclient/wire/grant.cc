#include "netclient/wire/grant.h"

#include "objectstore/base/codec.h"

namespace cumulus::wire {
namespace {

constexpr std::uint32_t kGrantMagic = 0x31475243;  // "CRG1"
constexpr std::uint32_t kGrantVersion = 1;

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

}  // namespace cumulus::wire
