// The key space and the rows, as properties; and what once went wrong in the index.
#include "objectstore/index/index.h"

#include <gtest/gtest.h>
#include <random>

#include "objectstore/base/check.h"
#include "objectstore/index/catalogue.h"
#include "objectstore/index/rows.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/sync.h"
#include "objectstore/key_space.h"
#include "tests/fakes/map_engine.h"

namespace cumulus {
namespace {

// --- keys ---

struct Parts {
  DatasetId dataset = 1;
  ObjectId object = 0;
  RowKind kind = RowKind::header;
  Bytes subkey;
  std::uint64_t chunk = 0;
  Version version = 0;

  std::string prefix() const {
    if (kind == RowKind::header) return header_prefix(dataset, object);
    if (kind == RowKind::xattr) return xattr_prefix(dataset, object, subkey);
    if (kind == RowKind::omap) return omap_prefix(dataset, object, subkey);
    return chunk_prefix(dataset, object, chunk);
  }
  auto order() const { return std::tuple(dataset, object, kind, subkey, chunk, ~version); }
};

Parts random_parts(std::mt19937_64& random) {
  Parts parts;
  parts.dataset = random() % 2 == 0 ? 1 + random() % 3 : static_cast<DatasetId>(random() | 1);
  parts.object = random() % 2 == 0 ? random() % 3 : random() & kObjectIdMax;
  parts.kind = static_cast<RowKind>(1 + random() % 4);
  if (parts.kind == RowKind::xattr || parts.kind == RowKind::omap) {
    parts.subkey.resize(random() % 5);
    for (auto& byte : parts.subkey)
      byte = std::array<std::uint8_t, 4>{0, 1, 0xFF, static_cast<std::uint8_t>(random())}[random() % 4];
  }
  if (parts.kind == RowKind::chunk) parts.chunk = random() % 2 == 0 ? random() % 3 : random();
  parts.version = random() % 2 == 0 ? random() % 4 : random();
  return parts;
}

TEST(KeySpace, KeysSortAsTheirParts) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 200000; ++round) {
    const Parts a = random_parts(random);
    Parts b = random_parts(random);
    if (random() % 2 == 0) {
      b.dataset = a.dataset;
      b.object = a.object;
      b.kind = a.kind;
      b.chunk = a.kind == RowKind::chunk ? b.chunk : 0;
      if (a.kind == RowKind::header || a.kind == RowKind::chunk) b.subkey.clear();
      if (a.kind != RowKind::chunk) b.chunk = 0;
    }
    const std::string x = with_version(a.prefix(), a.version);
    const std::string y = with_version(b.prefix(), b.version);
    ASSERT_EQ(x < y, a.order() < b.order());
    ASSERT_EQ(x == y, a.order() == b.order());
    if (a.prefix() != b.prefix()) {  // no row's prefix begins another's
      ASSERT_FALSE(b.prefix().starts_with(a.prefix()));
      ASSERT_FALSE(y < after_prefix(a.prefix()) && y >= a.prefix());
    }
  }
}

TEST(KeySpace, KeysComeApartAgain) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 100000; ++round) {
    const Parts parts = random_parts(random);
    const std::string key = with_version(parts.prefix(), parts.version);
    ParsedKey parsed;
    ASSERT_TRUE(parse_key(key, parsed));
    ASSERT_EQ(parsed.dataset, parts.dataset);
    ASSERT_EQ(parsed.object, parts.object);
    ASSERT_EQ(parsed.kind, parts.kind);
    ASSERT_EQ(parsed.version, parts.version);
    ASSERT_EQ(parsed.prefix, parts.prefix());
    if (parts.kind == RowKind::chunk) {
      ASSERT_EQ(chunk_of_subkey(parsed.subkey), parts.chunk);
    } else if (parts.kind != RowKind::header) {
      ASSERT_EQ(unescape_subkey(parsed.subkey), parts.subkey);
    }
  }
}

