#include "objectstore/crypto/aes_ctr.h"

#include <algorithm>
#include <memory>
#include <openssl/evp.h>

#include "objectstore/crypto/openssl_check.h"

namespace cumulus {

void aes_ctr(const SecretKey& key, const std::array<std::uint8_t, 16>& start, std::uint64_t offset,
             MutableByteView data) {
  struct Free {
    void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
  };
  // Fetching a cipher takes a lock and a look-up; once a process is enough.
  static EVP_CIPHER* const cipher = EVP_CIPHER_fetch(nullptr, "AES-256-CTR", nullptr);
  thread_local const std::unique_ptr<EVP_CIPHER_CTX, Free> context(EVP_CIPHER_CTX_new());
  CHECK(cipher != nullptr && context != nullptr);
  // A thread mostly works for one index: its key schedule stays set up.
  thread_local SecretKey scheduled;
  thread_local bool any_scheduled = false;
  if (!any_scheduled || !equal(scheduled.view(), key.view())) {
    CRYPTO_OK(EVP_EncryptInit_ex(context.get(), cipher, nullptr, key.view().data(), nullptr));
    scheduled = key.clone();
    any_scheduled = true;
  }
  std::array<std::uint8_t, 16> counter = start;
  std::uint64_t carry = offset / 16;
  for (std::size_t i = counter.size(); i-- > 0 && carry != 0; carry >>= 8) {
    carry += counter[i];
    counter[i] = static_cast<std::uint8_t>(carry);
  }
  CRYPTO_OK(EVP_EncryptInit_ex(context.get(), nullptr, nullptr, nullptr, counter.data()));
  int done = 0;
  if (const std::size_t skip = offset % 16; skip != 0) {
    std::array<std::uint8_t, 16> ignored{};
    CRYPTO_OK(
        EVP_EncryptUpdate(context.get(), ignored.data(), &done, ignored.data(), static_cast<int>(skip)));
  }
  for (constexpr std::size_t kStep = 1u << 30; !data.empty();) {
    const MutableByteView part = data.first(std::min(data.size(), kStep));
    CRYPTO_OK(
        EVP_EncryptUpdate(context.get(), part.data(), &done, part.data(), static_cast<int>(part.size())));
    data = data.subspan(part.size());
  }
}

}  // namespace cumulus
