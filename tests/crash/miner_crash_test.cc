// A real cumulus-miner is killed with SIGKILL again and again while a real client puts slices; after every
// restart all that was acknowledged is there, byte for byte, and what was removed stays away. argv[1]: the
// program.
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <gtest/gtest.h>
#include <random>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "netclient/tcp_transport.h"
#include "objectstore/crypto/tls_identity.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/sync.h"
#include "tests/fakes/miner_samples.h"
#include "tests/fakes/sample_formats.h"

namespace cumulus {
namespace {

std::string program;

class Daemon {
 public:
  explicit Daemon(std::string directory) : directory_(std::move(directory)) {}
  ~Daemon() { kill_now(); }

  // Its first line names the address.
  void start() {
    int out[2];
    ASSERT_EQ(::pipe2(out, O_CLOEXEC), 0);
    child_ = ::fork();
    ASSERT_GE(child_, 0);
    if (child_ == 0) {
      ::dup2(out[1], STDOUT_FILENO);
      const std::string listen = "127.0.0.1:" + std::to_string(port_);
      ::execl(program.c_str(), program.c_str(), "run", directory_.c_str(), "--listen", listen.c_str(),
              "--open", "--quota-per-volume", "3G", nullptr);
      ::_exit(127);
    }
    ::close(out[1]);
    std::string line;
    char letter = 0;
    while (::read(out[0], &letter, 1) == 1 && letter != '\n') line += letter;
    ::close(out[0]);
    ASSERT_TRUE(line.starts_with("ready ")) << line;
    port_ = std::stoi(line.substr(line.rfind(':') + 1));
  }
  void kill_now() {
    if (child_ <= 0) return;
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
    child_ = -1;
  }
  int port() const { return port_; }

 private:
  std::string directory_;
  pid_t child_ = -1;
  int port_ = 0;
};

MinerId make_miner(const std::string& directory) {
  std::filesystem::remove_all(directory);
  std::FILE* out = ::popen((program + " init " + directory + " --capacity 4G").c_str(), "r");
  std::string text;
  char buffer[4096];
  while (const std::size_t got = std::fread(buffer, 1, sizeof buffer, out)) text.append(buffer, got);
  EXPECT_EQ(::pclose(out), 0);
  const std::size_t at = text.find("identity = \"") + 12;
  const auto id = MinerId::parse(text.substr(at, 64));
  EXPECT_TRUE(id) << text;
  return *id;
}

TEST(MinerCrashTest, NothingAcknowledgedIsLostByKill) {
  const std::uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::string directory =
      std::filesystem::temp_directory_path() / ("miner_crash_" + std::to_string(::getpid()));
  const MinerId miner = make_miner(directory);
  Daemon daemon(directory);
  Reactor reactor(1);
  std::map<SliceId, SampleSlice> acknowledged;
  std::set<SliceId> removed;
  Sequence next = 1;
  const SampleVolume volume(1);

  const int rounds = std::getenv("CUMULUS_LONG") != nullptr ? 400 : 12;
  for (int round = 0; round < rounds; ++round) {
    daemon.start();
    if (HasFatalFailure()) break;
    const auto session = [&]() -> Task<void> {
      TransportIdentity identity;
      identity.tls_seed.fill(9);
      identity.grant.volume = volume.id();
      identity.grant.tls_public_key = TlsIdentity::from_seed(identity.tls_seed).public_key();
      wire::sign_grant(identity.grant, volume.key());
      MinerEntry entry;
      entry.id = miner;
      entry.address = "127.0.0.1:" + std::to_string(daemon.port());
      std::vector<MinerEntry> entries(1, entry);
      auto transport = std::move(*make_tcp_transport(reactor, identity, entries));
      const auto soon = [&] { return reactor.now() + std::chrono::seconds(10); };
      for (const auto& [id, slice] : acknowledged) {
        auto into = std::make_shared<Bytes>(slice.data.size());
        SliceRead read;
        read.slice = id;
        read.length = slice.data.size();
        read.into = *into;
        read.owner = into;
        const auto answer = co_await transport->read(miner, read, soon());
        EXPECT_TRUE(answer && *into == slice.data) << (answer ? "other bytes" : answer.error().message());
      }
      const std::vector<SliceId> gone(removed.begin(), removed.end());
      if (!gone.empty()) {
        const auto have = co_await transport->have(miner, gone, soon());
        EXPECT_TRUE(have && std::ranges::none_of(*have, [](const auto& root) { return root.has_value(); }));
      }
      // Four writers until the kill, which comes in the middle of their work.
      bool killed = false;
      TaskGroup writers(reactor);
      for (int writer = 0; writer < 4; ++writer) {
        writers.spawn([&]() -> Task<void> {
          while (!killed) {
            const std::size_t length =
                random() % 4 == 0 ? 100'000 + random() % 400'000 : 160 + random() % 40'000;
            auto slice = std::make_shared<SampleSlice>(volume.slice(next++, 0, length));
            SlicePut put;
            put.slice = slice->id;
            put.manifest = slice->manifest;
            put.data = slice->data;
            put.owner = slice;
            const TimePoint deadline = reactor.now() + std::chrono::milliseconds(700);
            const Status stored = co_await transport->put(miner, put, deadline);
            if (stored) acknowledged.emplace(slice->id, *slice);
            if (stored && random() % 8 == 0) {
              const std::vector<SliceId> one(1, slice->id);
              acknowledged.erase(slice->id);
              const Status done = co_await transport->remove(miner, one, deadline);
              if (done) removed.insert(slice->id);
            }
          }
        });
      }
      co_await reactor.sleep_for(std::chrono::milliseconds(20 + random() % 150));
      daemon.kill_now();
      killed = true;
      co_await writers.join();
      co_await transport->close();
    };
    reactor.run(session());
  }
  EXPECT_GT(acknowledged.size(), 50u);
  EXPECT_GT(removed.size(), 3u);
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace cumulus

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (argc < 2) {
    std::fprintf(stderr, "usage: miner_crash_test CUMULUS-MINER\n");
    return 2;
  }
  cumulus::program = argv[1];
  return RUN_ALL_TESTS();
}
