// The erasure code against a model of GF(2^8) arithmetic written from the format's text, every erasure
// pattern of the small codes and random ones of the large, ragged ends, and the slice geometry.
#include <algorithm>
#include <array>
#include <bit>
#include <gtest/gtest.h>
#include <random>

#include "objectstore/erasure/codec.h"

namespace cumulus {
namespace {

// Multiplication in GF(2^8) with polynomial 0x11D, bit by bit.
std::uint8_t times(std::uint8_t a, std::uint8_t b) {
  unsigned product = 0;
  unsigned shifted = a;
  for (int bit = 0; bit < 8; ++bit) {
    if ((b >> bit & 1) != 0) product ^= shifted;
    shifted = (shifted << 1) ^ ((shifted & 0x80) != 0 ? 0x11D : 0);
  }
  return static_cast<std::uint8_t>(product);
}

std::uint8_t inverse(std::uint8_t a) {
  for (unsigned b = 1; b < 256; ++b)
    if (times(a, static_cast<std::uint8_t>(b)) == 1) return static_cast<std::uint8_t>(b);
  return 0;
}

// A segment cut into slices, in one memory so that tails lie beside each other as they do in real life.
struct Stripe {
  Stripe(std::size_t length, std::uint8_t k, std::uint8_t m, std::mt19937_64& random)
      : geometry(SliceGeometry::of(length, k, m)), segment(length) {
    for (auto& byte : segment) byte = static_cast<std::uint8_t>(random());
    for (std::uint16_t i = 0; i < k; ++i) {
      const std::size_t begin = std::min<std::size_t>(i * geometry.slice_length, length);
      data.push_back(ByteView(segment).subspan(begin, geometry.stored_length(i)));
    }
    parity.assign(m, Bytes(geometry.slice_length, 0xA5));
    const std::vector<MutableByteView> outs(parity.begin(), parity.end());
    ErasureCode::of(k, m).encode(data, outs);
  }
  ByteView slice(std::uint16_t index) const {
    return index < geometry.k ? data[index] : ByteView(parity[index - geometry.k]);
  }
  // [offset, offset + length) of a slice, as far as it is stored.
  ByteView part(std::uint16_t index, std::uint64_t offset, std::uint64_t length) const {
    const ByteView whole = slice(index);
    const std::uint64_t begin = std::min<std::uint64_t>(offset, whole.size());
    return whole.subspan(begin, std::min<std::uint64_t>(length, whole.size() - begin));
  }
  SliceGeometry geometry;
  Bytes segment;
  std::vector<ByteView> data;
  std::vector<Bytes> parity;
};

// Rebuilds every slice from `present`, whole and over a random range.
void expect_rebuilds(const Stripe& stripe, const std::vector<std::uint16_t>& present,
                     std::mt19937_64& random) {
  const ErasureCode& code = ErasureCode::of(stripe.geometry.k, stripe.geometry.m);
  for (std::uint16_t wanted = 0; wanted < stripe.geometry.slices(); ++wanted) {
    const std::uint64_t slice = stripe.geometry.slice_length;
    const std::uint64_t offset = random() % (slice + 1);
    for (const auto& [from, length] :
         {std::pair<std::uint64_t, std::uint64_t>(0, slice),
          std::pair<std::uint64_t, std::uint64_t>(offset, random() % (slice - offset + 1))}) {
      std::vector<PresentSlice> given;
      for (const std::uint16_t index : present) given.push_back({index, stripe.part(index, from, length)});
      const ByteView truth = stripe.part(wanted, from, length);
      Bytes rebuilt(truth.size(), 0x5A);
      ASSERT_TRUE(code.reconstruct(given, wanted, length, rebuilt));
      ASSERT_TRUE(equal(rebuilt, truth))
          << "slice " << wanted << " at " << from << "+" << length << " of " << stripe.segment.size()
          << " bytes as " << int{stripe.geometry.k} << "+" << int{stripe.geometry.m};
    }
  }
}

// The format: parity row i, column j is the inverse of (k + i) xor j.
TEST(Erasure, ParityIsTheFormats) {
  std::mt19937_64 random(1);
  for (const auto& [k, m] : {std::pair(1, 2), std::pair(2, 1), std::pair(4, 2), std::pair(5, 3),
                             std::pair(10, 4), std::pair(32, 16)}) {
    const Stripe stripe(static_cast<std::size_t>(k) * 64 - 17, static_cast<std::uint8_t>(k),
                        static_cast<std::uint8_t>(m), random);
    for (int i = 0; i < m; ++i)
      for (std::size_t at = 0; at < stripe.geometry.slice_length; ++at) {
        std::uint8_t expected = 0;
        for (int j = 0; j < k; ++j) {
          const ByteView slice = stripe.data[static_cast<std::size_t>(j)];
          if (at < slice.size())
            expected ^= times(inverse(static_cast<std::uint8_t>((k + i) ^ j)), slice[at]);
        }
        ASSERT_EQ(stripe.parity[static_cast<std::size_t>(i)][at], expected) << k << "+" << m << " row " << i;
      }
  }
}

TEST(Erasure, WorkedExample) {
  const std::array<Bytes, 2> data{Bytes{1, 2, 3}, Bytes{4, 5}};  // the second is zero-padded
  std::array<Bytes, 2> parity{Bytes(3), Bytes(3)};
  ErasureCode::of(2, 2).encode(std::array<ByteView, 2>{data[0], data[1]},
                               std::array<MutableByteView, 2>{parity[0], parity[1]});
  EXPECT_EQ(to_hex(parity[0]), "79028f");
  EXPECT_EQ(to_hex(parity[1]), "f67901");
}

TEST(Erasure, EveryErasurePatternOfSmallCodes) {
  std::mt19937_64 random(2);
  for (int k = 1; k <= 5; ++k)
    for (int m = 0; m <= 4; ++m) {
      const Stripe stripe(static_cast<std::size_t>(k) * 192 - random() % 130, static_cast<std::uint8_t>(k),
                          static_cast<std::uint8_t>(m), random);
      for (unsigned mask = 0; mask < 1u << (k + m); ++mask) {
        if (std::popcount(mask) != k) continue;
        std::vector<std::uint16_t> present;
        for (std::uint16_t i = 0; i < k + m; ++i)
          if ((mask >> i & 1) != 0) present.push_back(i);
        std::ranges::shuffle(present, random);
        ASSERT_NO_FATAL_FAILURE(expect_rebuilds(stripe, present, random));
      }
    }
}

TEST(Erasure, RandomCodesLengthsAndPatterns) {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const auto k = static_cast<std::uint8_t>(1 + random() % kDataSlicesMax);
    const auto m = static_cast<std::uint8_t>(random() % (kParitySlicesMax + 1));
    const std::size_t length = random() % 3 == 0 ? 1 + random() % 300 : 1 + random() % 40000;
    const Stripe stripe(length, k, m, random);
    std::vector<std::uint16_t> present(stripe.geometry.slices());
    for (std::uint16_t i = 0; i < present.size(); ++i) present[i] = i;
    std::ranges::shuffle(present, random);
    present.resize(k + random() % (m + 1u));  // k or more
    ASSERT_NO_FATAL_FAILURE(expect_rebuilds(stripe, present, random));
  }
}

TEST(Erasure, FewerThanKDistinctSlicesAreRefused) {
  std::mt19937_64 random(3);
  const Stripe stripe(1000, 3, 2, random);
  Bytes into(64);
  const PresentSlice a{0, stripe.part(0, 0, 64)};
  const PresentSlice b{4, stripe.part(4, 0, 64)};
  const PresentSlice c{3, stripe.part(3, 0, 64)};
  const ErasureCode& code = ErasureCode::of(3, 2);
  EXPECT_FALSE(code.reconstruct({}, 1, 64, into));
  EXPECT_FALSE(code.reconstruct(std::array{a, b}, 1, 64, into));
  EXPECT_FALSE(code.reconstruct(std::array{a, b, a, b}, 1, 64, into));
  EXPECT_TRUE(code.reconstruct(std::array{a, b, a, c}, 1, 64, into));
  EXPECT_TRUE(equal(into, stripe.part(1, 0, 64)));
}

TEST(Geometry, SlicesCoverTheSegmentOnce) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const auto k = static_cast<std::uint8_t>(1 + random() % kDataSlicesMax);
    const std::uint64_t length = seed == 1 ? 0 : random() % (seed % 2 == 0 ? 500 : 10000000);
    const SliceGeometry geometry = SliceGeometry::of(length, k, 3);
    EXPECT_EQ(geometry.slice_length % SliceGeometry::kGranule, 0u);
    EXPECT_GE(geometry.slice_length * k, length);
    EXPECT_LT(geometry.slice_length, (length + k - 1) / k + SliceGeometry::kGranule);
    std::uint64_t total = 0;
    for (std::uint16_t i = 0; i < k; ++i) {
      total += geometry.stored_length(i);
      EXPECT_LE(geometry.stored_length(i), geometry.slice_length);
      if (i > 0 && geometry.stored_length(i) > 0) {
        EXPECT_EQ(geometry.stored_length(static_cast<std::uint16_t>(i - 1)), geometry.slice_length);
      }
    }
    EXPECT_EQ(total, length);
    for (std::uint16_t i = k; i < geometry.slices(); ++i)
      EXPECT_EQ(geometry.stored_length(i), geometry.slice_length);

    const std::uint64_t offset = random() % (length + 1);
    const std::uint64_t want = random() % (length - offset + 1);
    std::uint64_t done = 0;
    for (const SlicePiece& piece : geometry.pieces(offset, want)) {
      EXPECT_LT(piece.slice, k);
      EXPECT_GT(piece.length, 0u);
      EXPECT_LE(piece.offset + piece.length, geometry.stored_length(piece.slice));
      EXPECT_EQ(piece.target_offset, done);
      EXPECT_EQ(piece.slice * geometry.slice_length + piece.offset, offset + done);
      done += piece.length;
    }
    EXPECT_EQ(done, want);
  }
}

}  // namespace
}  // namespace cumulus
