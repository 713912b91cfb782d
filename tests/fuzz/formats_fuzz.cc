// Manifest, segment header, superblock, ballot, holder state: whatever bytes come, a parser refuses them or
// returns what encodes to the same bytes. The first byte chooses the parser.
#include <algorithm>
#include <cstdlib>

#include "objectstore/base/check.h"
#include "objectstore/crypto/digest.h"
#include "tests/fakes/sample_formats.h"

namespace cumulus {
namespace {

Bytes encoded(const SegmentHeader& header) {
  Bytes bytes;
  header.encode(bytes);
  return bytes;
}
template <class T>
Bytes encoded(const T& value) {
  return value.encode();
}

template <class T>
void try_parser(ByteView input) {
  const auto decoded = T::decode(input);
  if (decoded) CHECK(equal(encoded(*decoded), input));
}

// With the right check of the segment header at that offset: what is parsed behind it is to be reached.
Bytes checked(ByteView input, std::size_t header_at) {
  constexpr std::size_t kCheck = 8;
  Bytes bytes(input.begin(), input.end());
  if (bytes.size() < header_at + SegmentHeader::kEncodedSize) return bytes;
  const MutableByteView header = MutableByteView(bytes).subspan(header_at, SegmentHeader::kEncodedSize);
  const Digest digest = sha256(header.first(header.size() - kCheck));
  std::copy_n(digest.begin(), kCheck, header.last(kCheck).begin());
  return bytes;
}

void try_all(std::uint8_t which, ByteView input) {
  constexpr std::size_t kHeaderInManifest = 8;
  switch (which % 5) {
    case 0:
      return try_parser<SegmentHeader>(checked(input, 0));
    case 1:
      return try_parser<Manifest>(checked(input, kHeaderInManifest));
    case 2:
      return try_parser<Superblock>(input);
    case 3:
      return try_parser<BallotClaim>(input);
    default:
      return try_parser<HolderState>(input);
  }
}

std::vector<std::uint8_t> seed(std::uint8_t which, const Bytes& bytes) {
  std::vector<std::uint8_t> input{which};
  input.insert(input.end(), bytes.begin(), bytes.end());
  return input;
}

}  // namespace
}  // namespace cumulus

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 0) cumulus::try_all(data[0], {data + 1, size - 1});
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds();
std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  using namespace cumulus;
  HolderState state;
  state.promised = sample_claim();
  state.accepted = sample_superblock();
  return {seed(0, encoded(sample_manifest().header)), seed(1, sample_manifest().encode()),
          seed(2, sample_superblock().encode()), seed(3, sample_claim().encode()), seed(4, state.encode())};
}
