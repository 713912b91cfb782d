// The slice store on a real disk and a real index: what is put comes back, what is refused leaves no trace,
// and what was there is there after a restart, with and without its index.
#include <atomic>
#include <filesystem>
#include <gtest/gtest.h>
#include <thread>

#include "objectstore/io/uring_file_system.h"
#include "tests/fakes/miner_samples.h"
#include "tools/miner/store/rocks_slice_index.h"
#include "tools/miner/store/slice_store.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

// What goes wrong, or waits, below the store.
struct Faults {
  std::string unreadable_path;  // reads that touch this byte of this file fail
  std::uint64_t unreadable_at = 0;
  bool hold_punches = false;
  std::atomic<bool> hold_index = false;
};

class FaultyFile final : public File {
 public:
  FaultyFile(Runtime& runtime, Faults& faults, std::string path, std::unique_ptr<File> file)
      : runtime_(runtime), faults_(faults), path_(std::move(path)), file_(std::move(file)) {}
  Task<Result<std::size_t>> read_at(std::uint64_t offset, MutableByteView into) override {
    const std::uint64_t bad = faults_.unreadable_at;
    if (path_ == faults_.unreadable_path && bad >= offset && bad < offset + into.size())
      co_return fail(ErrorKind::io, "Input/output error");
    co_return co_await file_->read_at(offset, into);
  }
  Task<Status> write_at(std::uint64_t offset, ByteView data) override {
    return file_->write_at(offset, data);
  }
  Task<Status> datasync() override { return file_->datasync(); }
  Status datasync_blocking() override { return file_->datasync_blocking(); }
  Task<Status> allocate(std::uint64_t length) override { return file_->allocate(length); }
  Task<Status> truncate(std::uint64_t length) override { return file_->truncate(length); }
  Task<Status> punch_hole(std::uint64_t offset, std::uint64_t length) override {
    while (faults_.hold_punches) co_await runtime_.sleep_for(std::chrono::milliseconds(1));
    co_return co_await file_->punch_hole(offset, length);
  }
  Result<std::uint64_t> size() override { return file_->size(); }

 private:
  Runtime& runtime_;
  Faults& faults_;
  std::string path_;
  std::unique_ptr<File> file_;
};

class FaultyFiles final : public FileSystem {
 public:
  FaultyFiles(Runtime& runtime, Faults& faults, std::unique_ptr<FileSystem> files)
      : runtime_(runtime), faults_(faults), files_(std::move(files)) {}
  Result<std::unique_ptr<File>> open(const std::string& path, OpenOptions options) override {
    TRY(auto file, files_->open(path, options));
    return std::make_unique<FaultyFile>(runtime_, faults_, path, std::move(file));
  }
  Status create_directories(const std::string& path) override { return files_->create_directories(path); }
  Status rename(const std::string& from, const std::string& to) override { return files_->rename(from, to); }
  Status remove(const std::string& path) override { return files_->remove(path); }
  Result<bool> exists(const std::string& path) override { return files_->exists(path); }
  Result<std::vector<std::string>> list(const std::string& directory) override {
    return files_->list(directory);
  }
  Task<Status> sync_directory(const std::string& path) override { return files_->sync_directory(path); }
  Result<DiskSpace> space(const std::string& path) override { return files_->space(path); }
  std::uint32_t direct_alignment(const std::string& directory) override {
    return files_->direct_alignment(directory);
  }

 private:
  Runtime& runtime_;
  Faults& faults_;
  std::unique_ptr<FileSystem> files_;
};

