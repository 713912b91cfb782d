#include "objectstore/crypto/merkle.h"

#include <bit>
#include <optional>

#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"
#include "objectstore/crypto/digest.h"

namespace cumulus {
namespace {

Digest node(const Digest& left, const Digest& right) {
  std::array<std::uint8_t, 65> input;
  input[0] = 1;
  std::copy(left.begin(), left.end(), input.begin() + 1);
  std::copy(right.begin(), right.end(), input.begin() + 33);
  return sha256(input);
}

std::size_t split(std::size_t count) { return std::bit_floor(count - 1); }

Digest top_of(std::span<const Digest> leaves) {
  if (leaves.size() == 1) return leaves.front();
  const std::size_t left = split(leaves.size());
  return node(top_of(leaves.first(left)), top_of(leaves.subspan(left)));
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
  std::vector<Digest> leaves = sha256_leaves(data, kMerkleLeafSize);
  std::array<std::uint8_t, 33> input;
  input[0] = 0;
  for (Digest& leaf : leaves) {
    std::copy(leaf.begin(), leaf.end(), input.begin() + 1);
    leaf = sha256(input);
  }
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
