// io_uring, workers and the simulated disk keep the contract of the disk port.
#include "tests/contract/file_system_contract.h"

#include <filesystem>
#include <unistd.h>

#include "objectstore/io/reactor.h"
#include "objectstore/io/uring_file_system.h"
#include "tests/fakes/sim_disk.h"
#include "tests/fakes/sim_runtime.h"

namespace cumulus {
namespace {

class RealHarness final : public FileSystemHarness {
 public:
  using Make = std::function<std::unique_ptr<FileSystem>(Reactor&)>;
  explicit RealHarness(const Make& make) : files_(make(reactor_)) {
    static int number = 0;
    root_ = std::filesystem::temp_directory_path() /
            ("cumulus_files_" + std::to_string(::getpid()) + "_" + std::to_string(++number));
    std::filesystem::create_directories(root_);
  }
  ~RealHarness() override { std::filesystem::remove_all(root_); }

  FileSystem& files() override { return *files_; }
  Runtime& runtime() override { return reactor_; }
  std::string root() override { return root_.string(); }
  void run(Task<void> task) override { reactor_.run(std::move(task)); }
  bool real() const override { return true; }

 private:
  Reactor reactor_{2};
  std::unique_ptr<FileSystem> files_;
  std::filesystem::path root_;
};

class SimHarness final : public FileSystemHarness {
 public:
  FileSystem& files() override { return files_; }
  Runtime& runtime() override { return process_; }
  std::string root() override { return "/root"; }
  void run(Task<void> task) override {
    bool done = false;
    process_.spawn(std::move(task), [&] { done = true; });
    EXPECT_TRUE(world_.run_until([&] { return done; }, 10'000'000));
  }
  bool real() const override { return false; }

 private:
  SimWorld world_{1};
  SimProcess& process_ = world_.start_process("test");
  SimDisk disk_{1};
  SimFileSystem files_{process_, disk_};
};

// A short queue, so that callers wait for their turn.
const FileSystemKind kUring{"io_uring", [] {
                              return std::make_unique<RealHarness>(
                                  [](Reactor& reactor) { return make_uring_file_system(reactor, 8); });
                            }};
const FileSystemKind kWorkers{"workers",
                              [] { return std::make_unique<RealHarness>(make_worker_file_system); }};
const FileSystemKind kSimulated{"simulated", [] { return std::make_unique<SimHarness>(); }};

INSTANTIATE_TEST_SUITE_P(All, FileSystemContract, ::testing::Values(kUring, kWorkers, kSimulated),
                         [](const auto& made) { return made.param.name; });

}  // namespace
}  // namespace cumulus