class SlowIndex final : public SliceIndex {
 public:
  SlowIndex(Faults& faults, std::unique_ptr<SliceIndex> index) : faults_(faults), index_(std::move(index)) {}
  Result<IndexTotals> totals() override { return index_->totals(); }
  Result<std::optional<SliceLocation>> find(const SliceKey& key) override { return index_->find(key); }
  std::optional<std::optional<SliceLocation>> find_cached(const SliceKey& key) override {
    return index_->find_cached(key);
  }
  Result<std::optional<Bytes>> manifest(const SliceKey& key) override { return index_->manifest(key); }
  Result<std::vector<IndexedManifest>> list(const VolumeId& volume, std::optional<SliceId> after,
                                            std::size_t count_max, std::size_t bytes_max) override {
    return index_->list(volume, after, count_max, bytes_max);
  }
  Result<std::vector<IndexedSlice>> page(std::optional<SliceKey> after, std::size_t count_max) override {
    return index_->page(after, count_max);
  }
  Status apply(const IndexBatch& batch) override {
    while (faults_.hold_index) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return index_->apply(batch);
  }
  Status flush() override { return index_->flush(); }
  Status clear() override { return index_->clear(); }

 private:
  Faults& faults_;
  std::unique_ptr<SliceIndex> index_;
};

class MinerStoreTest : public testing::Test {
 protected:
  MinerStoreTest() {
    directory_ = std::filesystem::temp_directory_path() / ("miner_store_" + std::to_string(::getpid()));
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
  }
  ~MinerStoreTest() override { std::filesystem::remove_all(directory_); }

  SliceStoreOptions options() {
    SliceStoreOptions options;
    options.directory = directory_;
    options.secret.fill(7);
    options.capacity = capacity_;
    options.bundle_size = 8 * kMiB;
    options.free_min = kMiB;
    return options;
  }

  Task<Result<std::unique_ptr<SliceStore>>> open() {
    auto index = co_await reactor_.offload([this] { return open_rocks_slice_index(directory_ + "/index"); });
    if (!index) co_return fail(index.error());
    auto slow = std::make_unique<SlowIndex>(faults_, *std::move(index));
    co_return co_await SliceStore::open(reactor_, *files_, std::move(slow), metrics_, options());
  }

  static SliceStore::Put put_of(SliceStore& store, const VolumeId& volume, const SampleSlice& slice,
                                std::uint64_t quota = 1000 * kMiB) {
    SliceStore::Put put;
    put.key = {volume, slice.id};
    put.manifest = slice.manifest;
    put.data = store.buffers().acquire(slice.data.size());
    std::memcpy(put.data->data(), slice.data.data(), slice.data.size());
    put.length = slice.data.size();
    put.quota = quota;
    return put;
  }

  // Runs `body` on an open store and closes it in order.
  void with_store(std::function<Task<void>(SliceStore&)> body) {
    reactor_.run([](MinerStoreTest* test, std::function<Task<void>(SliceStore&)> inner) -> Task<void> {
      auto store = co_await test->open();
      EXPECT_TRUE(store) << (store ? "" : store.error().message());
      if (!store) co_return;
      co_await inner(**store);
      co_await (*store)->close();
    }(this, std::move(body)));
  }

  static Task<void> expect_stored(SliceStore& store, const VolumeId& volume, const SampleSlice& slice) {
    const auto range = co_await store.read({volume, slice.id}, 0, slice.data.size());
    EXPECT_TRUE(range && equal(range->bytes, slice.data)) << (range ? "" : range.error().message());
    const auto manifest = co_await store.manifest({volume, slice.id});
    EXPECT_TRUE(manifest && *manifest == *slice.manifest);
  }

  std::string bundle_path(int number) const {
    return directory_ + "/bundles/0000000" + std::to_string(number) + ".bundle";
  }

  // Waits for it, ten seconds at most.
  Task<bool> comes_true(std::function<bool()> condition) {
    for (int i = 0; i < 1000 && !condition(); ++i) co_await reactor_.sleep_for(std::chrono::milliseconds(10));
    co_return condition();
  }

