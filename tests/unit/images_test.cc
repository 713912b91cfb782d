// The notes of an unfinished import and of an unfinished flattening, as FORMAT.md writes them, and what
// damages them.
#include "blockdev/images.h"

#include <gtest/gtest.h>

#include "blockdev/flatten.h"

namespace cumulus {
namespace {

TEST(ImportMark, IsWrittenAsTheFormatSays) {
  const ImportMark mark{1u << 20, 2u << 20, 1};
  const Bytes bytes = mark.encode();
  EXPECT_EQ(to_hex(bytes), "43494d50010000100000000000000020000000000001" + std::string("00000000000000"));
  const auto back = ImportMark::decode(bytes);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(*back, mark);
}

TEST(ImportMark, RefusesWhatItDoesNotKnow) {
  const Bytes good = ImportMark{5, 6, -7}.encode();
  for (std::size_t length = 0; length < good.size(); ++length)
    EXPECT_FALSE(ImportMark::decode(ByteView(good).first(length)).has_value()) << length;
  Bytes longer = good;
  longer.push_back(0);
  EXPECT_FALSE(ImportMark::decode(longer).has_value());
  Bytes newer = good;
  newer[4] = 2;
  const auto refused = ImportMark::decode(newer);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().kind(), ErrorKind::unsupported);
  Bytes other = good;
  other[0] ^= 1;
  EXPECT_FALSE(ImportMark::decode(other).has_value());
}

TEST(FlattenMark, IsWrittenAsTheFormatSaysAndRefusesTheRest) {
  const FlattenMark mark{3, 8u << 20};
  const Bytes good = mark.encode();
  EXPECT_EQ(to_hex(good), "43464c540103000000" + std::string("0000800000000000"));
  const auto back = FlattenMark::decode(good);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(*back, mark);
  for (std::size_t length = 0; length < good.size(); ++length)
    EXPECT_FALSE(FlattenMark::decode(ByteView(good).first(length)).has_value()) << length;
  Bytes longer = good;
  longer.push_back(0);
  EXPECT_FALSE(FlattenMark::decode(longer).has_value());
  Bytes newer = good;
  newer[4] = 2;
  const auto refused = FlattenMark::decode(newer);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().kind(), ErrorKind::unsupported);
}

}  // namespace
}  // namespace cumulus
