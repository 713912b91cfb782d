#include "objectstore/crypto/sign.h"

#include <array>
#include <cstring>
#include <memory>
#include <openssl/evp.h>

#include "objectstore/crypto/digest.h"
#include "objectstore/crypto/openssl_check.h"

namespace cumulus {
namespace {

struct Free {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
using Key = std::unique_ptr<EVP_PKEY, Free>;
using Context = std::unique_ptr<EVP_MD_CTX, Free>;

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

SigningKey::SigningKey(const std::array<std::uint8_t, 32>& seed) : seed_(seed) {
  const Key key(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed.data(), seed.size()));
  CHECK(key != nullptr);
  std::size_t size = public_.size();
  CRYPTO_OK(EVP_PKEY_get_raw_public_key(key.get(), public_.data(), &size));
}

std::array<std::uint8_t, 64> SigningKey::sign(std::string_view label, ByteView message) const {
  const Key key(
      EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed_.view().data(), seed_.view().size()));
  const Context context(EVP_MD_CTX_new());
  CHECK(key != nullptr && context != nullptr);
  CRYPTO_OK(EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()));
  const Bytes bytes = labelled(label, message);
  std::array<std::uint8_t, 64> signature;
  std::size_t size = signature.size();
  CRYPTO_OK(EVP_DigestSign(context.get(), signature.data(), &size, bytes.data(), bytes.size()));
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
  const Key key(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, public_key.data(), public_key.size()));
  if (!key) return false;
  const Context context(EVP_MD_CTX_new());
  CHECK(context != nullptr);
  CRYPTO_OK(EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key.get()));
  const bool right =
      EVP_DigestVerify(context.get(), signature.data(), signature.size(), bytes.data(), bytes.size()) == 1;
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
