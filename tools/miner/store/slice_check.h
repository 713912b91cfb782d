// What a slice must prove before it is stored, and what it can prove after: its Merkle root, leaves and
// proofs, over crypto/merkle.h. Pure; any thread.
#pragma once

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"
#include "tools/miner/store/slice_key.h"

namespace cumulus {

// The manifest parses and is signed by the volume; it names this segment; the index, the length and the root
// of `data` are what it says. The root; or invalid (another slice's manifest),
// corrupt, unsupported.
Result<Digest> verify_slice(const SliceKey& key, ByteView manifest, ByteView data);

}  // namespace cumulus
