// Range proofs as a lying miner sends them: never a crash, and nothing verifies but the slice's own bytes
// with the one proof that belongs to them.
#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"
#include "objectstore/crypto/merkle.h"

namespace cumulus {
namespace {

struct Sample {
  Bytes slice;
  std::vector<Digest> leaves;
  Digest root{};
};

// 13 leaves, the last one short.
const Sample& sample() {
  static const Sample made = [] {
    Sample fresh;
    fresh.slice.resize(12 * kMerkleLeafSize + 100);
    for (std::size_t i = 0; i < fresh.slice.size(); ++i)
      fresh.slice[i] = static_cast<std::uint8_t>(i * 7 % 251);
    fresh.leaves = merkle_leaves(fresh.slice);
    fresh.root = merkle_root(fresh.leaves, fresh.slice.size());
    return fresh;
  }();
  return made;
}

ByteView range_of(std::uint64_t first, std::uint64_t count) {
  const ByteView slice = sample().slice;
  const std::uint64_t begin = first * kMerkleLeafSize;
  return slice.subspan(begin, std::min(count * kMerkleLeafSize, slice.size() - begin));
}

}  // namespace
}  // namespace cumulus

// first leaf u8 | leaves u8 | claimed length - true length i16 | proof
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cumulus;
  if (size < 4) return 0;
  const Sample& known = sample();
  Decoder in({data, size});
  const std::uint64_t place = in.u8();
  const std::uint64_t count = in.u8() % (known.leaves.size() + 1);
  const auto off = static_cast<std::int16_t>(in.u16());
  const ByteView proof = in.bytes(in.remaining());
  // True bytes of some range, at any claimed place of a slice of any claimed length.
  const std::uint64_t first = place % known.leaves.size();
  const ByteView bytes = range_of(first, count);
  const std::uint64_t length =
      known.slice.size() + static_cast<std::uint64_t>(static_cast<std::int64_t>(off));
  const bool accepted = merkle_verify(known.root, length, place, bytes, proof);
  const bool honest =
      place == first && count > 0 && off == 0 &&
      equal(proof, merkle_proof(known.leaves, first, std::min(count, known.leaves.size() - first)));
  CHECK(accepted == honest);
  // Bytes that the input made up are never the slice's.
  CHECK(!merkle_verify(known.root, size, place, {data, size}, proof));
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  using namespace cumulus;
  std::vector<Bytes> seeds;
  for (const auto& [first, count] : {std::pair<std::uint8_t, std::uint8_t>(0, 1), {3, 4}, {12, 1}, {0, 13}}) {
    Bytes seed{first, count, 0, 0};
    const Bytes proof = merkle_proof(sample().leaves, first, count);
    seed.insert(seed.end(), proof.begin(), proof.end());
    seeds.push_back(seed);
  }
  return seeds;
}
