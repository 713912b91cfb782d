// What durability costs: a 4 KiB group appended and made durable through the LogWriter, beside a raw 4 KiB
// append and fdatasync of a plain file on the same disk, with 1 and with 16 callers; and sequential
// throughput.
//
//   log_bench [directory]    prints one line a measurement; each runs about two seconds
#include <chrono>
#include <cstdio>
#include <filesystem>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/cache/slot_store.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/uring_file_system.h"
#include "objectstore/log/log_writer.h"
#include "tests/bench/machine.h"

namespace cumulus {
namespace {

constexpr Duration kRunTime = std::chrono::seconds(2);

class Bench {
 public:
  explicit Bench(std::string directory) : directory_(std::move(directory)) {}

  void run() { reactor_.run(all()); }

 private:
  // The raw cost: a growing file, as any program would append to its journal.
  // Seconds of one.
  Task<double> raw(bool preallocated) {
    OpenOptions how;
    how.write = true;
    how.create = true;
    auto file = files_->open(directory_ + "/raw", how);
    CHECK(file);
    if (preallocated) {
      const Status allocated = co_await (*file)->allocate(256u << 20);
      CHECK(allocated);
    }
    const Buffer block(4096);
    std::uint64_t count = 0;
    const TimePoint begin = reactor_.now();
    while (reactor_.now() - begin < kRunTime) {
      const Status written = co_await (*file)->write_at(count * 4096 % (256u << 20), block.view());
      CHECK(written);
      const Status synced = co_await (*file)->datasync();
      CHECK(synced);
      ++count;
    }
    const double each = report(
        preallocated ? "raw 4 KiB overwrite + fdatasync" : "raw 4 KiB append + fdatasync", count, begin);
    const Status removed = files_->remove(directory_ + "/raw");
    CHECK(removed);
    co_return each;
  }

  Task<void> caller(LogWriter& log, std::shared_ptr<Buffer> block, TimePoint end, std::uint64_t& count) {
    while (reactor_.now() < end) {
      GroupDraft draft;
      draft.records.resize(60);
      draft.awaited = true;
      draft.runs.push_back({block->view(0, 4000), 12, block});  // 4 KiB in all, with header and records
      const auto written = co_await log.append(std::move(draft));
      CHECK(written);
      const Status durable = co_await log.make_durable(written->number);
      CHECK(durable);
      ++count;
    }
  }

  Task<double> durable(LogWriter& log, unsigned callers) {
    std::uint64_t count = 0;
    const std::clock_t cpu = std::clock();
    const TimePoint begin = reactor_.now();
    TaskGroup tasks(reactor_);
    for (unsigned i = 0; i < callers; ++i)
      tasks.spawn(caller(log, std::make_shared<Buffer>(4096), begin + kRunTime, count));
    co_await tasks.join();
    const double each = report(format("log 4 KiB append + make_durable, {} callers", callers), count, begin);
    std::printf("%-46s %8.1f CPU us each\n", "  its CPU time",
                static_cast<double>(std::clock() - cpu) * 1e6 / CLOCKS_PER_SEC / static_cast<double>(count));
    co_return each;
  }

  Task<void> stream(LogWriter& log) {
    const auto block = std::make_shared<Buffer>(1u << 20);
    std::uint64_t count = 0;
    const TimePoint begin = reactor_.now();
    const std::clock_t cpu = std::clock();
    while (count < 1024) {
      GroupDraft draft;
      draft.runs.push_back({block->view(), 14, block});
      const auto written = co_await log.append(std::move(draft));
      CHECK(written);
      ++count;
    }
    const Status sealed = co_await log.seal();
    CHECK(sealed);
    report("log 1 MiB groups, one caller", count, begin);
    std::printf("%-46s %8.3f CPU s/GiB\n", "  its CPU time",
                static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC);
  }

  Task<void> all() {
    const double append = co_await raw(false);
    const double overwrite = co_await raw(true);
    SlotStoreOptions options;
    options.budget_bytes = 512u << 20;
    auto opened = co_await SlotStore::open(reactor_, *files_, directory_ + "/segments", keys_.volume_id(),
                                           options, metrics_);
    CHECK(opened);
    SlotStore& slots = **opened;
    slots.set_replay_floor(~Sequence{0});
    auto log = LogWriter::make(reactor_, slots, keys_, keys_.volume_id(), LogStart{}, LogOptions{}, metrics_,
                               [&slots](SealedSegment segment) { slots.mark_stored(segment.header.id); });
    const double one = co_await durable(*log, 1);
    const double of_sixteen = co_await durable(*log, 16);
    std::printf("one caller: %.2f times a raw append (asked: at most 1.2), %.2f times a raw overwrite\n",
                one / append, one / overwrite);
    std::printf("16 callers: %.1f times the rate of one (asked: at least 6)\n", one / of_sixteen);
    co_await stream(*log);
    const Status closed = co_await log->close();
    CHECK(closed);
    co_await slots.close();
  }

  double report(const std::string& what, std::uint64_t count, TimePoint begin) {
    const double seconds = std::chrono::duration<double>(reactor_.now() - begin).count();
    std::printf("%-46s %8.0f /s %8.1f us each\n", what.c_str(), static_cast<double>(count) / seconds,
                seconds * 1e6 / static_cast<double>(count));
    std::fflush(stdout);
    return seconds / static_cast<double>(count);
  }

  const std::string directory_;
  Reactor reactor_{1};
  std::unique_ptr<FileSystem> files_ = make_uring_file_system(reactor_);
  const KeyTree keys_{SecretKey{}};
  Metrics metrics_;
};

}  // namespace
}  // namespace cumulus

int main(int argc, char** argv) {
  cumulus::print_machine();
  std::string directory = std::string(argc > 1 ? argv[1] : ".") + "/log_bench_XXXXXX";
  CHECK(::mkdtemp(directory.data()) != nullptr);
  cumulus::Bench(directory).run();
  std::filesystem::remove_all(directory);
  return 0;
}
