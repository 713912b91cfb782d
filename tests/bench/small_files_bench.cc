// What a small file costs beside its bytes: made one after the other as a mount makes them, in folders of a
// thousand, sent to simulated miners; the index compacted. Each figure beside the limit that was asked for.
//
//   small_files_bench [files] [bytes of each] [directory]    default 100000 files of 1024 bytes
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <unistd.h>

#include "fs/file_system.h"
#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/index/rocksdb_engine.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/uring_file_system.h"
#include "tests/bench/machine.h"
#include "tests/fakes/sim_network.h"

namespace cumulus {
namespace {

constexpr std::size_t kMiners = 6;
constexpr std::uint64_t kFolder = 1000;

SecretKey master_key() {
  std::array<std::uint8_t, 32> bytes{};
  bytes.fill(7);
  return SecretKey(bytes);
}

std::uint64_t bytes_below(const std::string& directory) {
  std::uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory))
    if (entry.is_regular_file()) bytes += entry.file_size();
  return bytes;
}

class Bench {
 public:
  Bench(std::string directory, std::uint64_t files, std::size_t size)
      : directory_(std::move(directory)),
        files_(files),
        size_(size),
        disk_(make_uring_file_system(reactor_)),
        keys_(master_key()),
        network_(reactor_, kMiners, 8ull << 30),
        transport_(reactor_, network_, 0, keys_.volume_id()) {
    transport_.set_miners(network_.entries());
  }
  void run() { reactor_.run(all()); }

 private:
  Task<Result<std::unique_ptr<Engine>>> engine(std::string path, std::function<Status()> barrier,
                                               bool fresh) {
    index_directory_ = path;
    auto opened = co_await open_rocksdb_engine(reactor_, std::move(path), keys_.index_key().clone(),
                                               std::move(barrier), fresh, {});
    if (opened) engine_ = opened->get();
    co_return opened;
  }
  VolumeParts parts() {
    return {reactor_,
            *disk_,
            transport_,
            keys_,
            metrics_,
            directory_,
            [this](std::string path, std::function<Status()> barrier, bool fresh) {
              return engine(std::move(path), std::move(barrier), fresh);
            },
            "bench@here"};
  }
  std::uint64_t on_miners() {
    std::uint64_t used = 0;
    for (std::size_t miner = 0; miner < kMiners; ++miner) used += network_.miner(miner).used();
    return used;
  }

  Task<void> make_files(PosixFileSystem& fs) {
    const Caller caller;
    OpenFlags flags;
    flags.write = true;
    NodeId folder = 0;
    for (std::uint64_t index = 0; index < files_; ++index) {
      if (index % kFolder == 0) {
        NewNode what;
        what.mode = 0040755;
        std::string name = format("folder-{}", index / kFolder);
        const auto made = co_await fs.make_node(caller, kRootNode, std::move(name), std::move(what));
        CHECK(made);
        folder = made->node;
      }
      std::string name = format("file-{}.txt", index);
      const auto made = co_await fs.create(caller, folder, std::move(name), 0644, flags);
      CHECK(made);
      const auto data = std::make_shared<Bytes>(size_);
      reactor_.random().fill(*data);
      const auto written = co_await fs.write(caller, made->handle, 0, *data, data, false);
      CHECK(written);
      const FsStatus released = co_await fs.release(made->handle);
      CHECK(released);
    }
  }

  Task<void> all() {
    const VolumeShape shape{4, 2, 23};
    const VolumeOptions options;
    auto volume = co_await Volume::create(parts(), shape, options);
    CHECK(volume);
    DatasetOptions kind;
    kind.type = DatasetType::file_system;
    const auto dataset = co_await (*volume)->create_dataset("main", kind);
    CHECK(dataset);
    const Status made = co_await PosixFileSystem::make_empty(reactor_, **volume, *dataset, 0, 0);
    CHECK(made);
    const FileSystemOptions mounted;
    std::string head;
    auto fs = co_await PosixFileSystem::open(reactor_, **volume, *dataset, std::move(head), mounted);
    CHECK(fs);
    const Status before = co_await (*volume)->flush(Durability::remote, {});
    CHECK(before);
    const std::uint64_t stored = on_miners();
    const TimePoint begin = reactor_.now();
    co_await make_files(**fs);
    const double seconds = std::chrono::duration<double>(reactor_.now() - begin).count();
    const FsStatus closed = co_await (*fs)->close();
    CHECK(closed);
    const Status remote = co_await (*volume)->flush(Durability::remote, {});
    CHECK(remote);
    const double each = static_cast<double>(on_miners() - stored) / static_cast<double>(files_);
    const double data = static_cast<double>(size_) * (shape.k + shape.m) / shape.k;
    std::printf("%llu files of %zu bytes: %.0f/s\n", static_cast<unsigned long long>(files_), size_,
                static_cast<double>(files_) / seconds);
    std::printf("on the miners: %.0f bytes each, %.0f beside its data (asked: 300)\n", each, each - data);
    const Status compacted = co_await engine_->compact();
    CHECK(compacted);
    const Status done = co_await (*volume)->close();
    CHECK(done);
    volume->reset();
    std::printf("index, compacted: %.0f bytes each (asked: 600)\n",
                static_cast<double>(bytes_below(index_directory_)) / static_cast<double>(files_));
    co_await transport_.close();
    co_await network_.settle();
  }

  const std::string directory_;
  const std::uint64_t files_;
  const std::size_t size_;
  Reactor reactor_{2};
  std::unique_ptr<FileSystem> disk_;
  KeyTree keys_;
  Metrics metrics_;
  SimNetwork network_;
  FakeTransport transport_;
  std::string index_directory_;
  Engine* engine_ = nullptr;
};

int run(int count, char** words) {
  const std::uint64_t files = count > 1 ? std::strtoull(words[1], nullptr, 10) : 100'000;
  const std::size_t size = count > 2 ? std::strtoull(words[2], nullptr, 10) : 1024;
  const std::string base = count > 3 ? words[3] : std::filesystem::temp_directory_path().string();
  const std::string directory = base + "/small_files_bench_" + std::to_string(::getpid());
  std::filesystem::create_directories(directory);
  Bench(directory, files, size).run();
  std::filesystem::remove_all(directory);
  return 0;
}

}  // namespace
}  // namespace cumulus

int main(int count, char** words) {
  cumulus::print_machine();
  return cumulus::run(count, words);
}
