// Ed25519 signatures (RFC 8032). Every signed message begins with its own label, so that a signature given
// for one purpose is worth nothing for another. Pure; any thread.
#pragma once

#include <array>
#include <string_view>

#include "objectstore/base/bytes.h"
#include "objectstore/base/ids.h"
#include "objectstore/crypto/secret.h"

namespace cumulus {

class SigningKey {
 public:
  explicit SigningKey(const std::array<std::uint8_t, 32>& seed);

  const std::array<std::uint8_t, 32>& public_key() const { return public_; }
  std::array<std::uint8_t, 64> sign(std::string_view label, ByteView message) const;

 private:
  Secret<64> secret_;  // the seed and the public key
  std::array<std::uint8_t, 32> public_{};
};

bool verify_signature(const std::array<std::uint8_t, 32>& public_key, std::string_view label,
                      ByteView message, const std::array<std::uint8_t, 64>& signature);

// SHA-256("cumulus volume id v1" ‖ signing public key).
VolumeId volume_id_of(const std::array<std::uint8_t, 32>& sign_public_key);

}  // namespace cumulus