  // All side by side.
  Task<void> put_all(SliceStore& store, const std::vector<SampleSlice>& slices) {
    TaskGroup puts(reactor_);
    for (const auto& slice : slices) {
      puts.spawn(
          [&]() -> Task<void> { EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), slice))); });
    }
    co_await puts.join();
  }

  // Two bundles and a bit, of small slices; every twentieth, the first one too, is kept.
  void fill_two_bundles(std::vector<SampleSlice>& kept, std::vector<SliceId>& gone) {
    with_store([&](SliceStore& store) -> Task<void> {
      for (std::uint64_t i = 0; i < 400; ++i) {
        auto slice = volume_.slice(i + 1, 0, 50'000);
        EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), slice)));
        if (i % 20 == 0) {
          kept.push_back(std::move(slice));
        } else {
          gone.push_back(slice.id);
        }
      }
    });
    ASSERT_TRUE(std::filesystem::exists(bundle_path(3)));
  }

  // Where the index has a slice.
  static Task<SliceLocation> location_of(SliceStore& store, SliceKey key) {
    const auto rows = co_await store.page(std::nullopt, 100'000);
    EXPECT_TRUE(rows);
    if (rows) {
      for (const auto& row : *rows) {
        if (row.key == key) co_return row.location;
      }
    }
    co_return SliceLocation{};
  }

  // Rots a few bytes of the first bundle, behind the store's back.
  void damage(long offset) {
    const std::string path = bundle_path(1);
    std::FILE* file = std::fopen(path.c_str(), "r+b");
    ASSERT_NE(file, nullptr);
    std::fseek(file, offset, SEEK_SET);
    std::fputs("rot", file);
    std::fclose(file);
  }

  std::string directory_;
  std::uint64_t capacity_ = 1000 * kMiB;
  Metrics metrics_;
  Reactor reactor_{3};
  Faults faults_;
  std::unique_ptr<FileSystem> files_ =
      std::make_unique<FaultyFiles>(reactor_, faults_, make_uring_file_system(reactor_));
  SampleVolume volume_{1};
  SampleVolume other_{2};
};

TEST_F(MinerStoreTest, PutReadRestartReadAndRebuild) {
  std::vector<SampleSlice> slices;
  const std::size_t sizes[] = {160, 5000, 60 * 1024, 60 * 1024 + 1, kMiB, 3 * kMiB + 17};
  for (std::uint64_t i = 0; i < 12; ++i) slices.push_back(volume_.slice(i + 1, i % 2, sizes[i % 6]));
  with_store([&](SliceStore& store) -> Task<void> {
    TaskGroup puts(reactor_);
    for (const auto& slice : slices) {
      puts.spawn([&]() -> Task<void> {
        const Status put = co_await store.put(put_of(store, volume_.id(), slice));
        EXPECT_TRUE(put) << (put ? "" : put.error().message());
      });
    }
    co_await puts.join();
    for (const auto& slice : slices) co_await expect_stored(store, volume_.id(), slice);
    EXPECT_EQ(store.totals().slices, slices.size());
  });
  with_store([&](SliceStore& store) -> Task<void> {
    for (const auto& slice : slices) co_await expect_stored(store, volume_.id(), slice);
  });
  std::filesystem::remove_all(directory_ + "/index");
  with_store([&](SliceStore& store) -> Task<void> {
    for (const auto& slice : slices) co_await expect_stored(store, volume_.id(), slice);
    const auto listed = co_await store.list(volume_.id(), std::nullopt, 1000, kMiB);
    EXPECT_TRUE(listed && listed->size() == slices.size());
    const auto foreign = co_await store.list(other_.id(), std::nullopt, 1000, kMiB);
    EXPECT_TRUE(foreign && foreign->empty());
  });
}

