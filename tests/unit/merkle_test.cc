// The Merkle tree against a model written from its definition, for every shape up to 70 leaves, and every way
// that a liar could bend a proof.
#include "objectstore/crypto/merkle.h"

#include <gtest/gtest.h>

#include "objectstore/base/codec.h"
#include "objectstore/crypto/digest.h"
#include "tests/unit/crypto_samples.h"

namespace cumulus {
namespace {

constexpr std::size_t kLeaf = kMerkleLeafSize;

Digest hash_of(std::initializer_list<ByteView> parts) {
  Sha256 hash;
  for (const ByteView part : parts) hash.update(part);
  return hash.finish();
}

// RFC 6962, 2.1, with our leaf.
Digest model_top(ByteView data) {
  const std::size_t leaves = (data.size() + kLeaf - 1) / kLeaf;
  if (leaves == 1) return hash_of({hex("00"), hash_of({data})});
  std::size_t left = 1;
  while (left * 2 < leaves) left *= 2;
  return hash_of({hex("01"), model_top(data.first(left * kLeaf)), model_top(data.subspan(left * kLeaf))});
}

Digest model_root(ByteView data) {
  Bytes end;
  Encoder out(end);
  out.u64(data.size());
  out.u32(kLeaf);
  const Digest top = data.empty() ? Digest{} : model_top(data);
  return hash_of({view_of("cumulus merkle v1"), end, top});
}

// A slice of `leaves` leaves, the last one `tail` bytes long.
Bytes slice_of(std::size_t leaves, std::size_t tail, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  return random_bytes(random, (leaves - 1) * kLeaf + tail);
}

ByteView leaf_range(const Bytes& slice, std::size_t first, std::size_t count) {
  const std::size_t begin = first * kLeaf;
  return ByteView(slice).subspan(begin, std::min(count * kLeaf, slice.size() - begin));
}

TEST(Merkle, WorkedExamples) {
  const std::pair<std::size_t, const char*> examples[] = {
      {0, "579b577821d170bc6ac450646de1bc580776b87d56b6f153bb428269dceb3e1d"},
      {1, "32dcf373ceb4c8d944050e848a50ece83378085219c5de2c4103fa137a850f42"},
      {4096, "341d20dc9966f4442c6061f5606cf952936a5f664e74ab6252287308c0c68a56"},
      {10000, "391acc901baf1eca1f1668903eb16d79945320a314e663651bbe3eb901748266"},
      {5 * 4096, "6333c735dc8afad6c011bac9f269ecd940bb781ab29f8f01b0580d178a5720b7"}};
  for (const auto& [size, root] : examples) EXPECT_EQ(to_hex(merkle_root(pattern(size))), root) << size;
}

TEST(Merkle, RootsAreTheModels) {
  EXPECT_EQ(merkle_root(ByteView{}), model_root({}));
  for (std::size_t leaves = 1; leaves <= 70; ++leaves)
    for (const std::size_t tail : {std::size_t{1}, kLeaf - 1, kLeaf}) {
      const Bytes slice = slice_of(leaves, tail, leaves);
      ASSERT_EQ(merkle_root(slice), model_root(slice)) << leaves << " leaves, the last of " << tail;
    }
}

// Every range of every shape verifies, with the right number of siblings: those outside the range on the way
// up.
TEST(Merkle, EveryRangeVerifies) {
  for (std::size_t leaves = 1; leaves <= 70; ++leaves) {
    const Bytes slice = slice_of(leaves, leaves % 3 == 0 ? kLeaf : leaves * 50, leaves);
    const auto digests = merkle_leaves(slice);
    const Digest root = merkle_root(digests, slice.size());
    // Every range of the small ones, and a spread of the large ones'.
    const std::size_t step = leaves <= 20 ? 1 : 7;
    for (std::size_t first = 0; first < leaves; first += step)
      for (std::size_t count = 1; count <= leaves - first; count += step) {
        const Bytes proof = merkle_proof(digests, first, count);
        ASSERT_TRUE(merkle_verify(root, slice.size(), first, leaf_range(slice, first, count), proof))
            << "leaves " << first << "+" << count << " of " << leaves;
        ASSERT_LE(proof.size(), 2 * 7 * sizeof(Digest));
      }
    ASSERT_TRUE(merkle_proof(digests, 0, leaves).empty());
  }
}

TEST(Merkle, NothingElseVerifies) {
  for (const std::uint64_t seed : {1u, 2u, 3u, 4u, 5u, 6u}) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const std::size_t leaves = 2 + random() % 69;
    const Bytes slice = slice_of(leaves, 1 + random() % kLeaf, seed);
    const auto digests = merkle_leaves(slice);
    const Digest root = merkle_root(digests, slice.size());
    const std::size_t first = random() % leaves;
    const std::size_t count = 1 + random() % (leaves - first);
    const ByteView range = leaf_range(slice, first, count);
    const Bytes data(range.begin(), range.end());
    const Bytes proof = merkle_proof(digests, first, count);
    ASSERT_TRUE(merkle_verify(root, slice.size(), first, data, proof));

    for (int i = 0; i < 50; ++i) {
      Bytes changed = data;
      changed[random() % changed.size()] ^= static_cast<std::uint8_t>(1u << random() % 8);
      EXPECT_FALSE(merkle_verify(root, slice.size(), first, changed, proof));
      Digest other = root;
      other[random() % other.size()] ^= static_cast<std::uint8_t>(1u << random() % 8);
      EXPECT_FALSE(merkle_verify(other, slice.size(), first, data, proof));
      if (proof.empty()) continue;
      changed = proof;
      changed[random() % changed.size()] ^= static_cast<std::uint8_t>(1u << random() % 8);
      EXPECT_FALSE(merkle_verify(root, slice.size(), first, data, changed));
    }
    // Proofs and data of the wrong size.
    Bytes longer = proof;
    longer.push_back(0);
    EXPECT_FALSE(merkle_verify(root, slice.size(), first, data, longer));
    longer.resize(proof.size() + sizeof(Digest));
    EXPECT_FALSE(merkle_verify(root, slice.size(), first, data, longer));
    for (std::size_t less = 1; less <= std::min<std::size_t>(proof.size(), 33); ++less)
      EXPECT_FALSE(
          merkle_verify(root, slice.size(), first, data, ByteView(proof).first(proof.size() - less)));
    EXPECT_FALSE(merkle_verify(root, slice.size(), first, ByteView(data).first(data.size() - 1), proof));
    EXPECT_FALSE(merkle_verify(root, slice.size(), first, {}, proof));
    // Another place, another length, beyond the end.
    for (std::size_t place = 0; place < leaves + 3; ++place)
      if (place != first) {
        EXPECT_FALSE(merkle_verify(root, slice.size(), place, data, proof)) << place;
      }
    for (const std::uint64_t length :
         {std::uint64_t{0}, slice.size() - 1, slice.size() + 1, slice.size() * 2, ~std::uint64_t{0}})
      EXPECT_FALSE(merkle_verify(root, length, first, data, proof)) << length;
    EXPECT_FALSE(merkle_verify(root, slice.size(), ~std::uint64_t{0}, data, proof));
    EXPECT_FALSE(merkle_verify(root, slice.size(), ~std::uint64_t{0} / kLeaf, data, proof));
  }
}

// Bytes behind the slice's end are no part of it, even after leaves that verify.
TEST(Merkle, NothingBeyondTheEndVerifies) {
  const Bytes slice = slice_of(3, kLeaf, 8);
  const Digest root = merkle_root(slice);
  Bytes longer = slice;
  ASSERT_TRUE(merkle_verify(root, slice.size(), 0, longer, {}));
  longer.resize(slice.size() + kLeaf);
  EXPECT_FALSE(merkle_verify(root, slice.size(), 0, longer, {}));
  longer.resize(slice.size() + 1);
  EXPECT_FALSE(merkle_verify(root, slice.size(), 0, longer, {}));
  const Bytes proof = merkle_proof(merkle_leaves(slice), 2, 1);
  longer.assign(slice.end() - kLeaf, slice.end());
  ASSERT_TRUE(merkle_verify(root, slice.size(), 2, longer, proof));
  longer.resize(2 * kLeaf);
  EXPECT_FALSE(merkle_verify(root, slice.size(), 2, longer, proof));
}

// A node's two children must not pass for a leaf's bytes, nor a leaf's digest for a node.
TEST(Merkle, NodesAreNotLeaves) {
  const Bytes slice = slice_of(2, kLeaf, 9);
  const auto digests = merkle_leaves(slice);
  Bytes inner(digests[0].begin(), digests[0].end());
  inner.insert(inner.end(), digests[1].begin(), digests[1].end());
  EXPECT_FALSE(merkle_verify(merkle_root(slice), inner.size(), 0, inner, {}));
  EXPECT_FALSE(merkle_verify(merkle_root(slice), slice.size(), 0, inner, {}));
  EXPECT_NE(merkle_root(inner), merkle_root(slice));
}

}  // namespace
}  // namespace cumulus
