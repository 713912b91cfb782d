// TlsIdentity: the self-signed Ed25519 X.509 certificate (RFC 8410) that one side of a TLS connection shows.
// Trust comes from pinning the raw public key, never from the certificate's fields, which are the same for
// everybody. Any thread.
#pragma once

#include <array>

#include "objectstore/base/bytes.h"

namespace cumulus {

class TlsIdentity {
 public:
  static TlsIdentity from_seed(const std::array<std::uint8_t, 32>& seed);

  TlsIdentity(const TlsIdentity&) = default;
  TlsIdentity(TlsIdentity&&) = default;
  TlsIdentity& operator=(const TlsIdentity&) = delete;
  TlsIdentity& operator=(TlsIdentity&&) = delete;
  ~TlsIdentity();  // wipes the private key

  const std::array<std::uint8_t, 32>& public_key() const { return public_; }
  const Bytes& certificate_der() const { return certificate_; }
  const Bytes& private_key_der() const { return private_key_; }  // PKCS#8

 private:
  TlsIdentity() = default;

  std::array<std::uint8_t, 32> public_{};
  Bytes certificate_;
  Bytes private_key_;
};

}  // namespace cumulus
