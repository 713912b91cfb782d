// What a received difference may undo, and what it may not: only a reception that never came to its snapshot.
#include "blockdev/flatten.h"
#include "blockdev/image_difference.h"
#include "blockdev/images.h"
#include "tests/unit/volume_world.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kSize = 1u << 20;

Task<Status> put(Volume& volume, DatasetId image, Bytes data) {
  Transaction change;
  change.write({image, kImageObject}, 4096, data);
  CO_TRY_OK(co_await volume.commit(std::move(change)));
  co_return Status();
}

Task<Status> take(Volume& volume, DatasetId image, std::string name) {
  std::vector<Volume::SnapshotTarget> targets;
  targets.push_back({image, std::move(name)});
  co_return co_await volume.create_snapshots(std::move(targets));
}

Task<Result<Bytes>> sent(Volume& volume, std::string older, std::string newer) {
  Bytes stream;
  DifferenceSink sink = [&stream](ByteView bytes) -> Task<Status> {
    stream.insert(stream.end(), bytes.begin(), bytes.end());
    co_return Status();
  };
  std::optional<ImageInstant> base;
  if (!older.empty()) base = ImageInstant{"disk", std::move(older)};
  ImageInstant end{"disk", std::move(newer)};
  Progress progress;
  CO_TRY_OK(co_await send_difference(volume, std::move(base), std::move(end), std::move(sink),
                                     std::move(progress)));
  co_return stream;
}

Task<Status> received(Volume& volume, std::string image, ByteView stream) {
  DifferenceSource source = [stream](MutableByteView into) mutable -> Task<Result<std::size_t>> {
    const std::size_t count = std::min(into.size(), stream.size());
    std::copy_n(stream.begin(), count, into.begin());
    stream = stream.subspan(count);
    co_return count;
  };
  std::function<Status(DatasetId)> writing = [](DatasetId) { return Status(); };
  Progress progress;
  CO_TRY_OK(co_await receive_difference(volume, std::move(image), std::move(source), WallTime{1},
                                        std::move(writing), std::move(progress)));
  co_return Status();
}

Task<std::uint8_t> byte_of(Volume& volume, std::string image, std::uint64_t at = 4096) {
  const DatasetInfo* info = volume.find_dataset(image);
  EXPECT_NE(info, nullptr);
  if (info == nullptr) co_return 0;
  const View head = info->head;
  Bytes one(1);
  const auto got = co_await volume.read(head, kImageObject, at, one);
  EXPECT_TRUE(got.has_value());
  co_return one[0];
}

void expect_kind(const Status& done, ErrorKind kind) {
  EXPECT_FALSE(done.has_value());
  if (done) return;
  EXPECT_EQ(done.error().kind(), kind) << done.error().message();
}

// `disk` with snapshots 1 (bytes 1) and 2 (bytes 2), and both as streams.
struct Source {
  std::unique_ptr<Volume> volume;
  Bytes whole, step;
};
Task<Result<Source>> make_source(World& world, FakeTransport& transport) {
  transport.set_miners(world.network.entries());
  Source source;
  CO_TRY(source.volume, co_await Volume::create(world.parts(transport, "a"), {4, 2, 20}, small_options()));
  Volume& volume = *source.volume;
  CO_TRY(const DatasetId disk, co_await create_image(volume, "disk", kSize, WallTime{1}));
  Bytes first(100, 1);
  Bytes second(100, 2);
  CO_TRY_OK(co_await put(volume, disk, std::move(first)));
  CO_TRY_OK(co_await take(volume, disk, "1"));
  CO_TRY_OK(co_await put(volume, disk, std::move(second)));
  CO_TRY_OK(co_await take(volume, disk, "2"));
  CO_TRY(source.whole, co_await sent(volume, "", "1"));
  CO_TRY(source.step, co_await sent(volume, "1", "2"));
  co_return source;
}

