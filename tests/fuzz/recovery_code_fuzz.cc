// A recovery code as anybody may type it: never a crash; what is accepted is a code whose canonical spelling
// gives the same key.
#include "objectstore/base/check.h"
#include "objectstore/crypto/recovery_code.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cumulus;
  const auto key = decode_recovery_code(text_of({data, size}));
  if (!key) {
    CHECK(key.error().kind() == ErrorKind::invalid && key.error().message().size() < 200);
    return 0;
  }
  const auto again = decode_recovery_code(encode_recovery_code(*key));
  CHECK(again && equal(again->view(), key->view()));
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  using namespace cumulus;
  const std::string code = encode_recovery_code(SecretKey(std::array<std::uint8_t, 32>{1, 2, 3, 4}));
  std::string spaced = code;
  for (char& c : spaced)
    if (c == '-') c = ' ';
  return {{code.begin(), code.end()}, {spaced.begin(), spaced.end()}};
}
