// What the crypto room costs, beside what the libraries can do on the same core in the same run: AEAD cells
// against OpenSSL's EVP (called as `openssl speed -evp aes-256-gcm` calls it) and bare ipsec-mb; leaf hashing
// and Merkle roots against OpenSSL's SHA-256; the index's CTR against EVP; signatures, key derivation.
#define NO_COMPAT_IMB_API_053
#include <benchmark/benchmark.h>
#include <cstring>
#include <intel-ipsec-mb.h>
#include <openssl/evp.h>

#include "objectstore/base/bytes.h"
#include "objectstore/base/check.h"
#include "objectstore/crypto/aead.h"
#include "objectstore/crypto/aes_ctr.h"
#include "objectstore/crypto/digest.h"
#include "objectstore/crypto/kdf.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/crypto/merkle.h"
#include "tests/bench/ratios.h"

namespace cumulus {
namespace {

constexpr std::size_t kRun = 1 << 20;    // a group's cells
constexpr std::size_t kSlice = 2 << 20;  // a slice of an 8 MiB segment at k = 4
const SecretKey kKey(std::array<std::uint8_t, 32>{1, 2, 3});

Buffer filled(std::size_t size) {
  Buffer buffer(size);
  for (std::size_t i = 0; i < size; ++i) buffer.data()[i] = static_cast<std::uint8_t>(i * 31 >> 3);
  return buffer;
}

void count(benchmark::State& state, std::size_t bytes) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes));
}

void seal_cells(benchmark::State& state) {
  const auto cell = static_cast<std::size_t>(state.range(0));
  const AeadKey key(kKey);
  const Buffer plain = filled(kRun);
  Buffer sealed = filled(kRun + kRun / cell * kAeadTagSize);
  for (auto _ : state) key.seal_cells(7, 4096, static_cast<std::uint32_t>(cell), plain.view(), sealed.view());
  count(state, kRun);
}

void open_cells(benchmark::State& state) {
  const auto cell = static_cast<std::size_t>(state.range(0));
  const AeadKey key(kKey);
  Buffer plain = filled(kRun);
  Buffer sealed = filled(kRun + kRun / cell * kAeadTagSize);
  key.seal_cells(7, 4096, static_cast<std::uint32_t>(cell), plain.view(), sealed.view());
  for (auto _ : state)
    CHECK(key.open_cells(7, 4096, static_cast<std::uint32_t>(cell), sealed.view(), plain.view()));
  count(state, kRun);
}

void limit_evp_gcm(benchmark::State& state) {
  const auto cell = static_cast<std::size_t>(state.range(0));
  const Buffer plain = filled(kRun);
  Buffer sealed = filled(kRun + kRun / cell * kAeadTagSize);
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  CHECK(EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), nullptr, kKey.view().data(), nullptr) == 1);
  int done = 0;
  for (auto _ : state)
    for (std::size_t i = 0; i < kRun / cell; ++i) {
      const Nonce nonce = make_nonce(7, static_cast<std::uint32_t>(i));
      std::uint8_t* out = sealed.data() + i * (cell + kAeadTagSize);
      EVP_EncryptInit_ex(context, nullptr, nullptr, nullptr, nonce.data());
      EVP_EncryptUpdate(context, out, &done, plain.data() + i * cell, static_cast<int>(cell));
      EVP_EncryptFinal_ex(context, out, &done);
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, kAeadTagSize, out + cell);
    }
  EVP_CIPHER_CTX_free(context);
  count(state, kRun);
}

void limit_ipsec_gcm(benchmark::State& state) {
  const auto cell = static_cast<std::size_t>(state.range(0));
  const Buffer plain = filled(kRun);
  Buffer sealed = filled(kRun + kRun / cell * kAeadTagSize);
  IMB_MGR* manager = alloc_mb_mgr(0);
  init_mb_mgr_auto(manager, nullptr);
  alignas(64) gcm_key_data key;
  IMB_AES256_GCM_PRE(manager, kKey.view().data(), &key);
  gcm_context_data context;
  const Nonce nonce = make_nonce(7, 0);
  for (auto _ : state)
    for (std::size_t i = 0; i < kRun / cell; ++i) {
      std::uint8_t* out = sealed.data() + i * (cell + kAeadTagSize);
      IMB_AES256_GCM_ENC(manager, &key, &context, out, plain.data() + i * cell, cell, nonce.data(), nullptr,
                         0, out + cell, kAeadTagSize);
    }
  free_mb_mgr(manager);
  count(state, kRun);
}

void leaf_digests(benchmark::State& state) {
  const Buffer slice = filled(kSlice);
  for (auto _ : state) benchmark::DoNotOptimize(sha256_leaves(slice.view(), kMerkleLeafSize));
  count(state, kSlice);
}

