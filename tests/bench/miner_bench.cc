// What a miner costs: CPU seconds for each GiB of slices put over TLS, and its memory, by a real daemon on
// loopback. miner_bench CUMULUS-MINER DIR [MIB] [SLICE-KIB]: prints one line.
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

Task<void> put_all(Reactor& reactor, MinerId miner, std::string address, std::uint64_t slices,
                   std::size_t size) {
  const SampleVolume volume(1);
  TransportIdentity identity;
  identity.tls_seed.fill(9);
  identity.grant.volume = volume.id();
  identity.grant.tls_public_key = TlsIdentity::from_seed(identity.tls_seed).public_key();
  wire::sign_grant(identity.grant, volume.key());
  MinerEntry entry;
  entry.id = miner;
  entry.address = address;
  std::vector<MinerEntry> entries(1, entry);
  auto transport = std::move(*make_tcp_transport(reactor, identity, entries));
  std::uint64_t next = 1;
  std::uint64_t failed = 0;
  TaskGroup writers(reactor);
  for (int writer = 0; writer < 6; ++writer) {
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

int run(const std::string& program, const std::string& directory, std::uint64_t mib, std::size_t slice_kib) {
  const MinerId miner = identity_in(output_of(program + " init " + directory + " --capacity 100G"));
  int out[2];
  if (::pipe2(out, O_CLOEXEC) != 0) return 1;
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(out[1], STDOUT_FILENO);
    ::execl(program.c_str(), program.c_str(), "run", directory.c_str(), "--listen", "127.0.0.1:0", "--open",
            "--quota-per-volume", "90G", nullptr);
    ::_exit(127);
  }
  ::close(out[1]);
  std::string line;
  char letter = 0;
  while (::read(out[0], &letter, 1) == 1 && letter != '\n') line += letter;
  Reactor reactor(1);
  const std::size_t size = slice_kib * 1024;
  const std::uint64_t slices = mib * 1024 / slice_kib;
  const TimePoint began = reactor.now();
  reactor.run(put_all(reactor, miner, line.substr(6), slices, size));
  const double took = std::chrono::duration<double>(reactor.now() - began).count();
  ::kill(child, SIGTERM);
  rusage usage{};
  ::wait4(child, nullptr, 0, &usage);
  const double gib = static_cast<double>(slices * size) / (1 << 30);
  const std::string text = cumulus::format(
      "{} slices of {} KiB: {:.0f} MiB/s, miner {:.2f} CPU s/GiB ({:.0f} us a slice), peak {} MiB\n", slices,
      slice_kib, gib * 1024 / took, cpu_of(usage) / gib, cpu_of(usage) * 1e6 / static_cast<double>(slices),
      usage.ru_maxrss / 1024);
  std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace
}  // namespace cumulus

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: miner_bench CUMULUS-MINER DIR [MIB] [SLICE-KIB]\n");
    return 2;
  }
  return cumulus::run(argv[1], argv[2], argc > 3 ? std::stoull(argv[3]) : 1024,
                      argc > 4 ? std::stoull(argv[4]) : 2048);
}
