// Merkle tree over the 4096-byte leaves of a slice (the last leaf may be shorter): how a slice's bytes, whole
// or in part, are checked against the root in the signed manifest.
//
//   leaf = SHA-256(0x00 ‖ SHA-256(leaf bytes))    node = SHA-256(0x01 ‖ left ‖ right)
//   root = SHA-256("cumulus merkle v1" ‖ length u64 ‖ leaf size u32 ‖ top)
//
// The shape is RFC 6962's: a node over n > 1 leaves splits at the largest power of two below n. Leaf and node
// inputs differ in their first byte; the root binds the length, so one tree is never taken for another. The
// inner hash of a leaf lets many leaves be hashed in place, several at a time. Pure; any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "objectstore/base/bytes.h"

namespace cumulus {

inline constexpr std::size_t kMerkleLeafSize = 4096;

// The leaf digests of a slice's bytes.
std::vector<Digest> merkle_leaves(ByteView data);
// The root over them; `length` is the slice's. No leaves: the root of an empty slice.
Digest merkle_root(const std::vector<Digest>& leaves, std::uint64_t length);
inline Digest merkle_root(ByteView data) { return merkle_root(merkle_leaves(data), data.size()); }

// The siblings that lead from leaves [first, first + count) to the top, in the order that verification takes
// them. count >= 1 and the range lies within the leaves.
Bytes merkle_proof(const std::vector<Digest>& leaves, std::uint64_t first, std::uint64_t count);

// True when `data` is exactly the bytes of the leaves that begin at leaf `first_leaf` of a slice of `length`
// bytes with this root: whole leaves, the slice's last one perhaps shorter. False for anything else, a proof
// too long or short included.
bool merkle_verify(const Digest& root, std::uint64_t length, std::uint64_t first_leaf, ByteView data,
                   ByteView proof);

}  // namespace cumulus
