// The recovery code: a volume's master key as a person writes it down.
//
//   cumulus1-AAAAA-BBBBB-...   59 symbols of Crockford's base32 (no I, L, O, U), in groups of five
//
// The symbols spell 256 bits of key and 39 bits of SHA-256("cumulus recovery code v1" ‖ key), most
// significant first; "1" is the version. Case, spaces and dashes do not matter; O reads as 0, I and L as 1. A
// mistyped or swapped symbol is noticed, all but one time in 2^39. Pure; any thread.
#pragma once

#include <string>
#include <string_view>

#include "objectstore/base/result.h"
#include "objectstore/crypto/secret.h"

namespace cumulus {

std::string encode_recovery_code(const SecretKey& master);
// invalid, saying what is wrong: the beginning, a symbol that is none, the length, the checksum.
Result<SecretKey> decode_recovery_code(std::string_view text);

}  // namespace cumulus