TEST_F(MinerStoreTest, PutIsImmutableIdempotentAndChecked) {
  const auto slice = volume_.slice(1, 0, 100'000);
  const auto other_content = volume_.slice(1, 0, 100'000, 99);
  with_store([&](SliceStore& store) -> Task<void> {
    EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), slice)));
    EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), slice)));
    const Status changed = co_await store.put(put_of(store, volume_.id(), other_content));
    EXPECT_TRUE(!changed && changed.error().kind() == ErrorKind::exists);
    EXPECT_EQ(store.totals().slices, 1u);

    auto flipped = put_of(store, volume_.id(), volume_.slice(2, 0, 100'000));
    flipped.data->data()[4711] ^= 1;
    const Status torn = co_await store.put(std::move(flipped));
    EXPECT_TRUE(!torn && torn.error().kind() == ErrorKind::corrupt);
    auto shorter = put_of(store, volume_.id(), volume_.slice(3, 0, 100'000));
    --shorter.length;
    EXPECT_EQ((co_await store.put(std::move(shorter))).error().kind(), ErrorKind::corrupt);
    // Another volume's manifest under this volume's name.
    EXPECT_EQ((co_await store.put(put_of(store, volume_.id(), other_.slice(4, 0, 1000)))).error().kind(),
              ErrorKind::invalid);
    auto forged = put_of(store, volume_.id(), volume_.slice(5, 0, 1000));
    Bytes bytes = *forged.manifest;
    bytes[bytes.size() - 1] ^= 1;
    forged.manifest = std::make_shared<const Bytes>(bytes);
    EXPECT_EQ((co_await store.put(std::move(forged))).error().kind(), ErrorKind::corrupt);
    EXPECT_EQ(store.totals().slices, 1u);
  });
}

TEST_F(MinerStoreTest, QuotaAndCapacityRefuseAndRemovalGivesBack) {
  capacity_ = 6 * kMiB;
  with_store([&](SliceStore& store) -> Task<void> {
    const auto a = volume_.slice(1, 0, 2 * kMiB);
    EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), a, 3 * kMiB)));
    const auto b = volume_.slice(2, 0, 2 * kMiB);
    const Status over = co_await store.put(put_of(store, volume_.id(), b, 3 * kMiB));
    EXPECT_TRUE(!over && over.error().kind() == ErrorKind::no_space);
    EXPECT_TRUE(co_await store.put(put_of(store, other_.id(), other_.slice(1, 0, 2 * kMiB))));
    const Status full = co_await store.put(put_of(store, other_.id(), other_.slice(2, 0, 2 * kMiB)));
    EXPECT_TRUE(!full && full.error().kind() == ErrorKind::no_space);

    const std::vector<SliceId> gone{a.id, b.id};
    EXPECT_TRUE(co_await store.remove(volume_.id(), gone));
    EXPECT_EQ(store.usage(volume_.id()).slices, 0u);
    EXPECT_EQ((co_await store.read({volume_.id(), a.id}, 0, 1)).error().kind(), ErrorKind::not_found);
    for (int i = 0; i < 100 && store.totals().used > 3 * kMiB; ++i)
      co_await reactor_.sleep_for(std::chrono::milliseconds(10));
    EXPECT_LT(store.totals().used, 3 * kMiB);
    EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), b, 3 * kMiB)));
    co_await expect_stored(store, volume_.id(), b);
  });
}

TEST_F(MinerStoreTest, DeadAndSparseBundlesAreRewritten) {
  with_store([&](SliceStore& store) -> Task<void> {
    std::vector<SliceId> gone;
    std::vector<SampleSlice> kept;
    for (std::uint64_t i = 1; i <= 600; ++i) {
      const auto slice = volume_.slice(i, 0, 50'000);
      EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), slice)));
      if (i % 20 != 0) {
        gone.push_back(slice.id);
      } else {
        kept.push_back(slice);
      }
    }
    const auto before = store.totals();
    EXPECT_TRUE(co_await store.remove(volume_.id(), gone));
    for (int i = 0; i < 300 && store.totals().used > before.used / 2; ++i)
      co_await reactor_.sleep_for(std::chrono::milliseconds(10));
    EXPECT_LT(store.totals().used, before.used / 2);
    EXPECT_LT(store.totals().bundles, before.bundles);
    for (const auto& slice : kept) co_await expect_stored(store, volume_.id(), slice);
  });
  std::filesystem::remove_all(directory_ + "/index");
  with_store([&](SliceStore& store) -> Task<void> {
    EXPECT_EQ(store.totals().slices, 30u);
    co_return;
  });
}

