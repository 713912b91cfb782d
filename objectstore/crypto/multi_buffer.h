// The calling thread's ipsec-mb managers: they are not thread-safe, so each thread has its own. Used only by
// aead.cc, digest.cc and record_cipher.cc.
#pragma once

#define NO_COMPAT_IMB_API_053
#include <intel-ipsec-mb.h>

namespace cumulus {

// With the widest instruction set of this processor: vector AES wants it.
IMB_MGR& cipher_lanes();
// With the instruction set that hashes fastest. Two SHA-NI lanes keep up with sixteen full AVX-512 lanes, and
// are full with two messages.
IMB_MGR& hash_lanes();

}  // namespace cumulus
