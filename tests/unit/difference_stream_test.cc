// The stream of differences: as FORMAT.md writes it, and every way to damage it is noticed.
#include "blockdev/difference_stream.h"

#include <gtest/gtest.h>

namespace cumulus {
namespace {

using Kind = DifferenceFrame::Kind;

SnapshotIdentity identity(std::uint8_t fill, std::string name) {
  SnapshotIdentity one;
  one.volume.bytes.fill(fill);
  one.dataset = 3;
  one.version = fill;
  one.created_at = 1;
  one.name = std::move(name);
  return one;
}

const DifferenceHeader kHeader{identity(1, "a"), identity(2, "b"), 1u << 20};

Bytes sample() {
  DifferenceWriter writer;
  Bytes out;
  writer.begin(out, kHeader);
  writer.data(out, 4096, Bytes{7, 8});
  writer.zero(out, 8192, 4096);
  writer.end(out);
  return out;
}

// What a reader makes of it; the error's kind when it refuses.
struct Read {
  std::vector<Kind> kinds;
  DifferenceHeader header;
  bool ended = false;
  std::optional<ErrorKind> error;
};
Read read_all(ByteView in) {
  Read read;
  DifferenceReader reader;
  const auto take = [&in](std::size_t count) {
    const ByteView part = in.first(std::min(count, in.size()));
    in = in.subspan(part.size());
    return part;
  };
  if (const Status begun = reader.begin(take(kDifferencePreamble)); !begun) {
    read.error = begun.error().kind();
    return read;
  }
  while (!in.empty()) {
    const auto size = reader.frame_size(take(kDifferenceLength));
    if (!size) {
      read.error = size.error().kind();
      return read;
    }
    if (in.size() < *size) return read;  // cut: not ended
    const auto frame = reader.accept(take(*size));
    if (!frame) {
      read.error = frame.error().kind();
      return read;
    }
    if (frame->kind == Kind::header) read.header = frame->header;
    read.kinds.push_back(frame->kind);
  }
  read.ended = reader.ended();
  return read;
}

TEST(DifferenceStream, ComesBackAsItWasWritten) {
  const Read read = read_all(sample());
  EXPECT_FALSE(read.error);
  EXPECT_TRUE(read.ended);
  EXPECT_EQ(read.header, kHeader);
  EXPECT_EQ(read.kinds, (std::vector{Kind::header, Kind::data, Kind::zero, Kind::end}));
}

TEST(DifferenceStream, IsWrittenAsTheFormatSays) {
  DifferenceWriter writer;
  Bytes out;
  SnapshotIdentity end = identity(0, "s");
  writer.begin(out, {std::nullopt, end, 4096});
  writer.end(out);
  EXPECT_EQ(to_hex(out),
            "4344494601000000004000000001000000000000000000000000000000000000000000000000000000000000"
            "000000030000000000000000000000010000000000000001730010000000000000ebd180a033b7369ef2f9a2"
            "b133955b32090000000401000000000000000a870bcf5ae3c40f69a9ba7538ae4de5");
}

TEST(DifferenceStream, EveryFlippedBitIsNoticed) {
  const Bytes good = sample();
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
    const Read read = read_all(bad);
    EXPECT_TRUE(read.error || !read.ended) << "bit " << bit;
  }
}

TEST(DifferenceStream, EveryCutIsNoticed) {
  const Bytes good = sample();
  for (std::size_t length = 0; length < good.size(); ++length) {
    const Read read = read_all(ByteView(good).first(length));
    EXPECT_TRUE(read.error || !read.ended) << length;
  }
}

TEST(DifferenceStream, LeavesNeitherTheDiskNorItsOrder) {
  const auto refused = [](auto&& write) {
    DifferenceWriter writer;
    Bytes out;
    write(writer, out);
    return read_all(out).error == ErrorKind::corrupt;
  };
  EXPECT_TRUE(refused([](DifferenceWriter& w, Bytes& out) {
    w.begin(out, kHeader);
    w.data(out, (1u << 20) - 1, Bytes{1, 2});
  }));
  EXPECT_TRUE(refused([](DifferenceWriter& w, Bytes& out) {
    w.begin(out, kHeader);
    w.zero(out, 4096, ~std::uint64_t{0});
  }));
  EXPECT_TRUE(refused([](DifferenceWriter& w, Bytes& out) {
    w.begin(out, kHeader);
    w.data(out, 4096, Bytes{1, 2});
    w.data(out, 4097, Bytes{1});
  }));
  EXPECT_TRUE(refused([](DifferenceWriter& w, Bytes& out) {
    w.begin(out, kHeader);
    w.end(out);
    w.data(out, 0, Bytes{1});
  }));
  EXPECT_TRUE(refused([](DifferenceWriter& w, Bytes& out) {
    DifferenceHeader empty = kHeader;
    empty.size = 0;
    w.begin(out, empty);
  }));
}

TEST(DifferenceStream, NewerOnesAreRefused) {
  Bytes newer = sample();
  newer[4] = 2;
  EXPECT_EQ(read_all(newer).error, ErrorKind::unsupported);
  newer = sample();
  newer[5] = 1;
  EXPECT_EQ(read_all(newer).error, ErrorKind::unsupported);
}

}  // namespace
}  // namespace cumulus