// FORMAT.md, "Index keys": the worked example.
TEST(KeySpace, WorkedExample) {
  const std::string key = with_version(omap_prefix(2, 5, view_of(std::string_view("a\0b", 3))), 7);
  EXPECT_EQ(to_hex(view_of(key)),
            "00000002"
            "0000000000000005"
            "03"
            "6100ff62"
            "0000"
            "fffffffffffffff8");
}

// --- rows ---

Piece random_piece(std::mt19937_64& random) {
  Piece piece;
  piece.offset = static_cast<std::uint32_t>(random() % 64);
  piece.length = static_cast<std::uint32_t>(1 + random() % 16);
  piece.kind = static_cast<Piece::Kind>(random() % 3);
  if (piece.kind == Piece::Kind::data) {
    piece.run.segment = {SegmentKind::log, random() % 2, random() % 3};
    piece.run.plain_length = 32;
    piece.run.nonce = random() % 3;
    piece.skip = static_cast<std::uint32_t>(random() % 16);
  }
  return piece;
}
ChunkRow random_row(std::mt19937_64& random, int pieces) {
  ChunkRow row;
  for (int i = 0; i < pieces; ++i) row.put(random_piece(random));
  return row;
}

// Every byte of a row by itself: what it says there, or nothing.
using Spelled = std::vector<
    std::optional<std::tuple<Piece::Kind, std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t>>>;
Spelled spell(const ChunkRow& row) {
  Spelled bytes(96);
  for (const Piece& piece : row.pieces())
    for (std::uint32_t i = 0; i < piece.length; ++i) {
      EXPECT_FALSE(bytes[piece.offset + i].has_value());
      const bool data = piece.kind == Piece::Kind::data;
      bytes[piece.offset + i] = {piece.kind, piece.run.segment.epoch, piece.run.segment.sequence,
                                 piece.run.nonce, data ? piece.skip + i : 0};
    }
  return bytes;
}

TEST(Rows, OverlayingIsBytewiseAndAssociative) {
  std::mt19937_64 random(4);
  for (int round = 0; round < 20000; ++round) {
    const ChunkRow a = random_row(random, static_cast<int>(random() % 8));
    const ChunkRow b = random_row(random, static_cast<int>(random() % 8));
    const ChunkRow c = random_row(random, static_cast<int>(random() % 8));
    ChunkRow ab = a;
    ab.put_all(b);
    Spelled expected = spell(a);
    const Spelled over = spell(b);
    for (std::size_t i = 0; i < expected.size(); ++i)
      if (over[i]) expected[i] = over[i];
    ASSERT_TRUE(spell(ab) == expected) << round;
    ChunkRow filled = b;
    filled.fill_from(a);
    ASSERT_TRUE(spell(filled) == expected) << round;
    ChunkRow left = ab;
    left.put_all(c);
    ChunkRow bc = b;
    bc.put_all(c);
    ChunkRow right = a;
    right.put_all(bc);
    ASSERT_TRUE(spell(left) == spell(right)) << round;
    const auto decoded = ChunkRow::decode(ab.encode());
    ASSERT_TRUE(decoded && *decoded == ab) << round;
    const auto low = static_cast<std::uint32_t>(random() % 60);
    const auto high = low + static_cast<std::uint32_t>(random() % 30);
    const Spelled bytes = spell(ab);
    ASSERT_EQ(ab.covers(low, high), std::all_of(bytes.begin() + low, bytes.begin() + high,
                                                [](auto& b1) { return b1.has_value(); }));
  }
}

TEST(Rows, CutAndAlteredRowsAreRefusedOrRead) {
  std::mt19937_64 random(5);
  const ChunkRow row = random_row(random, 8);
  const Bytes whole = row.encode();
  for (std::size_t cut = 0; cut < whole.size(); ++cut)
    EXPECT_FALSE(ChunkRow::decode(ByteView(whole).first(cut)).has_value()) << cut;
  Bytes longer = whole;
  longer.push_back(0);
  EXPECT_FALSE(ChunkRow::decode(longer).has_value());
  Bytes other_format = whole;
  other_format[0] = 2;
  EXPECT_FALSE(ChunkRow::decode(other_format).has_value());
}

