// What the erasure room costs for an 8 MiB segment, beside bare ISA-L over the same blocks in the same run,
// and what rebuilding a small range costs (a degraded read).
#include <benchmark/benchmark.h>
#include <isa-l/erasure_code.h>

#include "objectstore/base/check.h"
#include "objectstore/crypto/digest.h"
#include "objectstore/crypto/merkle.h"
#include "objectstore/erasure/codec.h"
#include "tests/bench/ratios.h"

namespace cumulus {
namespace {

constexpr std::size_t kSegment = 8 << 20;

struct Slices {
  Slices(std::uint8_t k, std::uint8_t m, std::size_t segment)
      : geometry(SliceGeometry::of(segment, k, m)), memory(geometry.slice_length * geometry.slices()) {
    for (std::size_t i = 0; i < memory.size(); ++i)
      memory.data()[i] = static_cast<std::uint8_t>(i * 131 >> 5);
    for (std::uint16_t i = 0; i < geometry.slices(); ++i) {
      const MutableByteView whole = memory.view(i * geometry.slice_length, geometry.slice_length);
      if (i < k)
        data.push_back(whole.first(geometry.stored_length(i)));
      else
        parity.push_back(whole);
    }
  }
  SliceGeometry geometry;
  Buffer memory;
  std::vector<ByteView> data;
  std::vector<MutableByteView> parity;
};

std::uint8_t k_of(const benchmark::State& state) { return static_cast<std::uint8_t>(state.range(0)); }
std::uint8_t m_of(const benchmark::State& state) { return static_cast<std::uint8_t>(state.range(1)); }

void encode(benchmark::State& state) {
  Slices slices(k_of(state), m_of(state), kSegment - 12345);
  const ErasureCode& code = ErasureCode::of(k_of(state), m_of(state));
  for (auto _ : state) code.encode(slices.data, slices.parity);
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kSegment - 12345));
}

void limit_isal_encode(benchmark::State& state) {
  const int k = static_cast<int>(state.range(0));
  const int m = static_cast<int>(state.range(1));
  Slices slices(k_of(state), m_of(state), kSegment - 12345);
  std::vector<unsigned char> matrix(static_cast<std::size_t>(k * (k + m)));
  std::vector<unsigned char> tables(static_cast<std::size_t>(32 * k * m));
  gf_gen_cauchy1_matrix(matrix.data(), k + m, k);
  ec_init_tables(k, m, matrix.data() + k * k, tables.data());
  std::vector<unsigned char*> from;
  std::vector<unsigned char*> to;
  for (std::uint16_t i = 0; i < slices.geometry.slices(); ++i)
    (i < k ? from : to).push_back(slices.memory.data() + i * slices.geometry.slice_length);
  for (auto _ : state)
    ec_encode_data(static_cast<int>(slices.geometry.slice_length), k, m, tables.data(), from.data(),
                   to.data());
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kSegment - 12345));
}

// Rebuilds `range` bytes of data slice 0 from the k other slices.
void degraded_read(benchmark::State& state) {
  const auto range = static_cast<std::size_t>(state.range(2));
  Slices slices(k_of(state), m_of(state), kSegment);
  const ErasureCode& code = ErasureCode::of(k_of(state), m_of(state));
  code.encode(slices.data, slices.parity);
  std::vector<PresentSlice> present;
  for (std::uint16_t i = 1; i <= state.range(0); ++i)
    present.push_back({i, slices.memory.view(i * slices.geometry.slice_length, range)});
  Buffer into(range);
  for (auto _ : state) CHECK(code.reconstruct(present, 0, range, into.view()));
  CHECK(equal(into.view(), slices.data[0].first(range)));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(range));
}

// The hashes that follow an encoding must cost what they cost on their own.
void hash(benchmark::State& state, bool after_encode) {
  Slices slices(4, 2, kSegment);
  const ErasureCode& code = ErasureCode::of(4, 2);
  for (auto _ : state) {
    state.PauseTiming();
    if (after_encode) code.encode(slices.data, slices.parity);
    state.ResumeTiming();
    benchmark::DoNotOptimize(sha256_leaves(slices.memory.view(), kMerkleLeafSize));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(slices.memory.size()));
}
void limit_hash(benchmark::State& state) { hash(state, false); }
void hash_after_encode(benchmark::State& state) { hash(state, true); }

BENCHMARK(limit_hash);
BENCHMARK(hash_after_encode);
BENCHMARK(encode)->Args({2, 1})->Args({4, 2})->Args({8, 3})->Args({16, 4});
BENCHMARK(limit_isal_encode)->Args({2, 1})->Args({4, 2})->Args({8, 3})->Args({16, 4});
BENCHMARK(degraded_read)
    ->Args({4, 2, 4096 + 16})
    ->Args({4, 2, 1 << 20})
    ->Args({16, 4, 4096 + 16})
    ->Args({32, 16, 4096 + 16});

}  // namespace
}  // namespace cumulus

int main(int argc, char** argv) {
  const char* const bare = "bare ISA-L";
  return cumulus::run_benchmarks(
      argc, argv,
      {{"encode 2+1", "encode/2/1", "limit_isal_encode/2/1", bare, 85},
       {"encode 4+2", "encode/4/2", "limit_isal_encode/4/2", bare, 85},
       {"encode 8+3", "encode/8/3", "limit_isal_encode/8/3", bare, 85},
       {"encode 16+4", "encode/16/4", "limit_isal_encode/16/4", bare, 85},
       {"hashes after encoding", "hash_after_encode/", "limit_hash/", "hashes alone", 0}});
}
