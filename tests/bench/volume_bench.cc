// What one small operation of the heart costs: CPU of the reactor thread and of all threads for random 4 KiB
// commits into an image, and for random 4 KiB reads of it: from memory, from the page cache, and by way of
// read(). Real disk, index and log; the miners are in memory, so pushing costs what erasure code and hashing
// cost, but no TLS.
//
//   volume_bench [directory]    beside each figure: one AES-256-GCM pass over 4 KiB on this machine
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <unistd.h>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/aead.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/index/rocksdb_engine.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/sync.h"
#include "objectstore/io/uring_file_system.h"
#include "objectstore/log/run.h"
#include "objectstore/object_store.h"
#include "tests/bench/machine.h"
#include "tests/fakes/sim_network.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kImageSize = 256u << 20;
constexpr std::size_t kBlock = 4096;
constexpr std::size_t kOperations = 100'000;

double cpu_us(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
}

class Stopwatch {
 public:
  explicit Stopwatch(Runtime& runtime) : runtime_(runtime), begin_(runtime.now()) {}
  void report(const std::string& what, std::size_t count) const {
    const double seconds = std::chrono::duration<double>(runtime_.now() - begin_).count();
    const double each = 1.0 / static_cast<double>(count);
    std::printf("%-44s %8.0f /s   reactor %6.2f us   all threads %6.2f us\n", what.c_str(),
                static_cast<double>(count) / seconds, (cpu_us(CLOCK_THREAD_CPUTIME_ID) - reactor_) * each,
                (cpu_us(CLOCK_PROCESS_CPUTIME_ID) - all_) * each);
    std::fflush(stdout);
  }

 private:
  Runtime& runtime_;
  const TimePoint begin_;
  const double reactor_ = cpu_us(CLOCK_THREAD_CPUTIME_ID);
  const double all_ = cpu_us(CLOCK_PROCESS_CPUTIME_ID);
};

SecretKey master_key() {
  std::array<std::uint8_t, 32> bytes{};
  bytes.fill(7);
  return SecretKey(bytes);
}

class Bench {
 public:
  explicit Bench(std::string directory)
      : directory_(std::move(directory)), disk_(make_uring_file_system(reactor_)), keys_(master_key()) {}
  void run() { reactor_.run(all()); }

 private:
  VolumeParts parts() {
    const auto engine = [this](std::string path, std::function<Status()> barrier, bool fresh) {
      return open_rocksdb_engine(reactor_, std::move(path), keys_.index_key().clone(), std::move(barrier),
                                 fresh, {});
    };
    return {reactor_, *disk_, transport_, keys_, metrics_, directory_, engine, "bench@here"};
  }

  std::uint64_t somewhere() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return (state_ >> 33) % (kImageSize / kBlock) * kBlock;
  }

  void cipher() {
    SegmentId segment;
    std::array<std::uint8_t, 16> salt{};
    const AeadKey key(keys_.segment_key(segment, salt));
    Bytes plain(kBlock), sealed(kBlock + kTagSize);
    const Stopwatch watch(reactor_);
    for (std::size_t i = 0; i < kOperations; ++i) key.seal_cells(i, 0, kBlock, plain, sealed);
    watch.report("limit: AES-256-GCM over 4 KiB", kOperations);
  }

  Task<void> fill(Volume& volume, ObjectRef image) {
    Transaction made;
    made.create(image, {});
    made.truncate(image, kImageSize);
    const auto created = co_await volume.commit(std::move(made));
    CHECK(created);
    Bytes data(1u << 20);
    for (std::uint64_t at = 0; at < kImageSize; at += data.size()) {
      reactor_.random().fill(data);
      Transaction piece;
      piece.write(image, at, data);
      const auto written = co_await volume.commit(std::move(piece));
      CHECK(written);
    }
  }

  Task<void> write_random(Volume& volume, ObjectRef image, std::size_t count) {
    Bytes data(kBlock);
    reactor_.random().fill(data);
    for (std::size_t i = 0; i < count; ++i) {
      Transaction one;
      one.write(image, somewhere(), data);
      const auto written = co_await volume.commit(std::move(one));
      CHECK(written);
    }
  }

  Task<void> read_random(Volume& volume, const View& view, ObjectId object, const std::string& what) {
    Bytes data(kBlock);
    std::size_t at_once = 0;
    const Stopwatch watch(reactor_);
    for (std::size_t i = 0; i < kOperations; ++i) {
      const std::uint64_t at = somewhere();
      Result<std::size_t> got = std::size_t{0};
      if (volume.try_read(view, object, at, data, got))
        ++at_once;
      else
        got = co_await volume.read(view, object, at, data);
      CHECK(got && *got == kBlock);
    }
    watch.report(format("{}, {} % at once", what, at_once * 100 / kOperations), kOperations);
  }

  Task<void> all() {
    cipher();
    transport_.set_miners(network_.entries());
    VolumeShape shape;
    VolumeOptions options;
    options.cache_bytes = 4ull << 30;
    auto volume = co_await Volume::create(parts(), shape, options);
    CHECK(volume);
    DatasetOptions how;
    how.type = DatasetType::image;
    how.chunk_log2 = 18;
    how.cell_log2 = 12;
    const auto dataset = co_await (*volume)->create_dataset("image", how);
    CHECK(dataset);
    const auto object = (*volume)->allocate_object(*dataset);
    CHECK(object);
    const ObjectRef image{*dataset, *object};
    co_await fill(**volume, image);
    const Status stored = co_await (*volume)->flush(Durability::remote);
    CHECK(stored);
    {
      const Stopwatch watch(reactor_);
      co_await write_random(**volume, image, kOperations);
      watch.report("commit of 4 KiB, random", kOperations);
      const Status flushed = co_await (*volume)->flush(Durability::remote);
      CHECK(flushed);
      watch.report("  the same, with log, index and push", kOperations);
    }
    const View view = (*volume)->find_dataset(*dataset)->head;
    co_await read_random(**volume, view, *object, "read of 4 KiB, random, first");
    co_await read_random(**volume, view, *object, "read of 4 KiB, random, again");
    const Status closed = co_await (*volume)->close();
    CHECK(closed);
    co_await transport_.close();
    co_await network_.settle();
  }

  const std::string directory_;
  std::uint64_t state_ = 1;
  Reactor reactor_{2};
  std::unique_ptr<FileSystem> disk_;
  KeyTree keys_;
  Metrics metrics_;
  SimNetwork network_{reactor_, 6, 64ull << 30};
  FakeTransport transport_{reactor_, network_, 0, keys_.volume_id()};
};

}  // namespace
}  // namespace cumulus

int main(int count, char** words) {
  cumulus::print_machine();
  const std::filesystem::path top = count > 1 ? words[1] : "/var/tmp";
  const auto directory = top / cumulus::format("cumulus-volume-bench-{}", ::getpid());
  std::filesystem::create_directories(directory);
  {
    cumulus::Bench bench(directory.string());
    bench.run();
  }
  std::filesystem::remove_all(directory);
  return 0;
}