// FORMAT.md, "Rows": the worked example.
TEST(Rows, WorkedExample) {
  ChunkRow row;
  row.put({.offset = 0, .length = 4096, .kind = Piece::Kind::zero});
  Piece data{.offset = 8192, .length = 512, .kind = Piece::Kind::data, .skip = 16, .run = {}};
  data.run = {{SegmentKind::log, 1, 300}, 4096, 4096, 12, 0, 0x1122334455667788};
  row.put(data);
  EXPECT_EQ(to_hex(row.encode()),
            "01"
            "01"
            "05"
            "ac02"
            "8020"
            "8020"
            "0c"
            "8877665544332211"
            "02"
            "00"
            "8020"
            "01"
            "8020"
            "8004"
            "02"
            "10");
}

// --- the index ---

Change create_dataset(DatasetId id, const std::string& name) {
  change::CreateDataset create;
  create.id = id;
  create.name = name;
  create.chunk_log2 = 12;
  create.cell_log2 = 9;
  return create;
}
Change write_at(ObjectRef object, std::uint64_t offset, std::uint32_t length, std::uint64_t number) {
  change::Write write{object, offset, length, 0, {}};
  write.run.segment = {SegmentKind::log, 1, number};
  write.run.plain_length = length;
  write.run.nonce = number;
  return write;
}

Task<std::unique_ptr<Index>> open_index(Runtime& runtime, std::shared_ptr<MapEngineDisk> disk,
                                        Metrics& metrics, std::uint32_t scan_turns = 1) {
  MapEngineOptions engine_options;
  engine_options.late_one_in = 1;
  engine_options.scan_turns = scan_turns;
  auto engine = std::make_unique<MapEngine>(runtime, disk, engine_options);
  IndexOptions options;
  auto index = co_await Index::open(runtime, std::move(engine), options, metrics);
  CHECK(index.has_value());
  co_return std::move(*index);
}

// A clone of a range whose source nobody looked at since the index was opened.
TEST(Index, ReplaysACloneFromAColdSource) {
  Reactor reactor(2);
  const auto body = [&]() -> Task<void> {
    Metrics metrics;
    const auto disk = std::make_shared<MapEngineDisk>();
    auto index = co_await open_index(reactor, disk, metrics);
    std::vector<Change> first{create_dataset(1, "d"), change::Create{{1, 1}, {}}, change::Create{{1, 2}, {}},
                              write_at({1, 1}, 100, 5000, 7)};
    Status done = co_await index->replay(1, first);
    EXPECT_TRUE(done);
    done = co_await index->close();
    EXPECT_TRUE(done);
    index = co_await open_index(reactor, disk, metrics);
    EXPECT_EQ(index->applied(), 1u);
    std::vector<Change> second{change::CloneRange{{1, 1}, {1, 2}, 50, 3000, 6000}};
    done = co_await index->replay(2, second);
    EXPECT_TRUE(done) << done.error().message();
    const View head = index->dataset(1)->head;
    const auto extents = co_await index->extents(head, 2, 0, 9000);
    CHECK(extents.has_value());
    EXPECT_EQ(extents->size(), 3u);
    EXPECT_EQ((*extents)[1].offset, 3050u);
    EXPECT_EQ((*extents)[1].length, 5000u);
    EXPECT_EQ((*extents)[1].run.nonce, 7u);
    done = co_await index->close();
  };
  reactor.run(body());
}

