#include "objectstore/crypto/tls_identity.h"

#include <memory>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "objectstore/crypto/openssl_check.h"
#include "objectstore/crypto/secret.h"

namespace cumulus {
namespace {

struct Free {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(X509* certificate) const { X509_free(certificate); }
};

template <class T>
Bytes to_der(int (*encode)(const T*, unsigned char**), const T* value) {
  unsigned char* der = nullptr;
  const int size = encode(value, &der);
  CHECK(size > 0);
  Bytes bytes(der, der + size);
  OPENSSL_clear_free(der, static_cast<std::size_t>(size));
  return bytes;
}

}  // namespace

TlsIdentity::~TlsIdentity() { wipe(private_key_); }

TlsIdentity TlsIdentity::from_seed(const std::array<std::uint8_t, 32>& seed) {
  const std::unique_ptr<EVP_PKEY, Free> key(
      EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed.data(), seed.size()));
  const std::unique_ptr<X509, Free> certificate(X509_new());
  CHECK(key != nullptr && certificate != nullptr);
  TlsIdentity identity;
  std::size_t size = identity.public_.size();
  CRYPTO_OK(EVP_PKEY_get_raw_public_key(key.get(), identity.public_.data(), &size));

  CRYPTO_OK(X509_set_version(certificate.get(), X509_VERSION_3));
  CRYPTO_OK(ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1));
  // Keys are pinned and do not expire: no machine's wrong clock keeps its owner out.
  CRYPTO_OK(ASN1_TIME_set_string(X509_getm_notBefore(certificate.get()), "20000101000000Z"));
  CRYPTO_OK(ASN1_TIME_set_string(X509_getm_notAfter(certificate.get()), "99991231235959Z"));
  X509_NAME* name = X509_get_subject_name(certificate.get());
  const auto* common_name = reinterpret_cast<const unsigned char*>("cumulus");
  CRYPTO_OK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, common_name, -1, -1, 0));
  CRYPTO_OK(X509_set_issuer_name(certificate.get(), name));
  CRYPTO_OK(X509_set_pubkey(certificate.get(), key.get()));
  CHECK(X509_sign(certificate.get(), key.get(), nullptr) > 0);

  identity.certificate_ = to_der<X509>(i2d_X509, certificate.get());
  identity.private_key_ = to_der<EVP_PKEY>(i2d_PrivateKey, key.get());
  return identity;
}

}  // namespace cumulus
