// Drives a fuzz target without libFuzzer: the seeds that the target offers, then a bounded number of seeded
// mutations (bit flips, truncations, splices, random bytes). A smoke run for the gate; the long run is the
// fuzz preset's.
#include <cstdint>
#include <cstdlib>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
// Each target defines it: well-formed inputs to start from.
std::vector<std::vector<std::uint8_t>> fuzz_seeds();

int main(int argc, char** argv) {
  const long rounds = argc > 1 ? std::atol(argv[1]) : 20000;
  const auto seeds = fuzz_seeds();
  for (const auto& seed : seeds) LLVMFuzzerTestOneInput(seed.data(), seed.size());
  std::mt19937_64 random(1);
  for (long round = 0; round < rounds; ++round) {
    std::vector<std::uint8_t> input;
    if (!seeds.empty() && random() % 8 != 0) input = seeds[random() % seeds.size()];
    if (input.empty()) input.resize(random() % 512);
    for (unsigned change = random() % 6; change > 0 && !input.empty(); --change) {
      const std::size_t at = random() % input.size();
      switch (random() % 4) {
        case 0:
          input[at] ^= static_cast<std::uint8_t>(1u << random() % 8);
          break;
        case 1:
          input[at] = static_cast<std::uint8_t>(random());
          break;
        case 2:
          input.resize(at);
          break;
        default:
          input.insert(input.begin() + static_cast<std::ptrdiff_t>(at), static_cast<std::uint8_t>(random()));
      }
    }
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  return 0;
}