Task<> received_long_ago(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  auto source = co_await make_source(world, transport);
  ASSERT_WELL(source);
  Volume& volume = *source->volume;
  ASSERT_WELL(co_await received(volume, "copy", source->whole));
  const DatasetId copy = volume.find_dataset("copy")->id;

  // Its snapshot removed, and written since: also when it was gone back to before.
  for (const bool back : {false, true}) {
    if (back) {
      ASSERT_WELL(co_await volume.remove_dataset(volume.find_dataset("copy")->id));
      ASSERT_WELL(co_await received(volume, "copy", source->whole));
      ASSERT_WELL(co_await volume.rollback(volume.find_dataset("copy")->id, "1"));
    }
    const DatasetId now = volume.find_dataset("copy")->id;
    ASSERT_WELL(co_await volume.remove_snapshot(now, "1"));
    Bytes mine(100, 9);
    ASSERT_WELL(co_await put(volume, now, std::move(mine)));
    expect_kind(co_await received(volume, "copy", source->whole), ErrorKind::exists);
    EXPECT_EQ(co_await byte_of(volume, "copy"), 9);
    EXPECT_EQ(volume.find_dataset("copy")->id, now);
  }
  EXPECT_EQ(volume.find_dataset(copy), nullptr);

  // The difference, likewise.
  ASSERT_WELL(co_await volume.remove_dataset(volume.find_dataset("copy")->id));
  ASSERT_WELL(co_await received(volume, "copy", source->whole));
  ASSERT_WELL(co_await received(volume, "copy", source->step));
  EXPECT_EQ(co_await byte_of(volume, "copy"), 2);
  const DatasetId now = volume.find_dataset("copy")->id;
  ASSERT_WELL(co_await volume.remove_snapshot(now, "2"));
  Bytes mine(100, 9);
  ASSERT_WELL(co_await put(volume, now, std::move(mine)));
  expect_kind(co_await received(volume, "copy", source->step), ErrorKind::invalid);
  EXPECT_EQ(co_await byte_of(volume, "copy"), 9);
  ASSERT_WELL(co_await volume.close());
  co_await transport.close();
}
TEST(ReceiveDifference, UndoesNothingThatWasWrittenAfterItEnded) { play(received_long_ago); }

Task<> clone_of_received(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  auto source = co_await make_source(world, transport);
  ASSERT_WELL(source);
  Volume& volume = *source->volume;
  ASSERT_WELL(co_await received(volume, "copy", source->whole));
  std::vector<std::string> names{"twin"};
  ASSERT_WELL(co_await volume.clone(volume.find_dataset("copy")->id, "1", std::move(names)));
  const DatasetId twin = volume.find_dataset("twin")->id;
  Bytes mine(100, 9);
  ASSERT_WELL(co_await put(volume, twin, std::move(mine)));
  expect_kind(co_await received(volume, "twin", source->whole), ErrorKind::exists);
  EXPECT_NE(volume.find_dataset(twin), nullptr);
  EXPECT_EQ(co_await byte_of(volume, "twin"), 9);
  // A snapshot that is only called like the base is not the base.
  ASSERT_WELL(co_await take(volume, twin, "1"));
  expect_kind(co_await received(volume, "twin", source->step), ErrorKind::invalid);
  EXPECT_EQ(co_await byte_of(volume, "twin"), 9);
  ASSERT_WELL(co_await volume.close());
  co_await transport.close();
}
TEST(ReceiveDifference, ACloneReceivedNothing) { play(clone_of_received); }

