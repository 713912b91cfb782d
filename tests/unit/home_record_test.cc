// What a home remembers of its volume, the sealed label of a record, and who holds it.
#include "tests/unit/store_world.h"

namespace cumulus {
namespace {

TEST(HomeRecord, RoundTripAndRefusals) {
  HomeRecord record;
  record.volume.bytes.fill(3);
  record.ballot = {4, 5, {}};
  record.reserve({4, 4, {}}, 2000);
  record.reserve({4, 5, {}}, 3000);
  Bytes bytes = record.encode();
  auto again = HomeRecord::decode(bytes);
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, record);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    Bytes bad = bytes;
    bad[i] ^= 1;
    const auto damaged = HomeRecord::decode(bad);
    EXPECT_TRUE(!damaged && damaged.error().kind() == ErrorKind::corrupt) << i;
    EXPECT_FALSE(HomeRecord::decode(ByteView(bytes).first(i))) << i;
  }
}

// FORMAT.md, "Home file", has these very bytes.
TEST(HomeRecord, WorkedExample) {
  HomeRecord record;
  record.volume.bytes.fill(3);
  record.ballot = {2, 5, {}};
  record.reserve({2, 5, {}}, 1000);
  EXPECT_EQ(to_hex(record.encode()),
            "434d4f48010000000000000000000000"
            "0303030303030303030303030303030303030303030303030303030303030303"
            "0200000000000000050000000000000000000000000000000000000000000000"
            "01"
            "0200000000000000050000000000000000000000000000000000000000000000e803000000000000"
            "00"
            "21ae768af0cd8163778327ef4d598e53688d536eb10b8e35a881379a88d4b5e4");
  EXPECT_EQ(to_hex(encode_writer({"me@here", 17})), "0100076d6540686572651100000000000000");
}

TEST(HomeRecord, KnowsItsOwnRecords) {
  HomeRecord home;
  home.reserve({1, 1, {}}, 1000);
  Superblock record;
  record.ballot = {1, 1, {}};
  record.version = 1000;
  EXPECT_TRUE(home.wrote(record));
  record.version = 1001;
  EXPECT_FALSE(home.wrote(record));
  // A later opening that never got anything accepted does not make the home forget the earlier one.
  home.reserve({1, 2, {}}, 2000);
  record.version = 7;
  EXPECT_TRUE(home.wrote(record));
  record.ballot = {1, 2, {}};
  home.note_accepted(record);
  EXPECT_EQ(home.authored.size(), 1u);
  record.ballot = {1, 1, {}};
  EXPECT_FALSE(home.wrote(record));
  EXPECT_TRUE(home.rolled_back(record));
  for (std::uint64_t open = 3; open < 100; ++open) home.reserve({1, open, {}}, open * 1000);
  EXPECT_LE(home.authored.size(), HomeRecord::kAuthoredMax);
  record.ballot = {1, 2, {}};
  EXPECT_TRUE(home.wrote(record));
}

TEST(HomeRecord, BallotsGrow) {
  HomeRecord home;
  const InstanceId instance;
  EXPECT_EQ(home.next_ballot({}, false, instance), (Ballot{1, 1, instance}));
  home.ballot = {1, 3, {}};
  EXPECT_EQ(home.next_ballot({}, false, instance), (Ballot{1, 4, instance}));
  EXPECT_EQ(home.next_ballot({1, 9, {}}, false, instance), (Ballot{1, 10, instance}));
  EXPECT_EQ(home.next_ballot({5, 9, {}}, false, instance), (Ballot{1, 4, instance}));  // loses, as it must
  EXPECT_EQ(home.next_ballot({5, 9, {}}, true, instance), (Ballot{6, 1, instance}));
}

TEST(SealedLabel, OpensOnlyWithItsKeyAndLabel) {
  SystemRandom random;
  const KeyTree keys = test_keys();
  MinerEntry miner;
  miner.id.bytes.fill(9);
  miner.address = "10.0.0.1:4433";
  miner.domain = "rack one";
  miner.capacity = 1 << 30;
  miner.weight = 2.5;
  const Bytes sealed = seal_miners(keys, random, {miner, miner});
  const auto opened = open_miners(keys, sealed);
  ASSERT_TRUE(opened);
  EXPECT_EQ(*opened, (std::vector<MinerEntry>{miner, miner}));
  EXPECT_EQ(std::search(sealed.begin(), sealed.end(), miner.domain.begin(), miner.domain.end()),
            sealed.end());
  EXPECT_FALSE(open_writer(keys, sealed));
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    Bytes bad = sealed;
    bad[i] ^= 0x80;
    EXPECT_FALSE(open_miners(keys, bad)) << i;
  }
  const Bytes writer = seal_writer(keys, random, {"me@here", 1'700'000'000'000'000'000});
  Superblock record;
  record.sealed_writer = writer;
  EXPECT_EQ(describe_writer(keys, record), "me@here since 2023-11-14 22:13:20 UTC");
  record.sealed_writer.pop_back();
  EXPECT_EQ(describe_writer(keys, record), "an unknown writer");
}

TEST(Holders, DistinctDomainsFirstAndStable) {
  std::vector<MinerEntry> miners(9);
  for (std::size_t i = 0; i < miners.size(); ++i) {
    miners[i].id.bytes.fill(static_cast<std::uint8_t>(i + 1));
    miners[i].domain = "d" + std::to_string(i / 2);  // five domains
  }
  const auto holders = choose_holders(miners, 1, {});  // 3m+1 = 4
  ASSERT_EQ(holders.size(), 4u);
  EXPECT_EQ(holders[0], miners[0].id);
  EXPECT_EQ(holders[1], miners[2].id);
  EXPECT_EQ(holders[2], miners[4].id);
  EXPECT_EQ(holders[3], miners[6].id);
  // One leaves: the others stay, and the fifth domain comes in.
  miners.erase(miners.begin() + 2);
  const auto after = choose_holders(miners, 1, holders);
  ASSERT_EQ(after.size(), 4u);
  EXPECT_EQ(after[0], holders[0]);
  EXPECT_EQ(after[1], holders[2]);
  EXPECT_EQ(after[2], holders[3]);
  EXPECT_NE(std::ranges::find(miners, after[3], &MinerEntry::id), miners.end());
}

}  // namespace
}  // namespace cumulus
