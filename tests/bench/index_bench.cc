// Random 4 KiB writes into one 16 GiB object and random look-ups, through the whole Index over RocksDB;
// beside them raw RocksDB merges and gets of rows of the same shape; and the index bytes that a piece costs
// after compaction. Arguments: writes (default 1000000).
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <sys/resource.h>
#include <unistd.h>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/index/index.h"
#include "objectstore/index/rocksdb_engine.h"
#include "objectstore/index/rows.h"
#include "objectstore/io/reactor.h"
#include "objectstore/key_space.h"
#include "tests/bench/machine.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kBlocks = (std::uint64_t{16} << 30) / 4096;
constexpr std::uint64_t kWritesInGroup = 256;
constexpr int kUpdatesAsked = 100'000;
constexpr int kLookupsAsked = 200'000;
constexpr int kPieceBytesAsked = 40;

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

class Stopwatch {
 public:
  explicit Stopwatch(const Clock& clock) : clock_(clock), wall_(clock.now()), cpu_(cpu_seconds()) {}
  // `asked`: for each second, 0 where nothing is.
  void print(const char* what, std::uint64_t count, int asked = 0) const {
    const double wall = std::chrono::duration<double>(clock_.now() - wall_).count();
    const double cpu = cpu_seconds() - cpu_;
    std::printf("%-34s %9.0f/s   %6.2f us CPU each", what, static_cast<double>(count) / wall,
                cpu / static_cast<double>(count) * 1e6);
    if (asked != 0) std::printf("   (asked: at least %d/s)", asked);
    std::printf("\n");
  }

 private:
  const Clock& clock_;
  TimePoint wall_;
  double cpu_;
};

Run run_of(std::uint64_t number, std::uint64_t nonce) {
  Run run;
  run.segment = {SegmentKind::log, 1, 1 + number / 2000};
  run.base = static_cast<std::uint32_t>(number % 2000 * 4112);
  run.plain_length = 4096;
  run.cell_log2 = 12;
  run.nonce = nonce;
  return run;
}

Task<std::unique_ptr<Engine>> open_engine(Runtime& runtime, const std::string& directory) {
  const std::array<std::uint8_t, 32> bytes{3};
  SecretKey key(bytes);
  const std::function<Status()> barrier = [] { return Status(); };
  auto engine =
      co_await open_rocksdb_engine(runtime, directory, std::move(key), barrier, true, RocksDbOptions());
  CHECK(engine.has_value());
  co_return std::move(*engine);
}

