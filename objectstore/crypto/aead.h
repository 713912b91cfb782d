// AEAD, suite 1: AES-256-GCM (NIST SP 800-38D) with 16-byte tags. The cipher comes from ipsec-mb, whose
// vector-AES kernels are more than twice as fast as OpenSSL 3.0's; the tag is compared in constant time.
//
// An AeadKey is immutable key material with its schedule set up once: any number of threads may use one at a
// time. Who uses it owns the nonces: never two different plaintexts under one key and nonce (FORMAT.md,
// "Nonce"). Pure.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "objectstore/base/bytes.h"
#include "objectstore/crypto/secret.h"

namespace cumulus {

inline constexpr std::size_t kAeadTagSize = 16;
using Nonce = std::array<std::uint8_t, 12>;

// The nonce of one sealed unit: the group's 64 random bits, then the unit's offset in its segment,
// little-endian.
Nonce make_nonce(std::uint64_t nonce64, std::uint32_t offset);

class AeadKey {
 public:
  explicit AeadKey(const SecretKey& key);
  ~AeadKey();
  AeadKey(const AeadKey&) = delete;
  AeadKey& operator=(const AeadKey&) = delete;

  // out = ciphertext ‖ tag, plain.size() + 16 bytes. `out` may begin where `plain` does, or not overlap it.
  void seal(const Nonce& nonce, ByteView aad, ByteView plain, MutableByteView out) const;
  // False when it does not verify: `out` (sealed.size() - 16 bytes) is then zeros.
  [[nodiscard]] bool open(const Nonce& nonce, ByteView aad, ByteView sealed, MutableByteView out) const;

  // A run of cells: plain is cut into cells of `cell_size` bytes (the last may be shorter), each sealed on
  // its own at offset first_offset + i * (cell_size + 16), without associated data. Sizes match exactly and
  // the last offset fits 32 bits (checked). `plain` and `sealed` do not overlap.
  void seal_cells(std::uint64_t nonce64, std::uint32_t first_offset, std::uint32_t cell_size, ByteView plain,
                  MutableByteView sealed) const;
  // False when a cell does not verify or `sealed` is not exactly as long as the cells of `plain`: `plain` is
  // then unspecified and must not be used.
  [[nodiscard]] bool open_cells(std::uint64_t nonce64, std::uint32_t first_offset, std::uint32_t cell_size,
                                ByteView sealed, MutableByteView plain) const;

 private:
  struct Schedule;
  std::unique_ptr<Schedule> schedule_;
};

}  // namespace cumulus
