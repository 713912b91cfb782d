// What is stored for files and directories: both ways, and strictly; access control lists and modes.
#include <gtest/gtest.h>

#include "fs/acl.h"
#include "fs/records.h"

namespace cumulus {
namespace {

Inode some_inode() {
  Inode inode;
  inode.mode = 0100644;
  inode.uid = 1000;
  inode.gid = 4'000'000'000u;
  inode.nlink = 2;
  inode.allocated = 1ull << 40;
  inode.holes = true;
  inode.atime = -1;
  inode.mtime = 1'700'000'000'123'456'789;
  return inode;
}

TEST(FsRecords, inode_both_ways) {
  const Inode inode = some_inode();
  const Bytes bytes = inode.encode();
  const auto back = Inode::decode(bytes);
  ASSERT_TRUE(back.has_value()) << back.error().message();
  EXPECT_EQ(*back, inode);
  Inode plain;
  plain.mode = 0100644;
  plain.nlink = 1;
  EXPECT_LE(plain.encode().size(), 60u);
}

TEST(FsRecords, inode_is_strict) {
  const Bytes bytes = some_inode().encode();
  for (std::size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(Inode::decode(ByteView(bytes).first(size)).has_value()) << size;
  Bytes longer = bytes;
  longer.push_back(0);
  EXPECT_FALSE(Inode::decode(longer).has_value());
  Bytes newer = bytes;
  newer[0] = 2;
  const auto refused = Inode::decode(newer);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().kind(), ErrorKind::unsupported);
  Bytes flagged = bytes;
  flagged[1] = 2;
  EXPECT_FALSE(Inode::decode(flagged).has_value());
}

TEST(FsRecords, entry_worked_example) {
  EntryRecord entry;
  entry.object = 300;
  entry.type = 8;
  entry.name = "a";
  EXPECT_EQ(to_hex(entry.encode()), "ac020861");
  const auto back = EntryRecord::decode(entry.encode());
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(*back, entry);
  EXPECT_TRUE(EntryRecord::decode(EntryRecord().encode()).has_value());
  EXPECT_FALSE(EntryRecord::decode({}).has_value());
  entry.name.clear();
  EXPECT_FALSE(EntryRecord::decode(entry.encode()).has_value());
  entry.name = std::string(256, 'n');
  EXPECT_FALSE(EntryRecord::decode(entry.encode()).has_value());
}

// The reference vectors of the SipHash paper: key 00..0f, message 00..0e gives a129ca6149be45e5.
TEST(FsRecords, cookie_is_siphash) {
  NameSalt salt;
  for (std::size_t i = 0; i < salt.size(); ++i) salt[i] = static_cast<std::uint8_t>(i);
  std::string message;
  for (char c = 0; c < 15; ++c) message.push_back(c);
  EXPECT_EQ(cookie_of(salt, message), 0xa129ca6149be45e5u >> 1);
  const auto back = cookie_of_key(cookie_key(0x0102030405060708u));
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(*back, 0x0102030405060708u);
  EXPECT_EQ(to_hex(cookie_key(0x0102030405060708u)), "0102030405060708");
  EXPECT_FALSE(cookie_of_key(Bytes(7)).has_value());
}

Bytes acl_bytes(std::initializer_list<std::array<std::uint32_t, 3>> items) {
  Bytes bytes = {2, 0, 0, 0};
  for (const auto& [tag, permissions, id] : items) {
    for (const std::uint32_t value : {tag, permissions}) {
      bytes.push_back(static_cast<std::uint8_t>(value));
      bytes.push_back(0);
    }
    for (unsigned shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<std::uint8_t>(id >> shift));
  }
  return bytes;
}

TEST(FsAcl, goes_with_the_mode) {
  const std::uint32_t nobody = ~0u;
  const Bytes bytes =
      acl_bytes({{1, 6, nobody}, {2, 4, 1000}, {4, 4, nobody}, {16, 6, nobody}, {32, 0, nobody}});
  auto acl = Acl::decode(bytes);
  ASSERT_TRUE(acl.has_value()) << acl.error().message();
  EXPECT_EQ(acl->encode(), bytes);
  EXPECT_TRUE(acl->is_more_than_a_mode());
  EXPECT_EQ(acl->mode_with(0100000), 0100660u) << "the group's bits of the mode are the mask";
  acl->set_mode(0741);
  EXPECT_EQ(acl->mode_with(0), 0741u);
  auto inherited = Acl::decode(bytes);
  EXPECT_EQ(inherited->restrict_to(0100644), 0100640u);
}

TEST(FsAcl, what_is_none_is_refused) {
  const std::uint32_t nobody = ~0u;
  EXPECT_FALSE(Acl::decode({}).has_value());
  EXPECT_FALSE(Acl::decode(acl_bytes({})).has_value());
  EXPECT_FALSE(Acl::decode(acl_bytes({{1, 8, nobody}, {4, 4, nobody}, {32, 0, nobody}})).has_value());
  EXPECT_FALSE(
      Acl::decode(acl_bytes({{1, 6, nobody}, {3, 4, nobody}, {4, 4, nobody}, {32, 0, nobody}})).has_value());
  Bytes cut = acl_bytes({{1, 6, nobody}, {4, 4, nobody}, {32, 0, nobody}});
  cut.pop_back();
  EXPECT_FALSE(Acl::decode(cut).has_value());
}

}  // namespace
}  // namespace cumulus
