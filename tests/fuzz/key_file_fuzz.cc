// Key files from bytes, as they are and under a right checksum (else nothing would get past it): never a
// crash; a clear one that is accepted encodes to the same bytes; the two doors agree on what is wrapped.
#include "objectstore/base/check.h"
#include "objectstore/crypto/digest.h"
#include "objectstore/crypto/key_file.h"

namespace cumulus {
namespace {

void try_one(ByteView bytes) {
  const auto wrapped = key_file_is_wrapped(bytes);
  const auto key = decode_key_file(bytes, {});
  if (!wrapped) {
    CHECK(!key && key.error().kind() == wrapped.error().kind());
    CHECK(wrapped.error().kind() == ErrorKind::corrupt || wrapped.error().kind() == ErrorKind::unsupported);
    return;
  }
  CHECK(*wrapped == !key.has_value());
  if (key) {
    CHECK(equal(encode_key_file(*key), bytes));
    return;
  }
  CHECK(key.error().kind() == ErrorKind::denied);
  // Deriving the key is as slow as the file says: only the cheap ones are tried.
  const std::uint8_t n_log2 = bytes[12];
  if (n_log2 > 5) return;
  const auto opened = decode_key_file(bytes, "passphrase");
  CHECK(opened || opened.error().kind() == ErrorKind::denied || opened.error().kind() == ErrorKind::invalid);
}

}  // namespace
}  // namespace cumulus

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cumulus;
  try_one({data, size});
  Bytes summed(data, data + size);
  if (size >= 32) summed.resize(size - 32);
  const Digest sum = sha256(summed);
  summed.insert(summed.end(), sum.begin(), sum.end());
  try_one(summed);
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  using namespace cumulus;
  const SecretKey master(std::array<std::uint8_t, 32>{9, 8, 7});
  SystemRandom random;
  return {encode_key_file(master), *encode_key_file(master, "passphrase", random, {2, 1, 1})};
}
