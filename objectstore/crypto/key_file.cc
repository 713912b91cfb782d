#include "objectstore/crypto/key_file.h"

#include "objectstore/base/codec.h"
#include "objectstore/crypto/aead.h"
#include "objectstore/crypto/digest.h"

namespace cumulus {
namespace {

constexpr std::string_view kMagic = "CUMULKEY";
constexpr std::uint16_t kVersion = 1;

void begin(Encoder& out, bool wrapped) {
  out.bytes(view_of(kMagic));
  out.u16(kVersion);
  out.u8(wrapped ? 1 : 0);
  out.u8(0);
}

// The body without its checksum.
Result<ByteView> checked(ByteView bytes) {
  if (bytes.size() < kMagic.size() + 4 + 32 || bytes.size() > kKeyFileSizeMax ||
      text_of(bytes.first(kMagic.size())) != kMagic)
    return fail(ErrorKind::corrupt, "this is not a Cumulus key file");
  const ByteView body = bytes.first(bytes.size() - 32);
  if (!equal(sha256(body), bytes.last(32)))
    return fail(ErrorKind::corrupt,
                "the key file is damaged (its checksum is wrong): restore it, or recover the volume with its "
                "recovery code");
  Decoder in(body.subspan(kMagic.size()));
  if (in.u16() != kVersion)
    return fail(ErrorKind::unsupported, "the key file is of a newer version than this program");
  return body;
}

}  // namespace

Bytes encode_key_file(const SecretKey& master) {
  Bytes bytes;
  Encoder out(bytes);
  begin(out, false);
  out.bytes(master.view());
  out.bytes(sha256(bytes));
  return bytes;
}

Result<Bytes> encode_key_file(const SecretKey& master, std::string_view passphrase, Random& random,
                              ScryptCost cost) {
  Bytes bytes;
  Encoder out(bytes);
  begin(out, true);
  std::array<std::uint8_t, 16> salt;
  Nonce nonce;
  random.fill(salt);
  random.fill(nonce);
  out.u8(cost.n_log2);
  out.u8(cost.r);
  out.u8(cost.p);
  out.u8(0);
  out.bytes(salt);
  out.bytes(nonce);
  TRY(const SecretKey wrapping, scrypt(passphrase, salt, cost));
  std::array<std::uint8_t, 32 + kAeadTagSize> sealed;
  AeadKey(wrapping).seal(nonce, bytes, master.view(), sealed);
  out.bytes(sealed);
  out.bytes(sha256(bytes));
  return bytes;
}

Result<bool> key_file_is_wrapped(ByteView bytes) {
  TRY(const ByteView body, checked(bytes));
  return body[kMagic.size() + 2] != 0;
}

Result<SecretKey> decode_key_file(ByteView bytes, std::optional<std::string_view> passphrase) {
  TRY(const ByteView body, checked(bytes));
  Decoder in(body.subspan(kMagic.size() + 2));
  const std::uint8_t wrapped = in.u8();
  const std::uint8_t reserved = in.u8();
  const Error damaged(ErrorKind::corrupt, "the key file does not parse");
  if (wrapped > 1 || reserved != 0) return fail(damaged);
  if (wrapped == 0) {
    SecretKey key(in.array<32>());
    if (!in.done()) return fail(damaged);
    return key;
  }
  ScryptCost cost;
  cost.n_log2 = in.u8();
  cost.r = in.u8();
  cost.p = in.u8();
  const std::uint8_t zero = in.u8();
  const auto salt = in.array<16>();
  const auto nonce = in.array<12>();
  const std::size_t aad = body.size() - in.remaining();
  const auto sealed = in.array<32 + kAeadTagSize>();
  if (!in.done() || zero != 0) return fail(damaged);
  if (!passphrase)
    return fail(
        ErrorKind::denied,
        "the key file is protected by a passphrase: give it on the terminal or with --passphrase-file");
  TRY(const SecretKey wrapping, scrypt(*passphrase, salt, cost));
  SecretKey key;
  if (!AeadKey(wrapping).open(nonce, body.first(aad), sealed, key.view()))
    return fail(ErrorKind::denied, "wrong passphrase for the key file");
  return key;
}

}  // namespace cumulus
