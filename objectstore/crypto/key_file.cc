#include "objectstore/crypto/key_file.h"

#include <algorithm>

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

// Reserved at once, so that a growing buffer leaves no copy of the key behind.
Bytes make_empty() {
  Bytes bytes;
  bytes.reserve(kKeyFileSizeMax);
  return bytes;
}

struct Wrapped {
  ScryptCost cost;
  std::array<std::uint8_t, 16> salt{};
  Nonce nonce{};
  ByteView associated;
  ByteView sealed;
};
// One of the two is set; both point into the file's bytes.
struct KeyFile {
  std::optional<ByteView> clear;
  std::optional<Wrapped> wrapped;
};

Result<KeyFile> parse(ByteView bytes) {
  TRY(const ByteView body, checked(bytes));
  Decoder in(body.subspan(kMagic.size() + 2));
  const std::uint8_t kind = in.u8();
  const std::uint8_t reserved = in.u8();
  KeyFile file;
  bool good = kind <= 1 && reserved == 0;
  if (kind == 0) {
    file.clear = in.bytes(32);
  } else {
    Wrapped& wrapped = file.wrapped.emplace();
    wrapped.cost.n_log2 = in.u8();
    wrapped.cost.r = in.u8();
    wrapped.cost.p = in.u8();
    good = in.u8() == 0 && good;
    wrapped.salt = in.array<16>();
    wrapped.nonce = in.array<12>();
    wrapped.associated = body.first(body.size() - in.remaining());
    wrapped.sealed = in.bytes(32 + kAeadTagSize);
  }
  if (!good || !in.done())
    return fail(ErrorKind::corrupt, "the key file does not parse: it was made by a faulty program");
  return file;
}

}  // namespace

Bytes encode_key_file(const SecretKey& master) {
  Bytes bytes = make_empty();
  Encoder out(bytes);
  begin(out, false);
  out.bytes(master.view());
  out.bytes(sha256(bytes));
  return bytes;
}

Result<Bytes> encode_key_file(const SecretKey& master, std::string_view passphrase, Random& random,
                              ScryptCost cost) {
  Bytes bytes = make_empty();
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
  TRY(const KeyFile file, parse(bytes));
  return file.wrapped.has_value();
}

Result<SecretKey> decode_key_file(ByteView bytes, std::optional<std::string_view> passphrase) {
  TRY(const KeyFile file, parse(bytes));
  SecretKey key;
  if (file.clear) {
    copy_bytes(*file.clear, key.view().data());
    return key;
  }
  if (!passphrase)
    return fail(
        ErrorKind::denied,
        "the key file is protected by a passphrase: give it on the terminal or with --passphrase-file");
  const Wrapped& wrapped = *file.wrapped;
  TRY(const SecretKey wrapping, scrypt(*passphrase, wrapped.salt, wrapped.cost));
  if (!AeadKey(wrapping).open(wrapped.nonce, wrapped.associated, wrapped.sealed, key.view()))
    return fail(ErrorKind::denied, "wrong passphrase for the key file");
  return key;
}

}  // namespace cumulus
