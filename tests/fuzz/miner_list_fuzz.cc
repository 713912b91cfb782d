// miners.toml: whatever text comes, it is refused with an error that names the file, or prints and parses
// back to the same list.
#include "netclient/miner_list.h"
#include "objectstore/base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cumulus;
  const auto miners = parse_miner_list({reinterpret_cast<const char*>(data), size}, "fuzz.toml");
  if (!miners) {
    CHECK(miners.error().message().starts_with("fuzz.toml"));
    return 0;
  }
  const auto again = parse_miner_list(print_miner_list(*miners), "printed");
  CHECK(again && *again == *miners);
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds();
std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  const std::string text = "[[miner]]\naddress = \"h:1\"\nidentity = \"" + std::string(64, 'a') +
                           "\"\ndomain = \"d\"\ncapacity = \"1G\"\nweight = 1.5\n";
  const std::string asserts = "hst =[[}in";               // what toml++ asserts on
  const std::string undefined = "\"\"\"\n#\xef\xb9\xbf";  // and letters that it does not know
  return {{text.begin(), text.end()}, {asserts.begin(), asserts.end()}, {undefined.begin(), undefined.end()}};
}
