#include "objectstore/crypto/merkle.h"

#include <algorithm>
#include <bit>
#include <optional>

#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"
#include "objectstore/crypto/digest.h"

namespace cumulus {
namespace {

constexpr std::size_t kNodeInput = 1 + 2 * sizeof(Digest);

// Writes the input of the node over `left` and `right`.
void put_node(const Digest& left, const Digest& right, MutableByteView into) {
  into[0] = 1;
  copy_bytes(left, into.data() + 1);
  copy_bytes(right, into.data() + 1 + sizeof left);
}

Digest node(const Digest& left, const Digest& right) {
  std::array<std::uint8_t, kNodeInput> input;
  put_node(left, right, input);
  return sha256(input);
}

std::size_t split(std::size_t count) { return std::bit_floor(count - 1); }

// Level by level, so that a level's nodes share the lanes. Pairing neighbours and lifting an odd last one
// gives the same tree as splitting at the largest power of two.
Digest top_of(std::span<const Digest> leaves) {
  if (leaves.size() == 1) return leaves.front();
  std::vector<Digest> level(leaves.begin(), leaves.end());
  Bytes inputs(level.size() / 2 * kNodeInput);
  while (level.size() > 1) {
    const std::size_t pairs = level.size() / 2;
    const MutableByteView used = MutableByteView(inputs).first(pairs * kNodeInput);
    for (std::size_t i = 0; i < pairs; ++i)
      put_node(level[2 * i], level[2 * i + 1], used.subspan(i * kNodeInput, kNodeInput));
    if (level.size() % 2 != 0) level[pairs] = level.back();
    level.resize(pairs + level.size() % 2);
    sha256_leaves(used, kNodeInput, std::span(level).first(pairs));
  }
  return level.front();
}

Digest finish(const Digest& top, std::uint64_t length) {
  Bytes input;
  Encoder out(input);
  out.bytes(view_of("cumulus merkle v1"));
  out.u64(length);
  out.u32(kMerkleLeafSize);
  out.bytes(top);
  return sha256(input);
}

// Siblings outside [first, last) within the subtree of leaves that begins at `base`, left before right.
void add_siblings(std::span<const Digest> leaves, std::size_t base, std::size_t first, std::size_t last,
                  Bytes& proof) {
  if (first <= base && base + leaves.size() <= last) return;  // known whole
  if (base + leaves.size() <= first || last <= base) {
    const Digest top = top_of(leaves);
    proof.insert(proof.end(), top.begin(), top.end());
    return;
  }
  const std::size_t left = split(leaves.size());
  add_siblings(leaves.first(left), base, first, last, proof);
  add_siblings(leaves.subspan(left), base + left, first, last, proof);
}

// The same walk from the verifier's side: the subtree's top from known leaves and the proof's siblings.
std::optional<Digest> fold(std::size_t base, std::size_t count, std::size_t first,
                           std::span<const Digest> known, Decoder& proof) {
  const std::size_t last = first + known.size();
  if (first <= base && base + count <= last) return top_of(known.subspan(base - first, count));
  if (base + count <= first || last <= base) {
    const Digest sibling = proof.array<32>();
    if (!proof.ok()) return std::nullopt;
    return sibling;
  }
  const std::size_t left = split(count);
  const auto a = fold(base, left, first, known, proof);
  if (!a) return std::nullopt;
  const auto b = fold(base + left, count - left, first, known, proof);
  if (!b) return std::nullopt;
  return node(*a, *b);
}

}  // namespace

std::vector<Digest> merkle_leaves(ByteView data) {
  constexpr std::size_t kLeafInput = 1 + sizeof(Digest);
  std::vector<Digest> leaves = sha256_leaves(data, kMerkleLeafSize);
  Bytes inputs(leaves.size() * kLeafInput);  // each begins with its 0x00
  for (std::size_t i = 0; i < leaves.size(); ++i) copy_bytes(leaves[i], inputs.data() + i * kLeafInput + 1);
  sha256_leaves(inputs, kLeafInput, leaves);
  return leaves;
}

Digest merkle_root(const std::vector<Digest>& leaves, std::uint64_t length) {
  return finish(leaves.empty() ? Digest{} : top_of(leaves), length);
}

Bytes merkle_proof(const std::vector<Digest>& leaves, std::uint64_t first, std::uint64_t count) {
  CHECK(count >= 1 && first <= leaves.size() && count <= leaves.size() - first);
  Bytes proof;
  add_siblings(leaves, 0, first, first + count, proof);
  return proof;
}

bool merkle_verify(const Digest& root, std::uint64_t length, std::uint64_t first_leaf, ByteView data,
                   ByteView proof) {
  const std::uint64_t count = (length + kMerkleLeafSize - 1) / kMerkleLeafSize;
  if (data.empty() || first_leaf >= count) return false;
  const std::uint64_t begin = first_leaf * kMerkleLeafSize;
  if (data.size() > length - begin) return false;
  // Whole leaves, or up to the end of the slice.
  if (data.size() % kMerkleLeafSize != 0 && begin + data.size() != length) return false;
  const std::vector<Digest> known = merkle_leaves(data);
  Decoder siblings(proof);
  const auto top = fold(0, count, first_leaf, known, siblings);
  return top && siblings.done() && finish(*top, length) == root;
}

}  // namespace cumulus