Task<void> bench_index(Runtime& runtime, std::string directory, std::uint64_t writes) {
  Metrics metrics;
  auto engine = co_await open_engine(runtime, directory);
  IndexOptions options;
  auto opened = co_await Index::open(runtime, std::move(engine), options, metrics);
  CHECK(opened.has_value());
  Index& index = **opened;
  change::CreateDataset create;
  create.id = 1;
  create.name = "image";
  create.chunk_log2 = 18;
  create.cell_log2 = 12;
  std::vector<Change> first{create, change::Create{{1, 1}, {}}, change::Truncate{{1, 1}, kBlocks * 4096}};
  Status done = co_await index.replay(1, first);
  CHECK(done.has_value());

  std::mt19937_64 random(1);
  {
    const Stopwatch watch(runtime);
    std::uint64_t number = 0;
    for (LogPosition group = 2; number < writes; ++group) {
      done = co_await index.room_for_group(TimePoint::max());
      CHECK(done.has_value());
      const std::uint64_t first_number = number;
      for (std::uint64_t i = 0; i < kWritesInGroup; ++i, ++number) {
        change::Write write{{1, 1}, random() % kBlocks * 4096, 4096, 0, {}};
        write.run.segment = {kStagedKind, 0, number};
        write.run.plain_length = 4096;
        write.run.cell_log2 = 12;
        std::vector<Change> one{write};
        if (index.stage(one.front())) continue;
        done = co_await index.prepare(one);
        CHECK(done && index.stage(one.front()));
      }
      index.close_group(group);
      const std::uint64_t nonce = random();
      index.group_written(group, kWritesInGroup * 4200, [first_number, nonce](const Run& run) {
        return run.segment.sequence >= first_number ? run_of(run.segment.sequence, nonce) : run;
      });
    }
    done = co_await index.flush();
    CHECK(done.has_value());
    watch.print("index: random 4 KiB writes", number, kUpdatesAsked);
  }
  const View head = index.dataset(1)->head;
  std::vector<Extent> extents;
  // As many as there were writes; the row cache holds nine tenths of the rows, and none at first.
  {
    std::uint64_t waited = 0;
    const std::uint64_t first_lookups = writes * 3 / 10;
    const Stopwatch all(runtime);
    for (std::uint64_t i = 0; i < writes; ++i) {
      if (i == first_lookups) all.print("index: look-ups, the first 3 tenths", i);
      const std::uint64_t offset = random() % kBlocks * 4096;
      extents.clear();
      if (index.try_extents(head, 1, offset, 4096, extents)) continue;
      ++waited;
      const auto answer = co_await index.extents(head, 1, offset, 4096);
      CHECK(answer.has_value());
    }
    all.print("index: random look-ups, all", writes, kLookupsAsked);
    std::printf("    of them not in the row cache: %.1f %%\n",
                100.0 * static_cast<double>(waited) / static_cast<double>(writes));
  }
  // A working set that the row cache holds.
  for (int pass = 0; pass < 2; ++pass) {
    const Stopwatch watch(runtime);
    const std::uint64_t lookups = 300000;
    for (std::uint64_t i = 0; i < lookups; ++i) {
      const std::uint64_t offset = random() % (kBlocks / 16) * 4096;
      extents.clear();
      if (index.try_extents(head, 1, offset, 4096, extents)) continue;
      const auto answer = co_await index.extents(head, 1, offset, 4096);
      CHECK(answer.has_value());
    }
    if (pass == 1) watch.print("index: look-ups within 1 GiB", lookups, kLookupsAsked);
  }
  done = co_await index.engine().compact();
  CHECK(done.has_value());
  std::uint64_t pieces = 0;
  for (Key from = dataset_prefix(1);;) {
    auto page = co_await index.engine().scan(from, dataset_prefix(2), 4096);
    CHECK(page.has_value());
    for (const KeyValue& row : *page) {
      ParsedKey key;
      if (parse_key(row.key, key) && key.kind == RowKind::chunk)
        pieces += ChunkRow::decode(row.value)->pieces().size();
    }
    if (page->size() < 4096) break;
    from = page->back().key + '\0';
  }
  std::printf("index bytes a piece, compacted: %.1f (asked: at most %d; %llu pieces)\n",
              static_cast<double>(index.engine().size_on_disk()) / static_cast<double>(pieces),
              kPieceBytesAsked, static_cast<unsigned long long>(pieces));
  done = co_await index.close();
}

Task<void> bench_engine(Runtime& runtime, std::string directory, std::uint64_t writes) {
  auto engine = co_await open_engine(runtime, directory);
  std::mt19937_64 random(1);
  {
    const Stopwatch watch(runtime);
    std::uint64_t number = 0;
    for (LogPosition group = 1; number < writes; ++group) {
      std::vector<RowUpdate> updates;
      const std::uint64_t nonce = random();
      for (std::uint64_t i = 0; i < kWritesInGroup; ++i, ++number) {
        const std::uint64_t block = random() % kBlocks;
        ChunkRow row;
        Piece piece{.offset = static_cast<std::uint32_t>(block % 64 * 4096),
                    .length = 4096,
                    .kind = Piece::Kind::data};
        piece.run = run_of(number, nonce);
        row.put(piece);
        updates.push_back(
            {RowUpdate::Kind::merge, with_version(chunk_prefix(1, 1, block / 64), 1), row.encode()});
      }
      Status done = co_await engine->apply(std::move(updates), group);
      CHECK(done.has_value());
    }
    Status done = co_await engine->flush();
    CHECK(done.has_value());
    watch.print("raw RocksDB: merges", number);
  }
  const std::uint64_t lookups = 300000;
  const Stopwatch watch(runtime);
  Result<std::optional<KeyValue>> answer;
  for (std::uint64_t i = 0; i < lookups; ++i) {
    const std::string prefix = chunk_prefix(1, 1, random() % kBlocks / 64);
    const Key from = with_version(prefix, ~Version{0});
    const Key to = with_version(prefix, 0) + '\0';
    if (engine->try_first(from, to, answer)) continue;
    answer = co_await engine->first(from, to);
  }
  watch.print("raw RocksDB: seeks", lookups);
  Status closed = co_await engine->close();
  CHECK(closed.has_value());
}

}  // namespace
}  // namespace cumulus

int main(int argc, char** argv) {
  using namespace cumulus;
  print_machine();
  const std::uint64_t writes = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1000000;
  const auto directory =
      std::filesystem::temp_directory_path() / format("cumulus-index-bench-{}", ::getpid());
  for (const auto bench : {bench_index, bench_engine}) {
    Reactor reactor(2);
    reactor.run(bench(reactor, directory.string(), writes));
  }
  std::filesystem::remove_all(directory);
  return 0;
}
