// R1 under power cuts: whatever RocksDB had made durable, the index is never past the durable log, and its
// rows are those of exactly the position that it says. The disk below RocksDB loses what was not synced. A
// canary without the barrier shows that the check can fail. The seed is printed on failure.
#include <atomic>
#include <filesystem>
#include <future>
#include <gtest/gtest.h>
#include <map>
#include <mutex>
#include <random>
#include <rocksdb/file_system.h>
#include <set>
#include <unistd.h>

#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"
#include "objectstore/index/rocksdb_engine.h"
#include "objectstore/index/rows.h"
#include "objectstore/io/reactor.h"
#include "objectstore/key_space.h"

namespace cumulus {
namespace {

// A disk that knows how much of each file was synced. What happens after the cut happens to nobody: it
// succeeds, so that RocksDB does not sleep over errors, and restore() takes it away, with a random part of
// what was not synced before.
class CutDisk final : public rocksdb::FileSystemWrapper {
 public:
  explicit CutDisk(std::uint64_t seed) : FileSystemWrapper(rocksdb::FileSystem::Default()), random_(seed) {}
  const char* Name() const override { return "CutDisk"; }

  // The power goes after `writes` more operations.
  void cut_after(std::int64_t writes) { left_ = writes; }
  bool cut() const { return left_ <= 0; }

  void restore() {
    const std::lock_guard lock(mutex_);
    for (const std::string& path : too_late_) std::filesystem::remove(path);
    for (const auto& [path, state] : files_) {
      if (!std::filesystem::exists(path)) continue;
      const std::uint64_t kept = state.synced + random_() % (state.written - state.synced + 1);
      if (std::filesystem::file_size(path) > kept) std::filesystem::resize_file(path, kept);
    }
  }

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    {
      const bool alive = take();
      const std::lock_guard lock(mutex_);
      if (alive) {
        files_[path] = {};
      } else {
        too_late_.insert(path);
      }
    }
    rocksdb::IOStatus status = FileSystemWrapper::NewWritableFile(path, options, file, debug);
    if (status.ok()) *file = std::make_unique<CutFile>(std::move(*file), *this, path);
    return status;
  }
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug) override {
    if (!take()) return rocksdb::IOStatus::OK();
    const std::lock_guard lock(mutex_);
    rocksdb::IOStatus status = FileSystemWrapper::RenameFile(from, to, options, debug);
    if (const auto found = files_.find(from); status.ok() && found != files_.end()) {
      files_[to] = found->second;
      files_.erase(from);
    }
    return status;
  }
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override {
    if (!take()) return rocksdb::IOStatus::OK();
    return FileSystemWrapper::DeleteFile(path, options, debug);
  }

 private:
  struct State {
    std::uint64_t written = 0;
    std::uint64_t synced = 0;
  };
  class CutFile final : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    CutFile(std::unique_ptr<rocksdb::FSWritableFile> file, CutDisk& disk, std::string path)
        : FSWritableFileOwnerWrapper(std::move(file)), disk_(disk), path_(std::move(path)) {}
    rocksdb::IOStatus PositionedAppend(const rocksdb::Slice& data, std::uint64_t offset,
                                       const rocksdb::IOOptions& options,
                                       rocksdb::IODebugContext* debug) override {
      const bool alive = disk_.take();
      rocksdb::IOStatus status = FSWritableFileOwnerWrapper::PositionedAppend(data, offset, options, debug);
      if (status.ok() && alive) disk_.note(path_, data.size(), false);
      return status;
    }
    rocksdb::IOStatus Sync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug) override {
      const bool alive = disk_.take();
      rocksdb::IOStatus status = FSWritableFileOwnerWrapper::Flush(options, debug);
      if (status.ok() && alive) disk_.note(path_, 0, true);
      return status;
    }
    rocksdb::IOStatus Fsync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug) override {
      return Sync(options, debug);
    }

   private:
    CutDisk& disk_;
    std::string path_;
  };

  bool take() { return left_.fetch_sub(1) > 0; }
  void note(const std::string& path, std::uint64_t bytes, bool sync) {
    const std::lock_guard lock(mutex_);
    State& state = files_[path];
    state.written += bytes;
    if (sync) state.synced = state.written;
  }

  std::atomic<std::int64_t> left_{std::int64_t{1} << 60};
  std::mutex mutex_;
  std::map<std::string, State> files_;
  std::set<std::string> too_late_;  // made after the cut
  std::mt19937_64 random_;
};

// The log, as the barrier sees it.
struct FakeLog {
  std::atomic<LogPosition> written{0};
  std::atomic<LogPosition> durable{0};
  void sync() { durable = written.load(); }
};

// Row i of group g: whichever group wrote it last.
std::vector<RowUpdate> updates_of(LogPosition group) {
  std::mt19937_64 random(group);
  std::vector<RowUpdate> updates;
  for (int i = 0; i < 12; ++i) {
    const Key key = with_version(chunk_prefix(1, 1, random() % 200), 1);
    ChunkRow row;
    Piece piece{
        .offset = static_cast<std::uint32_t>(random() % 8) * 512, .length = 512, .kind = Piece::Kind::data};
    piece.run.segment = {SegmentKind::log, 1, group};
    piece.run.plain_length = 512;
    piece.run.nonce = random();
    row.put(piece);
    updates.push_back({RowUpdate::Kind::merge, key, row.encode()});
  }
  return updates;
}

