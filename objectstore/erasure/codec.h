// ErasureCode: systematic Reed-Solomon over GF(2^8), k data and m parity slices, any k of which give
// everything back.
//
// The generator matrix is part of the format: the identity above ISA-L's Cauchy matrix
// (gf_gen_cauchy1_matrix), that is parity row i, column j = 1 / ((k + i) xor j) in GF(2^8) with polynomial
// 0x11D. Slices stay readable as long as that is so. Immutable; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/erasure/geometry.h"

namespace cumulus {

inline constexpr std::uint8_t kDataSlicesMax = 32;
inline constexpr std::uint8_t kParitySlicesMax = 16;

// A slice that is there: the bytes of the asked range that it stores; shorter than the range means zeros
// after them.
struct PresentSlice {
  std::uint16_t index = 0;
  ByteView bytes;
};

class ErasureCode {
 public:
  // The code for (k, m), made once and kept: 1 <= k <= 32, m <= 16 (checked).
  static const ErasureCode& of(std::uint8_t k, std::uint8_t m);

  ErasureCode(std::uint8_t k, std::uint8_t m);
  ~ErasureCode();

  // parity.size() == m views of equal length L; data.size() == k views of at most L bytes (zero-padded
  // logically).
  void encode(std::span<const ByteView> data, std::span<const MutableByteView> parity) const;
  // Rebuilds slice `wanted` over a range of `length` bytes from k present slices over the same range, into
  // into.size() <= length bytes. False when fewer than k distinct slices are given.
  [[nodiscard]] bool reconstruct(std::span<const PresentSlice> present, std::uint16_t wanted,
                                 std::uint64_t length, MutableByteView into) const;

 private:
  // Runs `rows` of coefficients over the sources, cutting at the sources' ends so that nothing is copied.
  void run(std::span<const std::uint8_t> coefficients, std::size_t rows, std::span<const ByteView> sources,
           std::span<const MutableByteView> targets) const;
  const std::vector<std::uint8_t>& decode_row(std::span<const std::uint16_t> present,
                                              std::uint16_t wanted) const;
  std::vector<std::uint8_t> make_decode_row(std::span<const std::uint16_t> present,
                                            std::uint16_t wanted) const;

  std::uint8_t k_;
  std::uint8_t m_;
  std::vector<std::uint8_t> matrix_;  // (k + m) x k
};

}  // namespace cumulus
