// AES-256-CTR (NIST SP 800-38A) at any byte offset: for the files of the local index. Privacy only, no
// integrity. Any thread.
#pragma once

#include <array>
#include <cstdint>

#include "objectstore/base/bytes.h"
#include "objectstore/crypto/secret.h"

namespace cumulus {

// Encrypts or decrypts (the same operation) `data`, which stands at `offset` of a stream, in place. The
// counter block of byte 0 is `start`; it counts up big-endian by one every 16 bytes.
void aes_ctr(const SecretKey& key, const std::array<std::uint8_t, 16>& start, std::uint64_t offset,
             MutableByteView data);

}  // namespace cumulus
