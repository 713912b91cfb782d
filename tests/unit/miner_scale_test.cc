// A hundred thousand small slices: rebuilding the index from the bundles, starting with it, listing and
// random reads take seconds at most, whatever the machine is busy with. Bundles are written by BundleLog
// itself, without the signatures that a put would verify: it is the opening and the index that are measured
// here.
#include <filesystem>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "objectstore/crypto/merkle.h"
#include "objectstore/io/uring_file_system.h"
#include "tests/fakes/miner_samples.h"
#include "tools/miner/store/bundle_log.h"
#include "tools/miner/store/rocks_slice_index.h"
#include "tools/miner/store/slice_store.h"

namespace cumulus {
namespace {

constexpr Sequence kSlices = 100'000;
constexpr std::size_t kSize = 200;
constexpr std::size_t kManifest = 400;

SliceKey key_of(const VolumeId& volume, Sequence sequence) {
  return {volume, {{SegmentKind::log, 1, sequence}, 0}};
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

class MinerScaleTest : public testing::Test {
 protected:
  MinerScaleTest() {
    directory_ = std::filesystem::temp_directory_path() / ("miner_scale_" + std::to_string(::getpid()));
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_ + "/bundles");
    options_.directory = directory_;
    options_.secret.fill(7);
    options_.capacity = 1 << 30;
    options_.bundle_size = 16 << 20;
    options_.free_min = 0;
  }
  ~MinerScaleTest() override { std::filesystem::remove_all(directory_); }

  Task<void> write_bundles() {
    BundleFiles files(*files_, directory_ + "/bundles", options_.secret, 0);
    BundleLog log(reactor_, files, options_.secret, options_.bundle_size, 1);
    Sequence next = 1;
    while (next <= kSlices) {
      std::vector<LogEntry> entries;
      std::vector<Bytes> data;
      std::vector<Bytes> manifests;
      for (; next <= kSlices && entries.size() < 1000; ++next) {
        data.push_back(sample_bytes(kSize, next));
        manifests.push_back(sample_bytes(kManifest, ~next));
        LogEntry entry;
        entry.key = key_of(volume_, next);
        entry.root = merkle_root(data.back());
        entry.manifest = manifests.back();
        entry.data = data.back();
        entries.push_back(entry);
      }
      const auto written = co_await log.write(entries);
      EXPECT_TRUE(written) << (written ? "" : written.error().message());
    }
    co_await log.close();
  }

  // Opens, lists all, reads some; the CPU seconds of opening.
  Task<double> use() {
    const double began = cpu_seconds();
    auto index = co_await reactor_.offload([this] { return open_rocks_slice_index(directory_ + "/index"); });
    EXPECT_TRUE(index);
    auto opened = co_await SliceStore::open(reactor_, *files_, *std::move(index), metrics_, options_);
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().message());
    if (!opened) co_return 0;
    const double opening = cpu_seconds() - began;
    SliceStore& store = **opened;
    EXPECT_EQ(store.totals().slices, kSlices);
    Sequence listed = 0;
    std::optional<SliceId> after;
    for (;;) {
      const auto page = co_await store.list(volume_, after, 1000, 1 << 20);
      EXPECT_TRUE(page);
      if (!page || page->empty()) break;
      for (const auto& row : *page) {
        ++listed;
        EXPECT_EQ(row.key.slice.segment.sequence, listed);
        EXPECT_EQ(row.manifest.size(), kManifest);
      }
      after = page->back().key.slice;
    }
    EXPECT_EQ(listed, kSlices);
    for (int i = 0; i < 500; ++i) {
      const Sequence sequence = 1 + reactor_.random().below(kSlices);
      const auto range = co_await store.read(key_of(volume_, sequence), 0, kSize);
      EXPECT_TRUE(range && equal(range->bytes, sample_bytes(kSize, sequence))) << sequence;
    }
    const auto none = co_await store.read(key_of(volume_, kSlices + 1), 0, 1);
    EXPECT_TRUE(!none && none.error().kind() == ErrorKind::not_found);
    co_await store.close();
    co_return opening;
  }

  std::string directory_;
  SliceStoreOptions options_;
  Metrics metrics_;
  Reactor reactor_{2};
  std::unique_ptr<FileSystem> files_ = make_uring_file_system(reactor_);
  VolumeId volume_ = SampleVolume(1).id();
};

TEST_F(MinerScaleTest, AHundredThousandSlicesStartListAndRead) {
  double rebuilding = 0;
  double starting = 0;
  const auto body = [&]() -> Task<void> {
    co_await write_bundles();
    rebuilding = co_await use();
    starting = co_await use();
  };
  reactor_.run(body());
  RecordProperty("rebuild_cpu_ms", static_cast<int>(rebuilding * 1000));
  RecordProperty("start_cpu_ms", static_cast<int>(starting * 1000));
  // Bounds far above what it takes (half a second and some milliseconds), sanitizers included.
  EXPECT_LT(rebuilding, 20.0);
  EXPECT_LT(starting, 1.0);
  EXPECT_LT(starting, rebuilding);
}

}  // namespace
}  // namespace cumulus
