// The home file from bytes: never a crash; what is accepted encodes to the same bytes.
#include "objectstore/base/check.h"
#include "objectstore/crypto/digest.h"
#include "objectstore/store/home_file.h"
#include "tests/fakes/sample_formats.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cumulus;
  // Behind a true checksum, or nothing but its comparison would ever be tried.
  Bytes bytes(data, data + size);
  if (size >= sizeof(Digest)) {
    const Digest checksum = sha256(ByteView(bytes).first(size - sizeof(Digest)));
    std::memcpy(bytes.data() + size - sizeof(Digest), checksum.data(), checksum.size());
  }
  const auto record = HomeRecord::decode(bytes);
  if (record) CHECK(record->encode() == bytes);
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  using namespace cumulus;
  HomeRecord record;
  record.volume = sample_volume();
  record.ballot = {3, 4, {}};
  record.reserve({3, 3, {}}, 1000);
  record.reserve({3, 4, {}}, 2000);
  std::vector<std::vector<std::uint8_t>> seeds{record.encode()};
  record.seen = sample_superblock();
  seeds.push_back(record.encode());
  return seeds;
}