TEST_F(MinerStoreTest, RotIsFoundMarkedAndMendedByPuttingAgain) {
  const auto slice = volume_.slice(1, 0, 200'000);
  with_store([&](SliceStore& store) -> Task<void> {
    EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), slice)));
    EXPECT_TRUE(*co_await store.scrub({volume_.id(), slice.id}));
  });
  damage(50'000);
  with_store([&](SliceStore& store) -> Task<void> {
    const SliceKey key{volume_.id(), slice.id};
    EXPECT_FALSE(*co_await store.scrub(key));
    EXPECT_EQ((co_await store.read(key, 0, 1)).error().kind(), ErrorKind::corrupt);
    const std::vector<SliceId> asked(1, slice.id);
    const auto have = co_await store.have(volume_.id(), asked);
    EXPECT_TRUE(have && !(*have)[0]);
    EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), slice)));
    co_await expect_stored(store, volume_.id(), slice);
    EXPECT_TRUE(*co_await store.scrub(key));
    EXPECT_EQ(store.totals().slices, 1u);
  });
}

// Nobody has looked at it yet: the miner learns of the rot from the very PUT that mends it.
TEST_F(MinerStoreTest, RotThatNobodyHasSeenIsMendedByPuttingAgain) {
  const auto slice = volume_.slice(1, 0, 200'000);
  with_store([&](SliceStore& store) -> Task<void> {
    EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), slice)));
  });
  damage(50'000);
  with_store([&](SliceStore& store) -> Task<void> {
    EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), slice)));
    co_await expect_stored(store, volume_.id(), slice);
    EXPECT_TRUE(*co_await store.scrub({volume_.id(), slice.id}));
    EXPECT_EQ(store.totals().slices, 1u);
  });
}

// The first bundle lives on, so every removal after it is needed, and there is more than a bundle of them.
TEST_F(MinerStoreTest, RemovalsThatAreNeededAreNotRewrittenForEver) {
  const auto old = volume_.slice(1, 0, 6 * kMiB);
  std::vector<SampleSlice> small;
  for (std::uint64_t i = 0; i < 2500; ++i) small.push_back(volume_.slice(i + 2, 0, 160));
  const Counter& commits = metrics_.counter("cumulus_miner_commits_total");
  with_store([&](SliceStore& store) -> Task<void> {
    EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), old)));
    co_await put_all(store, small);
    for (const auto& slice : small) {
      const std::vector<SliceId> one(1, slice.id);
      EXPECT_TRUE(co_await store.remove(volume_.id(), one));
    }
    const std::uint64_t before = commits.value();
    // The sealed bundle of one-record batches is written again, closely packed, and that is all.
    EXPECT_TRUE(co_await comes_true([&] { return !std::filesystem::exists(bundle_path(2)); }));
    co_await reactor_.sleep_for(std::chrono::seconds(1));
    EXPECT_LT(commits.value() - before, 30u);
    EXPECT_TRUE(std::filesystem::exists(bundle_path(1)));
  });
  std::filesystem::remove_all(directory_ + "/index");
  with_store([&](SliceStore& store) -> Task<void> {
    EXPECT_EQ(store.totals().slices, 1u);  // none came back
    // The old bundle goes, and what was kept because of it.
    const std::vector<SliceId> last(1, old.id);
    EXPECT_TRUE(co_await store.remove(volume_.id(), last));
    EXPECT_TRUE(co_await comes_true([&] { return store.totals().bundles == 1; }));
    EXPECT_LT(store.totals().used, kMiB);
  });
}

TEST_F(MinerStoreTest, ABundleWithALostHeadDoesNotHoldUpTheOthers) {
  std::vector<SampleSlice> kept;
  std::vector<SliceId> gone;
  fill_two_bundles(kept, gone);
  damage(4096 + 100);  // the head of the first batch: the first slice is known to the index alone
  with_store([&](SliceStore& store) -> Task<void> {
    EXPECT_TRUE(co_await store.remove(volume_.id(), gone));
    EXPECT_TRUE(co_await comes_true([&] { return !std::filesystem::exists(bundle_path(2)); }));
    EXPECT_TRUE(std::filesystem::exists(bundle_path(1)));
    for (const auto& slice : kept) co_await expect_stored(store, volume_.id(), slice);
  });
}