// Each of several truncations in one transaction needs to know another object's chunks.
TEST(Index, PlansOfOneTransactionAreNotMixedUp) {
  Reactor reactor(2);
  const auto body = [&]() -> Task<void> {
    Metrics metrics;
    const auto disk = std::make_shared<MapEngineDisk>();
    auto index = co_await open_index(reactor, disk, metrics);
    std::vector<Change> first{create_dataset(1, "d")};
    for (ObjectId object = 1; object <= 3; ++object) {
      first.push_back(change::Create{{1, object}, {}});
      first.push_back(write_at({1, object}, (object - 1) * 20000, 10000, object));
    }
    Status done = co_await index->replay(1, first);
    EXPECT_TRUE(done);
    done = co_await index->flush();
    EXPECT_TRUE(done);
    std::vector<Change> cuts;
    for (ObjectId object = 1; object <= 3; ++object) cuts.push_back(change::Truncate{{1, object}, 0});
    for (ObjectId object = 1; object <= 3; ++object) cuts.push_back(change::Truncate{{1, object}, 60000});
    for (int attempts = 0; !cuts.empty(); ++attempts) {
      CHECK(attempts < 20);
      done = co_await index->prepare(cuts);
      EXPECT_TRUE(done);
      while (!cuts.empty() && index->stage(cuts.front())) cuts.erase(cuts.begin());
    }
    const View head = index->dataset(1)->head;
    for (ObjectId object = 1; object <= 3; ++object) {
      const auto extents = co_await index->extents(head, object, 0, 60000);
      CHECK(extents.has_value());
      EXPECT_EQ(extents->size(), 1u) << object;
      EXPECT_EQ(extents->front().kind, Extent::Kind::hole) << object;
    }
    done = co_await index->close();
  };
  reactor.run(body());
}

// Two loads of one row that overlap each other and groups being applied: both end, with the newest bytes.
TEST(Index, OverlappingLoadsEnd) {
  Reactor reactor(2);
  const auto body = [&]() -> Task<void> {
    Metrics metrics;
    const auto disk = std::make_shared<MapEngineDisk>();
    auto index = co_await open_index(reactor, disk, metrics);
    std::vector<Change> first{create_dataset(1, "d"), change::Create{{1, 1}, {}}};
    Status done = co_await index->replay(1, first);
    EXPECT_TRUE(done);
    TaskGroup readers(reactor);
    int finished = 0;
    const View head = index->dataset(1)->head;
    for (LogPosition group = 2; group < 60; ++group) {
      for (int reader = 0; reader < 3; ++reader)
        readers.spawn([&, group]() -> Task<void> {
          const auto extents = co_await index->extents(head, 1, group * 4096, 4096);
          CHECK(extents.has_value());
          ++finished;
        });
      std::vector<Change> next{write_at({1, 1}, group * 4096, 4096, group)};
      done = co_await index->replay(group, next);
      EXPECT_TRUE(done);
    }
    co_await readers.join();
    EXPECT_EQ(finished, 58 * 3);
    for (LogPosition group = 2; group < 60; ++group) {
      const auto extents = co_await index->extents(head, 1, group * 4096, 4096);
      CHECK(extents && extents->size() == 1);
      EXPECT_EQ(extents->front().run.nonce, group);
    }
    done = co_await index->close();
  };
  reactor.run(body());
}

// What a listing keeps of the rows that it met is not older than a group that was applied meanwhile.
TEST(Index, ListingsBesideChangesKeepNothingStale) {
  Reactor reactor(2);
  const auto body = [&]() -> Task<void> {
    Metrics metrics;
    const auto disk = std::make_shared<MapEngineDisk>();
    auto index = co_await open_index(reactor, disk, metrics, 20);
    std::vector<Change> first{create_dataset(1, "d"), change::Create{{1, 1}, {}}};
    Status done = co_await index->replay(1, first);
    EXPECT_TRUE(done);
    const View head = index->dataset(1)->head;
    LogPosition group = 2;
    // Nobody has looked at this name: a listing meets it in the engine while it is being changed.
    const auto put = [&](std::uint8_t name, std::uint8_t value) -> Task<void> {
      std::vector<Change> next{change::SetOmap{{1, 1}, Bytes{name}, Bytes{value}}};
      done = co_await index->replay(group++, next);
      EXPECT_TRUE(done);
    };
    for (std::uint8_t name = 0; name < 100; ++name) {
      co_await put(name, 1);
      done = co_await index->flush();
      EXPECT_TRUE(done);
      TaskGroup readers(reactor);
      readers.spawn([&]() -> Task<void> {
        const auto listed = co_await index->omap_list(head, 1, std::nullopt, 1000);
        CHECK(listed.has_value());
      });
      co_await put(name, 2);
      co_await readers.join();
    }
    const auto listed = co_await index->omap_list(head, 1, std::nullopt, 1000);
    CHECK(listed.has_value());
    EXPECT_EQ(listed->size(), 100u);
    for (const OmapEntry& entry : *listed) EXPECT_EQ(entry.value.front(), 2) << int{entry.key.front()};
    done = co_await index->close();
  };
  reactor.run(body());
}

