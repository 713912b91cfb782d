// KeyTree: every key of a volume, derived from its 256-bit master key by distinct labels (README.md has the
// tree). Whoever holds the master key, or the recovery code that spells it, is the owner. Immutable after
// construction: any thread.
#pragma once

#include <array>
#include <cstdint>

#include "objectstore/base/ids.h"
#include "objectstore/crypto/secret.h"
#include "objectstore/crypto/sign.h"

namespace cumulus {

class KeyTree {
 public:
  explicit KeyTree(SecretKey master);

  const SecretKey& master() const { return master_; }
  const VolumeId& volume_id() const { return volume_id_; }
  const SigningKey& signing_key() const { return signing_key_; }
  // Seed of the Ed25519 key that the volume's daemon shows miners in TLS.
  const SecretKey& tls_seed() const { return tls_seed_; }
  // Encrypts the local index (AES-256-CTR).
  const SecretKey& index_key() const { return index_key_; }
  // Encrypts small sealed fields of the superblock (AES-256-GCM).
  const SecretKey& label_key() const { return label_key_; }
  // HKDF-Expand(read key, "cumulus segment v1" ‖ salt ‖ volume id ‖ kind ‖ epoch ‖ sequence).
  SecretKey segment_key(const SegmentId& segment, const std::array<std::uint8_t, 16>& salt) const;

 private:
  SecretKey master_;
  SecretKey read_key_;
  SecretKey tls_seed_;
  SecretKey index_key_;
  SecretKey label_key_;
  SigningKey signing_key_;
  VolumeId volume_id_;
};

}  // namespace cumulus
