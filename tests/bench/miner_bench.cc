// What a miner costs: CPU seconds for each GiB of slices put over TLS, and its memory, by a real daemon on
// loopback; then how long a restart, a whole LIST and random reads take.
//   miner_bench CUMULUS-MINER DIR [MIB] [SLICE-KIB]   prints two lines
// A million slices: miner_bench ./cumulus-miner DIR 1000 1
#include <cstdio>
#include <fcntl.h>
#include <fstream>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "netclient/tcp_transport.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/tls_identity.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/sync.h"
#include "tests/bench/machine.h"
#include "tests/fakes/miner_samples.h"

namespace cumulus {
namespace {

double cpu_of(const rusage& usage) {
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + time.tv_usec / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

MinerId identity_in(const std::string& text) {
  const auto id = MinerId::parse(text.substr(text.find("identity = \"") + 12, 64));
  return id ? *id : MinerId{};
}

std::string output_of(const std::string& command) {
  std::FILE* out = ::popen(command.c_str(), "r");
  std::string text;
  char buffer[4096];
  while (const std::size_t got = std::fread(buffer, 1, sizeof buffer, out)) text.append(buffer, got);
  ::pclose(out);
  return text;
}

constexpr std::size_t kSmall = 64 * 1024;

std::unique_ptr<SliceTransport> client_of(Reactor& reactor, const SampleVolume& volume, MinerId miner,
                                          const std::string& address) {
  TransportIdentity identity;
  identity.tls_seed.fill(9);
  identity.grant.volume = volume.id();
  identity.grant.tls_public_key = TlsIdentity::from_seed(identity.tls_seed).public_key();
  wire::sign_grant(identity.grant, volume.key());
  MinerEntry entry;
  entry.id = miner;
  entry.address = address;
  std::vector<MinerEntry> entries(1, entry);
  return std::move(*make_tcp_transport(reactor, identity, entries));
}

Task<void> put_all(Reactor& reactor, MinerId miner, std::string address, std::uint64_t slices,
                   std::size_t size) {
  const SampleVolume volume(1);
  const auto transport = client_of(reactor, volume, miner, address);
  std::uint64_t next = 1;
  std::uint64_t failed = 0;
  TaskGroup writers(reactor);
  for (int writer = 0; writer < (size < kSmall ? 64 : 6); ++writer) {
    writers.spawn([&]() -> Task<void> {
      while (next <= slices) {
        auto slice = std::make_shared<SampleSlice>(volume.slice(next++, 0, size));
        SlicePut put;
        put.slice = slice->id;
        put.manifest = slice->manifest;
        put.data = slice->data;
        put.owner = slice;
        const TimePoint deadline = reactor.now() + std::chrono::seconds(30);
        const Status stored = co_await transport->put(miner, put, deadline);
        if (!stored && failed++ == 0) std::fprintf(stderr, "%s\n", stored.error().message().c_str());
      }
    });
  }
  co_await writers.join();
  co_await transport->close();
  if (failed != 0) std::fprintf(stderr, "%lu puts failed\n", failed);
}

struct ReadBack {
  std::uint64_t listed = 0;
  double list_seconds = 0;
  std::uint64_t reads = 0;
  std::uint64_t bad_reads = 0;
  double read_seconds = 0;
};

// One after the other: what one caller waits.
Task<void> read_back(Reactor& reactor, MinerId miner, std::string address, std::uint64_t slices,
                     std::size_t size, ReadBack& result) {
  const SampleVolume volume(1);
  const auto transport = client_of(reactor, volume, miner, address);
  const auto seconds_since = [&](TimePoint began) {
    return std::chrono::duration<double>(reactor.now() - began).count();
  };
  TimePoint began = reactor.now();
  std::optional<Bytes> from;
  do {
    const TimePoint deadline = reactor.now() + std::chrono::seconds(30);
    auto page = co_await transport->list(miner, from, deadline);
    if (!page) {
      std::fprintf(stderr, "%s\n", page.error().message().c_str());
      break;
    }
    result.listed += page->slices.size();
    from = std::move(page->next);
  } while (from);
  result.list_seconds = seconds_since(began);
  began = reactor.now();
  for (result.reads = 0; result.reads < 5000 && seconds_since(began) < 5; ++result.reads) {
    const Sequence sequence = 1 + reactor.random().below(slices);
    const Bytes expected = sample_bytes(size, sequence * 1000);
    const auto into = std::make_shared<Bytes>(std::min<std::size_t>(size, 4096));
    SliceRead read;
    read.slice = {{SegmentKind::log, 1, sequence}, 0};
    read.offset = reactor.random().below(size - into->size() + 1);
    read.length = into->size();
    read.into = *into;
    read.owner = into;
    const TimePoint deadline = reactor.now() + std::chrono::seconds(10);
    const auto answer = co_await transport->read(miner, read, deadline);
    if (!answer || std::memcmp(into->data(), expected.data() + read.offset, into->size()) != 0)
      ++result.bad_reads;
  }
  result.read_seconds = seconds_since(began);
  co_await transport->close();
}

class Daemon {
 public:
  // Returns when it is ready.
  Daemon(const std::string& program, const std::string& directory) {
    int out[2];
    if (::pipe2(out, O_CLOEXEC) != 0) return;
    child_ = ::fork();
    if (child_ == 0) {
      ::dup2(out[1], STDOUT_FILENO);
      ::execl(program.c_str(), program.c_str(), "run", directory.c_str(), "--listen", "127.0.0.1:0", "--open",
              "--quota-per-volume", "90G", nullptr);
      ::_exit(127);
    }
    ::close(out[1]);
    std::string line;
    char letter = 0;
    while (::read(out[0], &letter, 1) == 1 && letter != '\n') line += letter;
    address_ = line.substr(std::min<std::size_t>(6, line.size()));
  }
  const std::string& address() const { return address_; }
  rusage stop() {
    rusage usage{};
    ::kill(child_, SIGTERM);
    ::wait4(child_, nullptr, 0, &usage);
    return usage;
  }

 private:
  pid_t child_ = -1;
  std::string address_;
};

int run(const std::string& program, const std::string& directory, std::uint64_t mib, std::size_t slice_kib) {
  const MinerId miner = identity_in(output_of(program + " init " + directory + " --capacity 100G"));
  Reactor reactor(1);
  const std::size_t size = slice_kib * 1024;
  const std::uint64_t slices = mib * 1024 / slice_kib;
  Daemon first(program, directory);
  TimePoint began = reactor.now();
  const auto seconds_since_began = [&] {
    return std::chrono::duration<double>(reactor.now() - began).count();
  };
  reactor.run(put_all(reactor, miner, first.address(), slices, size));
  const double took = seconds_since_began();
  rusage usage = first.stop();
  const double gib = static_cast<double>(slices * size) / (1 << 30);
  std::fputs(
      cumulus::format(
          "{} slices of {} KiB: {:.0f} MiB/s, miner {:.2f} CPU s/GiB ({:.0f} us a slice), peak {} MiB\n",
          slices, slice_kib, gib * 1024 / took, cpu_of(usage) / gib,
          cpu_of(usage) * 1e6 / static_cast<double>(slices), usage.ru_maxrss / 1024)
          .c_str(),
      stdout);
  began = reactor.now();
  Daemon second(program, directory);
  const double start = seconds_since_began();
  ReadBack back;
  reactor.run(read_back(reactor, miner, second.address(), slices, size, back));
  usage = second.stop();
  std::fputs(
      cumulus::format("restart {:.2f} s, list of {} in {:.2f} s, a random read {:.0f} us, {} of {} bad, "
                      "peak {} MiB\n",
                      start, back.listed, back.list_seconds,
                      back.read_seconds * 1e6 / static_cast<double>(std::max<std::uint64_t>(back.reads, 1)),
                      back.bad_reads, back.reads, usage.ru_maxrss / 1024)
          .c_str(),
      stdout);
  return back.listed == slices && back.bad_reads == 0 ? 0 : 1;
}

}  // namespace
}  // namespace cumulus

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: miner_bench CUMULUS-MINER DIR [MIB] [SLICE-KIB]\n");
    return 2;
  }
  cumulus::print_machine();
  return cumulus::run(argv[1], argv[2], argc > 3 ? std::stoull(argv[3]) : 1024,
                      argc > 4 ? std::stoull(argv[4]) : 2048);
}