std::map<Key, ChunkRow> model_at(LogPosition position) {
  std::map<Key, ChunkRow> rows;
  for (LogPosition group = 1; group <= position; ++group)
    for (const RowUpdate& update : updates_of(group))
      rows[update.key].put_all(*ChunkRow::decode(update.value));
  return rows;
}

struct Outcome {
  int crashes = 0;
  int ahead = 0;      // times the index was past the durable log
  int recovered = 0;  // times it had anything at all
};

Outcome run_crashes(std::uint64_t seed, bool with_barrier) {
  Outcome outcome;
  std::mt19937_64 random(seed);
  const std::string directory =
      (std::filesystem::temp_directory_path() / format("cumulus-index-crash-{}-{}", ::getpid(), seed))
          .string();
  std::filesystem::remove_all(directory);
  Reactor reactor(2);
  FakeLog log;
  const auto body = [&]() -> Task<void> {
    bool fresh = true;
    for (int life = 0; life < 8; ++life) {
      auto disk = std::make_shared<CutDisk>(random());
      RocksDbOptions options;
      options.write_buffer_bytes = 64u << 10;
      options.disk = disk;
      std::function<Status()> barrier = [&log, disk, with_barrier]() -> Status {
        if (with_barrier && !disk->cut()) log.sync();
        return {};
      };
      const std::array<std::uint8_t, 32> bytes{5};
      SecretKey key(bytes);
      auto opened = co_await open_rocksdb_engine(reactor, directory, std::move(key), barrier, fresh, options);
      if (!opened && life > 0) {  // a rebuild is always allowed; the rows then come from the log
        fresh = true;
        --life;
        if (++outcome.crashes > 60) co_return;
        continue;
      }
      CHECK(opened.has_value());
      std::unique_ptr<Engine> engine = std::move(*opened);
      fresh = false;
      if (engine->applied() > log.durable) {
        ++outcome.ahead;
        co_await engine->close();
        fresh = true;  // what the store does: discard it
        continue;
      }
      if (engine->applied() > 0) ++outcome.recovered;
      const auto expected = model_at(engine->applied());
      auto rows = co_await engine->scan(dataset_prefix(1), dataset_prefix(2), 100000);
      EXPECT_TRUE(rows.has_value());
      if (!rows) co_return;
      EXPECT_EQ(rows->size(), expected.size()) << "at " << engine->applied();
      if (rows->size() != expected.size()) co_return;
      auto is = expected.begin();
      for (const KeyValue& row : *rows) {
        EXPECT_EQ(row.key, is->first);
        EXPECT_TRUE(*ChunkRow::decode(row.value) == is->second) << "at " << engine->applied();
        ++is;
      }
      // The log lost what was not durable; its groups are written again, with the same content.
      log.written = log.durable.load();
      disk->cut_after(static_cast<std::int64_t>(20 + random() % 400));
      for (LogPosition group = engine->applied() + 1; !disk->cut() && group < engine->applied() + 6000;
           ++group) {
        log.written = std::max(log.written.load(), group);
        if (random() % 50 == 0 && !disk->cut()) log.sync();
        Status applied = co_await engine->apply(updates_of(group), group);
        if (!applied) break;
        if (random() % 100 == 0) {
          Status flushed = co_await engine->flush();
          if (!flushed) break;
        }
      }
      Status closed = co_await engine->close();
      static_cast<void>(closed);
      engine.reset();
      disk->restore();
      ++outcome.crashes;
    }
  };
  reactor.run(body());
  std::filesystem::remove_all(directory);
  return outcome;
}

Outcome run_seeds(std::uint64_t first, std::uint64_t last, bool with_barrier) {
  std::vector<std::future<Outcome>> runs;
  for (std::uint64_t seed = first; seed <= last; ++seed)
    runs.push_back(std::async(std::launch::async, [seed, with_barrier] {
      SCOPED_TRACE(format("seed {}", seed));
      return run_crashes(seed, with_barrier);
    }));
  Outcome all;
  for (auto& run : runs) {
    const Outcome outcome = run.get();
    all.crashes += outcome.crashes;
    all.ahead += outcome.ahead;
    all.recovered += outcome.recovered;
  }
  return all;
}

TEST(IndexCrash, TheIndexNeverRunsAheadOfTheLog) {
  const Outcome all = run_seeds(1, 8, true);
  EXPECT_EQ(all.ahead, 0);
  EXPECT_GE(all.crashes, 40);
  EXPECT_GE(all.recovered, 20);  // the check is about something
}

TEST(IndexCrash, CanaryWithoutTheBarrierIsCaught) { EXPECT_GT(run_seeds(101, 104, false).ahead, 0); }

}  // namespace
}  // namespace cumulus