// Garbage collection: every version's bytes move, nothing newer is covered.
TEST(Index, RelocationMovesEveryVersion) {
  Reactor reactor(2);
  const auto body = [&]() -> Task<void> {
    Metrics metrics;
    const auto disk = std::make_shared<MapEngineDisk>();
    auto index = co_await open_index(reactor, disk, metrics);
    std::vector<Change> changes{create_dataset(1, "d"), change::Create{{1, 1}, {}},
                                write_at({1, 1}, 0, 4096, 7), change::CreateSnapshot{1, "s", 0},
                                write_at({1, 1}, 1000, 500, 8)};
    Status done = co_await index->replay(1, changes);
    EXPECT_TRUE(done);
    const cumulus::Run from = std::get<change::Write>(changes[2]).run;
    cumulus::Run to = from;
    to.segment.sequence = 99;
    to.nonce = 99;
    std::vector<Change> move{change::Relocate{{1, 1}, 0, from, to}};
    done = co_await index->replay(2, move);
    EXPECT_TRUE(done);
    const auto now = co_await index->extents(index->dataset(1)->head, 1, 0, 4096);
    const auto then = co_await index->extents(index->dataset(1)->snapshots[0].view, 1, 0, 4096);
    CHECK(now && then && now->size() == 3 && then->size() == 1);
    EXPECT_EQ((*now)[0].run, to);
    EXPECT_EQ((*now)[1].run.nonce, 8u);
    EXPECT_EQ((*now)[2].run, to);
    EXPECT_EQ((*now)[2].skip, 1500u);
    EXPECT_EQ((*then)[0].run, to);
    done = co_await index->close();
  };
  reactor.run(body());
}

// What the engine could not take is told, at the next wait and at every flush.
TEST(Index, TellsThatTheEngineFailed) {
  Reactor reactor(2);
  const auto body = [&]() -> Task<void> {
    Metrics metrics;
    const auto disk = std::make_shared<MapEngineDisk>();
    auto index = co_await open_index(reactor, disk, metrics);
    static_cast<MapEngine&>(index->engine()).fail_from_now({ErrorKind::corrupt, "a damaged block"});
    std::vector<Change> first{create_dataset(1, "d")};
    Status done = co_await index->replay(1, first);
    EXPECT_TRUE(done);
    done = co_await index->flush();
    EXPECT_FALSE(done);
    if (!done) {
      EXPECT_EQ(done.error().kind(), ErrorKind::corrupt);
    }
    done = co_await index->room_for_group(TimePoint::max());
    EXPECT_FALSE(done);
    EXPECT_NE(index->dataset(1), nullptr);  // still readable
    done = co_await index->close();
  };
  reactor.run(body());
}

// A full disk is a passing cause: told while it lasts, and forgotten.
TEST(Index, GoesOnWhenTheDiskHasRoomAgain) {
  Reactor reactor(2);
  const auto body = [&]() -> Task<void> {
    Metrics metrics;
    const auto disk = std::make_shared<MapEngineDisk>();
    auto index = co_await open_index(reactor, disk, metrics);
    static_cast<MapEngine&>(index->engine()).fail_from_now({ErrorKind::no_space, "the disk is full"});
    std::vector<Change> first{create_dataset(1, "d")};
    Status done = co_await index->replay(1, first);
    EXPECT_TRUE(done);
    done = co_await index->flush();
    EXPECT_FALSE(done);
    if (!done) {
      EXPECT_EQ(done.error().kind(), ErrorKind::no_space);
    }
    static_cast<MapEngine&>(index->engine()).heal();
    co_await reactor.sleep_for(std::chrono::milliseconds(1500));
    done = co_await index->flush();
    EXPECT_TRUE(done);
    EXPECT_EQ(index->durable(), 1u);
    done = co_await index->close();
    EXPECT_TRUE(done);
  };
  reactor.run(body());
}

}  // namespace
}  // namespace cumulus
