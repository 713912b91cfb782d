#include "objectstore/crypto/sign.h"

#include <array>
#include <cstring>
#include <sodium.h>

#include "objectstore/base/check.h"
#include "objectstore/crypto/digest.h"

namespace cumulus {
namespace {

// 0 is success; anything else cannot happen.
#define SODIUM_OK(call) CHECK((call) == 0)

void ready() {
  static const bool done = [] {
    CHECK(sodium_init() >= 0);
    return true;
  }();
  static_cast<void>(done);
}

Bytes labelled(std::string_view label, ByteView message) {
  Bytes bytes(label.begin(), label.end());
  bytes.push_back(0);  // no label is the beginning of another with its message
  bytes.insert(bytes.end(), message.begin(), message.end());
  return bytes;
}

// Signatures that were found good lately. A manifest comes from each of its k + m miners with the same
// signature, and a check costs a hundred times what it costs to know it again. One thread's.
class GoodSignatures {
 public:
  bool knows(const Digest& digest) { return place_of(digest) == digest; }
  void add(const Digest& digest) { place_of(digest) = digest; }

 private:
  Digest& place_of(const Digest& digest) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, digest.data(), sizeof bits);
    return places_[bits % places_.size()];
  }
  std::array<Digest, 1024> places_{};
};

}  // namespace

SigningKey::SigningKey(const std::array<std::uint8_t, 32>& seed) {
  ready();
  SODIUM_OK(crypto_sign_seed_keypair(public_.data(), secret_.view().data(), seed.data()));
}

std::array<std::uint8_t, 64> SigningKey::sign(std::string_view label, ByteView message) const {
  const Bytes bytes = labelled(label, message);
  std::array<std::uint8_t, 64> signature;
  SODIUM_OK(
      crypto_sign_detached(signature.data(), nullptr, bytes.data(), bytes.size(), secret_.view().data()));
  return signature;
}

bool verify_signature(const std::array<std::uint8_t, 32>& public_key, std::string_view label,
                      ByteView message, const std::array<std::uint8_t, 64>& signature) {
  thread_local GoodSignatures good;
  const Bytes bytes = labelled(label, message);
  Sha256 hash;
  hash.update(public_key);
  hash.update(signature);
  hash.update(bytes);
  const Digest digest = hash.finish();
  if (good.knows(digest)) return true;
  ready();
  const bool right =
      crypto_sign_verify_detached(signature.data(), bytes.data(), bytes.size(), public_key.data()) == 0;
  if (right) good.add(digest);
  return right;
}

VolumeId volume_id_of(const std::array<std::uint8_t, 32>& sign_public_key) {
  Sha256 hash;
  hash.update(view_of("cumulus volume id v1"));
  hash.update(sign_public_key);
  return VolumeId{hash.finish()};
}

}  // namespace cumulus
