#include "objectstore/erasure/codec.h"

#include <algorithm>
#include <array>
#include <isa-l/erasure_code.h>
#include <mutex>

#include "objectstore/base/check.h"

namespace cumulus {
namespace {

constexpr std::size_t kRowsKept = 64;

#if defined(__x86_64__)
[[gnu::target("avx")]] void zero_upper_halves() { __builtin_ia32_vzeroupper(); }
#endif

// ISA-L's AVX kernels return with the upper halves of the vector registers in use. Until somebody clears them
// every legacy SSE instruction of this thread merges with them, SHA-NI's among them: SHA-256 at 1.2 instead
// of 3.0 GiB/s a core (erasure_bench, hash_after_encode).
void leave_vector_code() {
#if defined(__x86_64__)
  static const bool has_avx = __builtin_cpu_supports("avx") != 0;
  if (has_avx) zero_upper_halves();
#endif
}

}  // namespace

const ErasureCode& ErasureCode::of(std::uint8_t k, std::uint8_t m) {
  CHECK(k >= 1 && k <= kDataSlicesMax && m <= kParitySlicesMax);
  static std::array<std::array<std::once_flag, kParitySlicesMax + 1>, kDataSlicesMax + 1> made;
  static std::array<std::array<std::unique_ptr<ErasureCode>, kParitySlicesMax + 1>, kDataSlicesMax + 1> codes;
  std::call_once(made[k][m], [&] { codes[k][m] = std::make_unique<ErasureCode>(k, m); });
  return *codes[k][m];
}

ErasureCode::ErasureCode(std::uint8_t k, std::uint8_t m) : k_(k), m_(m), matrix_(std::size_t{k} * (k + m)) {
  gf_gen_cauchy1_matrix(matrix_.data(), k + m, k);
}

ErasureCode::~ErasureCode() = default;

void ErasureCode::run(std::span<const std::uint8_t> coefficients, std::size_t rows,
                      std::span<const ByteView> sources, std::span<const MutableByteView> targets) const {
  const std::size_t length = targets.empty() ? 0 : targets.front().size();
  for (std::size_t at = 0; at < length;) {
    // From here to the next place where a source ends, the same sources are live; ended ones are zeros and
    // drop out.
    std::size_t until = length;
    std::vector<unsigned char*> live;
    std::vector<std::uint8_t> columns;
    for (std::size_t s = 0; s < sources.size(); ++s) {
      if (sources[s].size() <= at) continue;
      until = std::min(until, sources[s].size());
      live.push_back(const_cast<unsigned char*>(sources[s].data() + at));
      columns.push_back(static_cast<std::uint8_t>(s));
    }
    std::vector<unsigned char*> out;
    for (const MutableByteView& target : targets) out.push_back(target.data() + at);
    if (live.empty()) {
      for (unsigned char* target : out) std::fill_n(target, until - at, 0);
      at = until;
      continue;
    }
    std::vector<std::uint8_t> chosen;
    for (std::size_t row = 0; row < rows; ++row)
      for (const std::uint8_t column : columns) chosen.push_back(coefficients[row * sources.size() + column]);
    std::vector<std::uint8_t> tables(32 * live.size() * rows);
    ec_init_tables(static_cast<int>(live.size()), static_cast<int>(rows), chosen.data(), tables.data());
    ec_encode_data(static_cast<int>(until - at), static_cast<int>(live.size()), static_cast<int>(rows),
                   tables.data(), live.data(), out.data());
    at = until;
  }
  leave_vector_code();
}

void ErasureCode::encode(std::span<const ByteView> data, std::span<const MutableByteView> parity) const {
  CHECK(data.size() == k_ && parity.size() == m_);
  if (m_ == 0) return;
  for (const MutableByteView& slice : parity) CHECK(slice.size() == parity.front().size());
  for (const ByteView& slice : data) CHECK(slice.size() <= parity.front().size());
  run(std::span(matrix_).subspan(std::size_t{k_} * k_), m_, data, parity);
}

// The coefficients that give `wanted` from the k present slices: its generator row times the inverse of
// theirs.
std::vector<std::uint8_t> ErasureCode::make_decode_row(std::span<const std::uint16_t> present,
                                                       std::uint16_t wanted) const {
  std::vector<std::uint8_t> rows(std::size_t{k_} * k_);
  std::vector<std::uint8_t> inverse(rows.size());
  for (std::size_t i = 0; i < k_; ++i)
    std::copy_n(matrix_.begin() + std::ptrdiff_t{present[i]} * k_, k_,
                rows.begin() + static_cast<std::ptrdiff_t>(i * k_));
  // Every square submatrix of a Cauchy code is regular.
  CHECK(gf_invert_matrix(rows.data(), inverse.data(), k_) == 0);
  std::vector<std::uint8_t> row(k_);
  for (std::size_t column = 0; column < k_; ++column)
    for (std::size_t i = 0; i < k_; ++i)
      row[column] = static_cast<std::uint8_t>(
          row[column] ^ gf_mul(matrix_[std::size_t{wanted} * k_ + i], inverse[i * k_ + column]));
  return row;
}

// Inverting costs far more than decoding a cell when k is large, and a degraded read asks for the same row
// again and again: each thread keeps a few rows, the newest of each hash.
const std::vector<std::uint8_t>& ErasureCode::decode_row(std::span<const std::uint16_t> present,
                                                         std::uint16_t wanted) const {
  struct Known {
    std::vector<std::uint16_t> question;
    std::vector<std::uint8_t> row;
  };
  thread_local std::array<Known, kRowsKept> known;
  thread_local std::vector<std::uint16_t> question;
  question.assign({k_, m_, wanted});
  question.insert(question.end(), present.begin(), present.end());
  std::uint64_t hash = 0xCBF29CE484222325u;  // FNV-1a
  for (const std::uint16_t word : question) hash = (hash ^ word) * 0x100000001B3u;
  Known& entry = known[(hash ^ hash >> 32) % kRowsKept];
  if (entry.question != question) {
    entry.row = make_decode_row(present, wanted);
    entry.question = question;
  }
  return entry.row;
}

bool ErasureCode::reconstruct(std::span<const PresentSlice> present, std::uint16_t wanted,
                              std::uint64_t length, MutableByteView into) const {
  CHECK(wanted < k_ + m_ && into.size() <= length);
  std::vector<std::uint16_t> indexes;
  std::vector<ByteView> sources;
  for (const PresentSlice& slice : present) {
    CHECK(slice.index < k_ + m_ && slice.bytes.size() <= length);
    if (indexes.size() == k_ || std::ranges::find(indexes, slice.index) != indexes.end()) continue;
    indexes.push_back(slice.index);
    sources.push_back(slice.bytes.first(std::min(slice.bytes.size(), into.size())));
  }
  if (indexes.size() < k_) return false;
  const std::array<MutableByteView, 1> target{into};
  run(decode_row(indexes, wanted), 1, sources, target);
  return true;
}

}  // namespace cumulus