// Cut anywhere, and also between the last mark and the snapshot: the same stream again ends at the snapshot.
Task<> interrupted(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  auto source = co_await make_source(world, transport);
  ASSERT_WELL(source);
  Volume& volume = *source->volume;
  for (const bool whole : {true, false}) {
    const Bytes& stream = whole ? source->whole : source->step;
    for (const bool marked : {false, true}) {
      const std::string name = whole ? format("whole{}", marked) : format("step{}", marked);
      if (!whole) ASSERT_WELL(co_await received(volume, name, source->whole));
      const ByteView cut = ByteView(stream).first(stream.size() - 5);
      expect_kind(co_await received(volume, name, cut), ErrorKind::corrupt);
      const DatasetId image = volume.find_dataset(name)->id;
      if (marked) {
        ImageInstant end{"disk", whole ? "1" : "2"};
        const auto identity = co_await snapshot_identity(volume, std::move(end));
        ASSERT_WELL(identity);
        const ReceivedMark mark{true, image, volume.find_dataset(image)->version, *identity};
        Transaction change;
        const std::string_view called = "received";
        change.set_xattr({image, kImageObject}, Bytes(called.begin(), called.end()), mark.encode());
        ASSERT_WELL(co_await volume.commit(std::move(change)));
      }
      Bytes junk(5000, 9);
      ASSERT_WELL(co_await put(volume, image, std::move(junk)));
      ASSERT_WELL(co_await received(volume, name, stream));
      EXPECT_EQ(co_await byte_of(volume, name), whole ? 1 : 2);
      EXPECT_EQ(co_await byte_of(volume, name, 9000), 0);
    }
  }
  ASSERT_WELL(co_await volume.close());
  co_await transport.close();
}
TEST(ReceiveDifference, AnInterruptedOneIsDoneAgain) { play(interrupted); }

Task<> removed_image(World& world) {
  FakeTransport transport(world.reactor, world.network, 0, world.keys.volume_id());
  auto source = co_await make_source(world, transport);
  ASSERT_WELL(source);
  Volume& volume = *source->volume;
  const auto id = co_await create_image(volume, "gone", kSize, WallTime{1});
  ASSERT_WELL(id);
  ASSERT_WELL(co_await volume.remove_dataset(*id));
  const auto is_gone = [](const auto& result) {
    return !result.has_value() && result.error().kind() == ErrorKind::not_found;
  };
  EXPECT_TRUE(is_gone(co_await image_size(volume, *id)));
  EXPECT_TRUE(is_gone(co_await import_mark(volume, *id)));
  EXPECT_TRUE(is_gone(co_await check_import_done(volume, *id)));
  EXPECT_TRUE(is_gone(co_await resize_image(volume, *id, 2 * kSize, false)));
  EXPECT_TRUE(is_gone(co_await flatten_position(volume, *id)));
  EXPECT_FALSE(co_await set_import_mark(volume, *id, std::nullopt));
  ASSERT_WELL(co_await volume.close());
  co_await transport.close();
}
TEST(Images, WhatWasRemovedMeanwhileIsNotFound) { play(removed_image); }

TEST(ReceivedMark, IsWrittenAsTheFormatSaysAndReadsOlderOnes) {
  SnapshotIdentity end;
  end.dataset = 3;
  end.version = 1;
  end.created_at = 1;
  end.name = "s";
  const ReceivedMark mark{true, 5, 7, end};
  const std::string zeros(64, '0');
  const std::string identity = zeros + "03000000" + "0100000000000000" + "0100000000000000" + "0173";
  const Bytes good = mark.encode();
  EXPECT_EQ(to_hex(good), "435243560201" + std::string("05000000") + "0700000000000000" + identity);
  const auto back = ReceivedMark::decode(good);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(*back, mark);
  for (std::size_t length = 0; length < good.size(); ++length)
    EXPECT_FALSE(ReceivedMark::decode(ByteView(good).first(length)).has_value()) << length;

  Bytes older = good;
  older[4] = 1;
  older.erase(older.begin() + 6, older.begin() + 18);
  const auto old = ReceivedMark::decode(older);
  ASSERT_TRUE(old.has_value());
  EXPECT_EQ(*old, (ReceivedMark{true, 0, 0, end}));
  Bytes newer = good;
  newer[4] = 3;
  const auto refused = ReceivedMark::decode(newer);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().kind(), ErrorKind::unsupported);
}

}  // namespace
}  // namespace cumulus
