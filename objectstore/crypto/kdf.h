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
// HKDF-Expand alone: `key` is a uniform key already.
SecretKey hkdf_expand(const SecretKey& key, ByteView info);
void hkdf_bytes(ByteView salt, ByteView input, ByteView info, MutableByteView out);

// Cost parameters as stored beside what they protect.
struct ScryptCost {
  std::uint8_t n_log2 = 17;  // 128 MiB with r = 8: about half a second, once a daemon start
  std::uint8_t r = 8;
  std::uint8_t p = 1;
};
// invalid for parameters beyond n_log2 22, r 32, p 16 (a hostile key file must not exhaust memory).
Result<SecretKey> scrypt(std::string_view passphrase, ByteView salt, ScryptCost cost);

}  // namespace cumulus
