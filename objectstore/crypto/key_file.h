// The key file: the master key on the owner's machine (mode 0600), in clear or wrapped with a passphrase.
//
//   magic "CUMULKEY" | version u16 = 1 | wrapped u8 | reserved u8 = 0 |
//   clear:   master key 32
//   wrapped: scrypt n_log2 u8, r u8, p u8, 0 u8 | salt 16 | nonce 12 | AES-256-GCM(master key) 48, associated
//   data: all before | SHA-256 of all before, 32
//
// Format only: reading and writing the file is the caller's. Pure; any thread.
#pragma once

#include <optional>
#include <string_view>

#include "objectstore/base/random.h"
#include "objectstore/base/result.h"
#include "objectstore/crypto/kdf.h"
#include "objectstore/crypto/secret.h"

namespace cumulus {

inline constexpr std::size_t kKeyFileSizeMax = 1024;

// Holds the key in clear: wipe() it once it is written.
Bytes encode_key_file(const SecretKey& master);
// no_space when scrypt finds no memory; invalid for a cost beyond its bounds.
Result<Bytes> encode_key_file(const SecretKey& master, std::string_view passphrase, Random& random,
                              ScryptCost cost = {});

// True when a passphrase is needed. corrupt when this is no key file or a damaged one, unsupported when it is
// of another version.
Result<bool> key_file_is_wrapped(ByteView bytes);
// Besides: denied when the passphrase is wrong, or none is given for a wrapped file. A passphrase given for a
// file in clear is ignored.
Result<SecretKey> decode_key_file(ByteView bytes, std::optional<std::string_view> passphrase);

}  // namespace cumulus
