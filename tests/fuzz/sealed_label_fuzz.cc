// The sealed parts of a superblock from bytes, as if their owner's key had sealed them: never a crash; what
// is accepted seals and opens to the same.
#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"
#include "objectstore/store/sealed_label.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cumulus;
  const auto miners = decode_miners({data, size});
  if (miners) CHECK(decode_miners(encode_miners(*miners)) == *miners);
  const auto writer = decode_writer({data, size});
  if (writer) CHECK(decode_writer(encode_writer(*writer)) == *writer);
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  using namespace cumulus;
  MinerEntry miner;
  miner.address = "10.0.0.1:4433";
  miner.domain = "rack";
  miner.weight = 1.5;
  return {encode_miners({miner, miner}), encode_writer({"me@here", 17})};
}
