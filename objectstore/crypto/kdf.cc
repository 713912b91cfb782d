#include "objectstore/crypto/kdf.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "objectstore/base/format.h"
#include "objectstore/crypto/openssl_check.h"

namespace cumulus {
namespace {

void run_hkdf(int mode, ByteView salt, ByteView input, ByteView info, MutableByteView out) {
  EVP_KDF* kdf = EVP_KDF_fetch(nullptr, "HKDF", nullptr);
  CHECK(kdf != nullptr);
  EVP_KDF_CTX* context = EVP_KDF_CTX_new(kdf);
  EVP_KDF_free(kdf);
  CHECK(context != nullptr);
  char digest[] = "SHA256";
  const auto octets = [](const char* name, ByteView bytes) {
    return OSSL_PARAM_construct_octet_string(name, const_cast<std::uint8_t*>(bytes.data()), bytes.size());
  };
  OSSL_PARAM parameters[6];
  OSSL_PARAM* next = parameters;
  *next++ = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode);
  *next++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
  *next++ = octets(OSSL_KDF_PARAM_KEY, input);
  *next++ = octets(OSSL_KDF_PARAM_INFO, info);
  if (!salt.empty()) *next++ = octets(OSSL_KDF_PARAM_SALT, salt);
  *next = OSSL_PARAM_construct_end();
  CRYPTO_OK(EVP_KDF_derive(context, out.data(), out.size(), parameters));
  EVP_KDF_CTX_free(context);
}

}  // namespace

void hkdf_bytes(ByteView salt, ByteView input, ByteView info, MutableByteView out) {
  run_hkdf(EVP_KDF_HKDF_MODE_EXTRACT_AND_EXPAND, salt, input, info, out);
}

SecretKey hkdf(ByteView salt, ByteView input, ByteView info) {
  SecretKey key;
  hkdf_bytes(salt, input, info, key.view());
  return key;
}

SecretKey hkdf_expand(const SecretKey& key, ByteView info) {
  SecretKey derived;
  run_hkdf(EVP_KDF_HKDF_MODE_EXPAND_ONLY, {}, key.view(), info, derived.view());
  return derived;
}

Result<SecretKey> scrypt(std::string_view passphrase, ByteView salt, ScryptCost cost) {
  constexpr std::uint64_t kMemoryMax = std::uint64_t{1} << 30;
  if (cost.n_log2 < 1 || cost.r < 1 || cost.r > 32 || cost.p < 1 || cost.p > 16 ||
      cost.n_log2 >= 16 * cost.r || cost.n_log2 > 23 ||
      (std::uint64_t{128} << cost.n_log2) * cost.r > kMemoryMax)
    return fail(ErrorKind::invalid, format("scrypt cost N=2^{}, r={}, p={} is beyond what is accepted",
                                           cost.n_log2, cost.r, cost.p));
  SecretKey key;
  const std::uint64_t n = std::uint64_t{1} << cost.n_log2;
  const std::uint64_t memory = 128 * n * cost.r + 128 * std::uint64_t{cost.r} * cost.p + (1u << 20);
  if (EVP_PBE_scrypt(passphrase.data(), passphrase.size(), salt.data(), salt.size(), n, cost.r, cost.p,
                     memory, key.view().data(), key.view().size()) != 1)
    return fail(ErrorKind::no_space,
                format("not enough memory to derive a key from the passphrase ({} MiB)", memory >> 20));
  return key;
}

}  // namespace cumulus
