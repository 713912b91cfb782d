// The bundle's bytes: round trips, the worked example of FORMAT.md, and refusal of everything else.
#include <gtest/gtest.h>

#include "tests/fakes/miner_samples.h"
#include "tests/fakes/sample_formats.h"
#include "tools/miner/server/holder_book.h"
#include "tools/miner/store/bundle_format.h"

namespace cumulus {
namespace {

using namespace bundle;

StoreSecret counting_secret() {
  StoreSecret secret;
  for (std::size_t i = 0; i < secret.size(); ++i) secret[i] = static_cast<std::uint8_t>(i);
  return secret;
}

TEST(MinerFormatTest, TheWorkedExampleHolds) {
  Buffer block(kBlock);
  FileHeader header;
  header.number = 7;
  header.encode(counting_secret(), block.view());
  EXPECT_EQ(to_hex(block.view(0, 44)),
            "43554d424e444c312c2364b656310436ebcf68b44f3bf143"
            "0100000007000000000000000000000000000000");
  EXPECT_EQ(FileHeader::decode(counting_secret(), block.view())->number, 7u);
  EXPECT_EQ(FileHeader::decode(StoreSecret{}, block.view()).error().kind(), ErrorKind::corrupt);
}

TEST(MinerFormatTest, AHolderFilesFlippedBitIsDamageAndNotTheFuture) {
  HolderState state;
  state.accepted = sample_superblock();
  const Bytes good = HolderBook::encode_file(state);
  const auto back = HolderBook::decode_file(good);
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(back->encode(), state.encode());
  for (std::size_t at = 0; at < good.size(); ++at) {
    Bytes bytes = good;
    bytes[at] ^= static_cast<std::uint8_t>(1u << at % 8);
    const auto damaged = HolderBook::decode_file(bytes);
    ASSERT_FALSE(damaged) << "byte " << at;
    EXPECT_EQ(damaged.error().kind(), ErrorKind::corrupt) << "byte " << at;
  }
}

TEST(MinerFormatTest, BatchesComeBackAndNothingElseDoes) {
  const StoreSecret secret = counting_secret();
  const SampleVolume volume(1);
  const auto small = volume.slice(1, 0, 5000);
  const auto large = volume.slice(2, 1, 100'000);
  const BundlePosition at{3, 8 * kBlock};
  BatchBuilder builder(secret, at);
  builder.add_put({volume.id(), small.id}, small.root, *small.manifest, small.data);
  builder.add_remove({volume.id(), large.id}, at, {2, 4096}, 100'000);
  builder.add_put({volume.id(), large.id}, large.root, *large.manifest, large.data);
  Buffer head;
  const Batch& made = builder.finish(head);
  EXPECT_LE(made.total_length, builder.size_estimate());
  EXPECT_EQ(made.total_length, head.size() + round_up(large.data.size(), kBlock));

  const auto size = peek_batch(head.view(), at);
  ASSERT_TRUE(size);
  const Bytes meta(head.data(), head.data() + size->meta_length);
  const auto read = decode_batch(secret, meta, at);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->records, made.records);
  EXPECT_TRUE(equal(ByteView(meta).subspan(read->records[0].manifest_offset, small.manifest->size()),
                    *small.manifest));
  EXPECT_TRUE(equal(head.view(read->records[0].data_offset, 5000), small.data));

  EXPECT_FALSE(peek_batch(head.view(), {3, 9 * kBlock}));
  EXPECT_FALSE(peek_batch(head.view(), {4, 8 * kBlock}));
  EXPECT_FALSE(decode_batch(StoreSecret{}, meta, at));
  for (std::size_t i = 0; i < meta.size(); i += 7) {
    Bytes bad = meta;
    bad[i] ^= 0x10;
    EXPECT_FALSE(decode_batch(secret, bad, at)) << "byte " << i;
  }
}

}  // namespace
}  // namespace cumulus
