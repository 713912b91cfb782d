// Group headers from bytes: what is accepted encodes to the very same bytes.
#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/log/group.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cumulus;
  if (size == 0) return 0;
  const auto decoded = GroupHeader::decode({data + 1, size - 1}, static_cast<std::uint8_t>(data[0] % 17));
  if (!decoded) return 0;
  CHECK(std::ranges::equal(decoded->encode(), std::span(data + 1, size - 1)));
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  using namespace cumulus;
  GroupHeader header;
  header.number = 3;
  header.durable_upto = 2;
  header.records_length = 64;
  header.cells_length = 4016;
  header.total_length = 4608;
  std::vector<std::uint8_t> seed{9};
  for (const std::uint8_t byte : header.encode()) seed.push_back(byte);
  return {seed};
}
