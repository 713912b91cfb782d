#include "objectstore/crypto/digest.h"

#include <algorithm>
#include <openssl/evp.h>

#include "objectstore/crypto/multi_buffer.h"
#include "objectstore/crypto/openssl_check.h"

namespace cumulus {

namespace {

// Looked up once: EVP_sha256() has OpenSSL look it up for every digest.
const EVP_MD* fetched_sha256() {
  static const EVP_MD* const fetched = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  CHECK(fetched != nullptr);
  return fetched;
}

}  // namespace

Digest sha256(ByteView bytes) {
  Digest digest;
  CRYPTO_OK(EVP_Digest(bytes.data(), bytes.size(), digest.data(), nullptr, fetched_sha256(), nullptr));
  return digest;
}

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  CHECK(state_->context != nullptr);
  CRYPTO_OK(EVP_DigestInit_ex(state_->context, fetched_sha256(), nullptr));
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(ByteView bytes) {
  CRYPTO_OK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()));
}

Digest Sha256::finish() {
  Digest digest;
  CRYPTO_OK(EVP_DigestFinal_ex(state_->context, digest.data(), nullptr));
  return digest;
}

std::vector<Digest> sha256_leaves(ByteView data, std::size_t leaf_size) {
  CHECK(leaf_size > 0);
  std::vector<Digest> digests((data.size() + leaf_size - 1) / leaf_size);
  sha256_leaves(data, leaf_size, digests);
  return digests;
}

void sha256_leaves(ByteView data, std::size_t leaf_size, std::span<Digest> digests) {
  CHECK(leaf_size > 0 && digests.size() == (data.size() + leaf_size - 1) / leaf_size);
  if (digests.size() == 1) {  // nothing to share the lanes with
    digests[0] = sha256(data);
    return;
  }
  IMB_MGR& manager = hash_lanes();
  std::size_t done = 0;
  const auto collect = [&done](const IMB_JOB* job) {
    if (job == nullptr) return false;
    CHECK(job->status == IMB_STATUS_COMPLETED);
    ++done;
    return true;
  };
  // Two lanes, two streams: one walks the first half, the other the second. Where the bytes do not lie in the
  // nearest cache that is a tenth faster than lanes that jump over each other, leaf by leaf.
  const std::size_t half = (digests.size() + 1) / 2;
  for (std::size_t turn = 0; turn < digests.size(); ++turn) {
    const std::size_t i = turn / 2 + (turn % 2) * half;
    IMB_JOB* job = IMB_GET_NEXT_JOB(&manager);
    *job = {};
    job->cipher_mode = IMB_CIPHER_NULL;
    job->cipher_direction = IMB_DIR_ENCRYPT;
    job->chain_order = IMB_ORDER_HASH_CIPHER;
    job->hash_alg = IMB_AUTH_SHA_256;
    job->src = data.data() + i * leaf_size;
    job->msg_len_to_hash_in_bytes = std::min(leaf_size, data.size() - i * leaf_size);
    job->auth_tag_output = digests[i].data();
    job->auth_tag_output_len_in_bytes = digests[i].size();
    collect(IMB_SUBMIT_JOB_NOCHECK(&manager));
  }
  while (collect(IMB_FLUSH_JOB(&manager))) {
  }
  CHECK(done == digests.size());
}

}  // namespace cumulus
