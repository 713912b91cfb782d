// The miner list read and printed, and addresses taken apart.
#include "netclient/miner_list.h"

#include <gtest/gtest.h>

#include "netclient/address.h"

namespace cumulus {
namespace {

const std::string kIdentity(64, 'a');

TEST(MinerList, ParsesAndPrints) {
  const std::string text =
      "[[miner]]\naddress = \"example.org:7300\"\nidentity = \"" + kIdentity +
      "\"\ncapacity = \"100G\"\nweight = 2\n\n[[miner]]\naddress = \"[::1]:7301\"\nidentity = \"" +
      std::string(64, 'b') + "\"\ndomain = \"rack \\\"1\\\"\"\ncapacity = 5000\n";
  const auto miners = parse_miner_list(text, "miners.toml");
  ASSERT_TRUE(miners) << miners.error().message();
  ASSERT_EQ(miners->size(), 2u);
  EXPECT_EQ((*miners)[0].domain, "example.org");
  EXPECT_EQ((*miners)[0].capacity, 100ull << 30);
  EXPECT_EQ((*miners)[0].weight, 2.0);
  EXPECT_EQ((*miners)[1].address, "[::1]:7301");
  EXPECT_EQ((*miners)[1].domain, "rack \"1\"");
  const auto again = parse_miner_list(print_miner_list(*miners), "printed");
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_EQ(*again, *miners);
}

TEST(MinerList, LongHostNamesAreDomainsToo) {
  const std::string host(253, 'h');
  const auto miners =
      parse_miner_list("[[miner]]\naddress = \"" + host + ":1\"\nidentity = \"" + kIdentity + "\"\n", "x");
  ASSERT_TRUE(miners) << miners.error().message();
  EXPECT_EQ(miners->front().domain, host);
  const auto again = parse_miner_list(print_miner_list(*miners), "printed");
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_EQ(*again, *miners);
}

TEST(MinerList, ErrorsNameTheLine) {
  const std::string good = "[[miner]]\naddress = \"h:1\"\nidentity = \"" + kIdentity + "\"\n";
  const auto expect = [](const std::string& text, std::string_view where, std::string_view what) {
    const auto miners = parse_miner_list(text, "miners.toml");
    ASSERT_FALSE(miners) << text;
    EXPECT_EQ(miners.error().kind(), ErrorKind::invalid);
    EXPECT_TRUE(miners.error().message().starts_with(where)) << miners.error().message();
    EXPECT_NE(miners.error().message().find(what), std::string::npos) << miners.error().message();
  };
  expect("", "miners.toml", "no [[miner]]");
  expect("[[miner]\n", "miners.toml:1:", "");
  expect(good + "[[!\n", "miners.toml:4:", "not TOML");
  expect(good + "weight = [[}]\n" + good, "miners.toml:4:", "not TOML");
  expect(good + "\n# \xc4\xbe is fine here\n''\xc4\xbe\n", "miners.toml:6:", "ASCII");
  expect(good + "domain = \"\"\"\n# \xc4\xbe\n\"\"\"\n", "miners.toml:4:", "in one line");
  expect(good + "domain = \"\\u7777\"\n", "miners.toml:4:", "plain ASCII");
  expect(good + "port = 3\n", "miners.toml:4:", "'port' is not known");
  expect("miners = 3\n", "miners.toml:1:", "'miners' is not known");
  expect("[[miner]]\naddress = \"h:1\"\n", "miners.toml:1:", "no 'identity'");
  expect("[[miner]]\naddress = \"h\"\nidentity = \"" + kIdentity + "\"\n", "miners.toml:2:", "no port");
  expect("[[miner]]\naddress = \"h:1\"\nidentity = \"abc\"\n", "miners.toml:3:", "64 hex digits");
  expect(good + "weight = -1\n", "miners.toml:4:", "'weight'");
  expect(good + "capacity = \"lots\"\n", "miners.toml:4:", "'capacity'");
  expect(good + "capacity = \"9000000000G\"\n", "miners.toml:4:", "'capacity'");
  expect(good + good, "miners.toml:4:", "listed twice");
}

TEST(Address, HostAndPort) {
  EXPECT_EQ(parse_host_port("a.b:80")->host, "a.b");
  EXPECT_EQ(parse_host_port("[::1]:80")->host, "::1");
  EXPECT_EQ(parse_host_port("a:65535")->port, 65535);
  for (const char* bad : {"", "a", ":1", "a:", "a:0", "a:65536", "a:1x", "::1:80", "[]:1"})
    EXPECT_FALSE(parse_host_port(bad)) << bad;
}

}  // namespace
}  // namespace cumulus
