// Key derivation: HKDF-SHA256 (RFC 5869) for keys from keys, scrypt (RFC 7914) for keys from passphrases.
// Pure; any thread.
#pragma once

#include <cstdint>
#include <string_view>

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"
#include "objectstore/crypto/secret.h"

namespace cumulus {

// HKDF-Extract(salt, input) then Expand(info) to 32 bytes.
SecretKey hkdf(ByteView salt, ByteView input, ByteView info);
// HKDF-Expand alone: `key` is uniform already (or the output of an extraction).
SecretKey hkdf_expand(const SecretKey& key, ByteView info);
// HKDF-Extract and -Expand to at most 255 * 32 bytes (checked).
void hkdf_bytes(ByteView salt, ByteView input, ByteView info, MutableByteView out);

// Cost parameters as stored beside what they protect.
struct ScryptCost {
  std::uint8_t n_log2 = 17;  // 128 MiB with r = 8: about half a second, once a daemon start
  std::uint8_t r = 8;
  std::uint8_t p = 1;
};
// invalid for parameters that RFC 7914 forbids (n_log2 >= 16 r) or that are beyond 1 GiB of memory, r 32 or p
// 16: a key file from elsewhere must not exhaust the machine. no_space when there is no memory for it.
Result<SecretKey> scrypt(std::string_view passphrase, ByteView salt, ScryptCost cost);

}  // namespace cumulus
