// What the disk port costs: 4 KiB reads from the page cache, and a 4 KiB overwrite of a preallocated file
// made durable, through io_uring and through workers, buffered and direct, with one and with 16 callers.
//
//   file_bench [directory]    prints microseconds and CPU microseconds for each operation
#include <ctime>
#include <filesystem>
#include <functional>
#include <unistd.h>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/sync.h"
#include "objectstore/io/uring_file_system.h"
#include "tests/bench/machine.h"

namespace cumulus {
namespace {

constexpr Duration kRunTime = std::chrono::milliseconds(700);
constexpr std::uint64_t kFileSize = 64u << 20;

double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

struct Load {
  const char* name;
  bool write;
  bool sync;
  bool direct;
};

Task<void> caller(Reactor& reactor, File& file, Load load, TimePoint end, std::uint64_t& count) {
  Buffer block(4096);
  std::ranges::fill(block.view(), std::uint8_t{1});
  while (reactor.now() < end) {
    const std::uint64_t offset = count * 4096 % kFileSize;
    ++count;
    if (load.write) {
      const Status written = co_await file.write_at(offset, block.view());
      CHECK(written);
    } else {
      const auto got = co_await file.read_at(offset, block.view());
      CHECK(got && *got == 4096);
    }
    if (!load.sync) continue;
    const Status synced = co_await file.datasync();
    CHECK(synced);
  }
}

Task<void> measure(Reactor& reactor, FileSystem& files, std::string path, Load load, const char* kind,
                   int callers) {
  OpenOptions how;
  how.write = how.create = true;
  how.direct = load.direct;
  auto file = files.open(path, how);
  CHECK(file);
  Buffer mebibyte(1u << 20);
  std::ranges::fill(mebibyte.view(), std::uint8_t{2});
  for (std::uint64_t at = 0; at < kFileSize; at += mebibyte.size()) {
    const Status written = co_await (*file)->write_at(at, mebibyte.view());
    CHECK(written);
  }
  const Status synced = co_await (*file)->datasync();
  CHECK(synced);
  TaskGroup group(reactor);
  std::uint64_t count = 0;
  const TimePoint begin = reactor.now();
  const double cpu = cpu_seconds();
  for (int i = 0; i < callers; ++i) group.spawn(caller(reactor, **file, load, begin + kRunTime, count));
  co_await group.join();
  const double took = std::chrono::duration<double>(reactor.now() - begin).count();
  const double n = static_cast<double>(count);
  fmt::print("{:<34} {:<8} {:>2} callers {:>9.0f}/s {:>8.1f} us {:>8.1f} CPU us\n", load.name, kind, callers,
             n / took, took / n * 1e6, (cpu_seconds() - cpu) / n * 1e6);
  const Status removed = files.remove(path);
  CHECK(removed);
}

Task<void> all(Reactor& reactor, std::string directory) {
  const Load loads[] = {{"read 4 KiB from the page cache", false, false, false},
                        {"write 4 KiB, buffered", true, false, false},
                        {"write 4 KiB, direct", true, false, true},
                        {"write 4 KiB + sync, buffered", true, true, false},
                        {"write 4 KiB + sync, direct", true, true, true}};
  const auto ring = make_uring_file_system(reactor);
  const auto workers = make_worker_file_system(reactor);
  for (const Load& load : loads) {
    for (const int callers : {1, 16}) {
      co_await measure(reactor, *ring, directory + "/file_bench", load, "io_uring", callers);
      co_await measure(reactor, *workers, directory + "/file_bench", load, "workers", callers);
    }
  }
}

}  // namespace
}  // namespace cumulus

int main(int argc, char** argv) {
  cumulus::print_machine();
  cumulus::Reactor reactor(2);
  reactor.run(cumulus::all(reactor, argc > 1 ? argv[1] : "."));
}