void merkle_roots(benchmark::State& state) {
  const Buffer slice = filled(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(merkle_root(slice.view()));
  count(state, slice.size());
}

void merkle_range_proof(benchmark::State& state) {
  const Buffer slice = filled(kSlice);
  const auto leaves = merkle_leaves(slice.view());
  for (auto _ : state) benchmark::DoNotOptimize(merkle_proof(leaves, 100, 4));
}

void merkle_range_verify(benchmark::State& state) {
  const Buffer slice = filled(kSlice);
  const auto leaves = merkle_leaves(slice.view());
  const Digest root = merkle_root(leaves, slice.size());
  const Bytes proof = merkle_proof(leaves, 100, 4);
  const ByteView data = slice.view(100 * kMerkleLeafSize, 4 * kMerkleLeafSize);
  for (auto _ : state) CHECK(merkle_verify(root, slice.size(), 100, data, proof));
  count(state, data.size());
}

void limit_evp_sha256(benchmark::State& state) {
  const Buffer slice = filled(kSlice);
  Digest digest;
  for (auto _ : state)
    for (std::size_t at = 0; at < kSlice; at += kMerkleLeafSize)
      EVP_Digest(slice.data() + at, kMerkleLeafSize, digest.data(), nullptr, EVP_sha256(), nullptr);
  count(state, kSlice);
}

void index_ctr(benchmark::State& state) {
  Buffer data = filled(static_cast<std::size_t>(state.range(0)));
  const std::array<std::uint8_t, 16> start{};
  for (auto _ : state) aes_ctr(kKey, start, 1 << 20, data.view());
  count(state, data.size());
}

void limit_evp_ctr(benchmark::State& state) {
  Buffer data = filled(static_cast<std::size_t>(state.range(0)));
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  const std::array<std::uint8_t, 16> start{};
  CHECK(EVP_EncryptInit_ex(context, EVP_aes_256_ctr(), nullptr, kKey.view().data(), start.data()) == 1);
  int done = 0;
  for (auto _ : state)
    EVP_EncryptUpdate(context, data.data(), &done, data.data(), static_cast<int>(data.size()));
  EVP_CIPHER_CTX_free(context);
  count(state, data.size());
}

void sign_message(benchmark::State& state) {
  const SigningKey key(kKey.array());
  const Bytes message(300, 1);
  for (auto _ : state) benchmark::DoNotOptimize(key.sign("cumulus bench v1", message));
}

// Signatures that were good once are known again: each is of another message.
void verify_message(benchmark::State& state) {
  const SigningKey key(kKey.array());
  Bytes message(300, 1);
  std::uint64_t number = 0;
  for (auto _ : state) {
    state.PauseTiming();
    ++number;
    std::memcpy(message.data(), &number, sizeof number);
    const auto signature = key.sign("cumulus bench v1", message);
    state.ResumeTiming();
    CHECK(verify_signature(key.public_key(), "cumulus bench v1", message, signature));
  }
}

void verify_message_again(benchmark::State& state) {
  const SigningKey key(kKey.array());
  const Bytes message(300, 1);
  const auto signature = key.sign("cumulus bench v1", message);
  for (auto _ : state) CHECK(verify_signature(key.public_key(), "cumulus bench v1", message, signature));
}

void segment_key_and_schedule(benchmark::State& state) {
  const KeyTree keys(kKey.clone());
  for (auto _ : state) {
    const AeadKey key(keys.segment_key({SegmentKind::log, 1, 2}, {}));
    benchmark::DoNotOptimize(&key);
  }
}

void scrypt_default(benchmark::State& state) {
  for (auto _ : state) CHECK(scrypt("passphrase", view_of("salt"), {}).has_value());
}

BENCHMARK(seal_cells)->Arg(4096)->Arg(16384);
BENCHMARK(open_cells)->Arg(4096)->Arg(16384);
BENCHMARK(limit_evp_gcm)->Arg(4096)->Arg(16384);
BENCHMARK(limit_ipsec_gcm)->Arg(4096)->Arg(16384);
BENCHMARK(leaf_digests);
BENCHMARK(merkle_roots)->Arg(16384)->Arg(kSlice);
BENCHMARK(limit_evp_sha256);
BENCHMARK(merkle_range_proof);
BENCHMARK(merkle_range_verify);
BENCHMARK(index_ctr)->Arg(4096)->Arg(65536);
BENCHMARK(limit_evp_ctr)->Arg(4096)->Arg(65536);
BENCHMARK(sign_message);
BENCHMARK(verify_message);
BENCHMARK(verify_message_again);
BENCHMARK(segment_key_and_schedule);
BENCHMARK(scrypt_default);

}  // namespace
}  // namespace cumulus

int main(int argc, char** argv) {
  const char* const evp = "OpenSSL's EVP";
  const char* const bare = "bare ipsec-mb";
  return cumulus::run_benchmarks(
      argc, argv,
      {{"seal, cells of 4 KiB", "seal_cells/4096", "limit_evp_gcm/4096", evp, 85},
       {"seal, cells of 16 KiB", "seal_cells/16384", "limit_evp_gcm/16384", evp, 85},
       {"open, cells of 4 KiB", "open_cells/4096", "limit_evp_gcm/4096", evp, 85},
       {"open, cells of 16 KiB", "open_cells/16384", "limit_evp_gcm/16384", evp, 85},
       {"seal, cells of 4 KiB", "seal_cells/4096", "limit_ipsec_gcm/4096", bare, 0},
       {"seal, cells of 16 KiB", "seal_cells/16384", "limit_ipsec_gcm/16384", bare, 0},
       {"SHA-256 of leaves", "leaf_digests/", "limit_evp_sha256/", evp, 0},
       {"Merkle root of 2 MiB", "merkle_roots/2097152", "limit_evp_sha256/", evp, 0},
       {"CTR, 4 KiB", "index_ctr/4096", "limit_evp_ctr/4096", evp, 0},
       {"CTR, 64 KiB", "index_ctr/65536", "limit_evp_ctr/65536", evp, 0}});
}
