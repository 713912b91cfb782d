// Change records from bytes: never a crash; what is accepted encodes to something that means the same.
#include "objectstore/base/check.h"
#include "objectstore/log/change.h"
#include "tests/unit/random_changes.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cumulus;
  const CellArea area{{SegmentKind::log, 1, 5}, 4096, 77};
  const auto decoded = decode_changes({data, size}, area);
  if (!decoded) return 0;
  Bytes again;
  for (const Change& change : *decoded) encode_change(change, [](const Run&) { return 0u; }, again);
  const auto second = decode_changes(again, area);
  CHECK(second && *second == *decoded);
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  using namespace cumulus;
  std::vector<std::vector<std::uint8_t>> seeds;
  std::mt19937_64 random(5);
  for (std::size_t type = 0; type < std::variant_size_v<Change>; ++type) {
    Bytes seed;
    for (int i = 0; i < 3; ++i)
      encode_change(random_change(random, type), [](const Run&) { return 0u; }, seed);
    seeds.push_back(seed);
  }
  return seeds;
}