TEST_F(MinerStoreTest, ASliceThatCannotBeReadDoesNotHoldUpTheOthers) {
  std::vector<SampleSlice> kept;
  std::vector<SliceId> gone;
  fill_two_bundles(kept, gone);
  with_store([&](SliceStore& store) -> Task<void> {
    const SliceKey bad{volume_.id(), kept[1].id};
    const SliceKey behind{volume_.id(), kept[2].id};
    const SliceLocation at = co_await location_of(store, bad);
    EXPECT_EQ(at.data.bundle, 1u);
    EXPECT_EQ((co_await location_of(store, behind)).data.bundle, 1u);
    faults_.unreadable_at = at.data.offset + at.length - 1;
    faults_.unreadable_path = bundle_path(1);
    EXPECT_TRUE(co_await store.remove(volume_.id(), gone));
    EXPECT_TRUE(co_await comes_true([&] { return !std::filesystem::exists(bundle_path(2)); }));
    EXPECT_NE((co_await location_of(store, behind)).data.bundle, 1u);
    const SliceLocation left = co_await location_of(store, bad);
    EXPECT_TRUE(left.rotten && left.data == at.data);
    for (const auto& slice : kept) {
      if (slice.id != bad.slice) co_await expect_stored(store, volume_.id(), slice);
    }
  });
}

// A commit's removals are punched only when the index has forgotten them, whatever is being punched then.
TEST_F(MinerStoreTest, NothingIsPunchedThatTheIndexStillShows) {
  const auto first = volume_.slice(1, 0, 200'000);
  const auto second = volume_.slice(2, 0, 200'000);
  with_store([&](SliceStore& store) -> Task<void> {
    EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), first)));
    EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), second)));
    faults_.hold_punches = true;
    const std::vector<SliceId> one(1, first.id);
    EXPECT_TRUE(co_await store.remove(volume_.id(), one));
    faults_.hold_index = true;
    const Counter& commits = metrics_.counter("cumulus_miner_commits_total");
    const std::uint64_t before = commits.value();
    TaskGroup removal(reactor_);
    removal.spawn([&]() -> Task<void> {
      const std::vector<SliceId> two(1, second.id);
      EXPECT_TRUE(co_await store.remove(volume_.id(), two));
    });
    EXPECT_TRUE(co_await comes_true([&] { return commits.value() != before; }));  // in the bundle
    faults_.hold_punches = false;
    co_await reactor_.sleep_for(std::chrono::milliseconds(100));
    co_await expect_stored(store, volume_.id(), second);
    faults_.hold_index = false;
    co_await removal.join();
    EXPECT_EQ((co_await store.read({volume_.id(), second.id}, 0, 1)).error().kind(), ErrorKind::not_found);
    EXPECT_TRUE(co_await comes_true([&] { return store.totals().used < 200'000; }));
  });
}

TEST_F(MinerStoreTest, RotIsMendedInAVolumeThatIsAtItsQuota) {
  const auto slice = volume_.slice(1, 0, 200'000);
  std::uint64_t quota = 0;
  with_store([&](SliceStore& store) -> Task<void> {
    EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), slice)));
    quota = store.usage(volume_.id()).bytes;
  });
  damage(50'000);
  with_store([&](SliceStore& store) -> Task<void> {
    EXPECT_TRUE(co_await store.put(put_of(store, volume_.id(), slice, quota)));
    co_await expect_stored(store, volume_.id(), slice);
    EXPECT_EQ(store.usage(volume_.id()).bytes, quota);
    const Status over = co_await store.put(put_of(store, volume_.id(), volume_.slice(2, 0, 160), quota));
    EXPECT_TRUE(!over && over.error().kind() == ErrorKind::no_space);
  });
}

}  // namespace
}  // namespace cumulus
