#include "objectstore/index/rocksdb_engine.h"

#include <atomic>
#include <filesystem>
#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/merge_operator.h>
#include <rocksdb/slice_transform.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"
#include "objectstore/index/rocksdb_files.h"
#include "objectstore/index/rows.h"
#include "objectstore/io/blocking_lane.h"
#include "objectstore/io/sync.h"
#include "objectstore/key_space.h"

namespace cumulus {
namespace {

constexpr Duration kLookForRoom = std::chrono::milliseconds(20);

ByteView view(const rocksdb::Slice& slice) { return view_of(slice.ToStringView()); }
rocksdb::Slice slice(ByteView bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
Bytes bytes_of(const rocksdb::Slice& from) { return {from.data(), from.data() + from.size()}; }

Error error_of(const rocksdb::Status& status, std::string_view what) {
  // A file of it that is missing is as bad as a damaged one.
  const bool damaged = status.IsCorruption() || status.IsPathNotFound();
  const ErrorKind kind = damaged              ? ErrorKind::corrupt
                         : status.IsNoSpace() ? ErrorKind::no_space
                                              : ErrorKind::io;
  const std::string_view advice = status.IsNoSpace() ? ": free some space on its disk" : "";
  return {kind, format("{}: {}{}", what, status.ToString(), advice)};
}

// Few shards: a block that is larger than a shard is never kept, and a large file's filter takes megabytes.
constexpr int kCacheShardBits = 2;

// Newer chunk rows over older ones (rows.h): associative, so operands may be merged among themselves first.
class RowMerge final : public rocksdb::MergeOperator {
 public:
  const char* Name() const override { return "cumulus.RowMerge.1"; }
  bool FullMergeV2(const MergeOperationInput& in, MergeOperationOutput* out) const override {
    ChunkRow row;
    if (in.existing_value != nullptr && !lay(*in.existing_value, row)) return false;
    for (const rocksdb::Slice& operand : in.operand_list)
      if (!lay(operand, row)) return false;
    out->new_value = text_of(row.encode());
    return true;
  }
  bool PartialMergeMulti(const rocksdb::Slice&, const std::deque<rocksdb::Slice>& operands,
                         std::string* merged, rocksdb::Logger*) const override {
    ChunkRow row;
    for (const rocksdb::Slice& operand : operands)
      if (!lay(operand, row)) return false;
    *merged = text_of(row.encode());
    return true;
  }

 private:
  static bool lay(const rocksdb::Slice& encoded, ChunkRow& row) {
    const auto newer = ChunkRow::decode(view(encoded));
    if (newer) row.put_all(*newer);
    return newer.has_value();
  }
};

// A row's versions share a filter entry: all but the version.
class RowPrefix final : public rocksdb::SliceTransform {
 public:
  const char* Name() const override { return "cumulus.RowPrefix.1"; }
  rocksdb::Slice Transform(const rocksdb::Slice& key) const override {
    return {key.data(), key.size() - kKeyVersion};
  }
  bool InDomain(const rocksdb::Slice& key) const override { return key.size() >= kKeyFixed + kKeyVersion; }
};

// After a failed write RocksDB would wait by itself until a whole write buffer fits on the disk, and refuse
// to be told to try again meanwhile: on a small disk for ever. The owner tries again, and needs far less.
class RetriedByOwner final : public rocksdb::EventListener {
 public:
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status, bool* automatic) override {
    *automatic = false;
  }
};

class RocksDbEngine final : public Engine {
 public:
  RocksDbEngine(Runtime& runtime, RocksDbOptions options)
      : runtime_(runtime),
        options_(std::move(options)),
        flush_lane_(runtime),
        flush_ended_(runtime),
        tasks_(runtime) {}

  Status open(const std::string& directory, SecretKey key, std::function<Status()> barrier) {
    auto disk = make_prompt_file_system(options_.disk ? options_.disk : rocksdb::FileSystem::Default());
    disk = make_patient_file_system(disk, room_);
    auto files = make_barrier_file_system(disk, std::move(barrier));
    env_ = rocksdb::NewCompositeEnv(make_encrypted_file_system(files, std::move(key)));
    rocksdb::Options options;
    options.env = env_.get();
    options.create_if_missing = true;
    options.merge_operator = std::make_shared<RowMerge>();
    options.prefix_extractor = std::make_shared<RowPrefix>();
    options.memtable_prefix_bloom_size_ratio = 0.05;
    options.write_buffer_size = 2 * options_.write_buffer_bytes;  // never reached: apply() flushes before
    options.max_background_jobs = 2;
    options.max_open_files = 256;
    options.bytes_per_sync = 1u << 20;
    options.compression = rocksdb::kNoCompression;  // rows are dense, and encrypted afterwards
    options.info_log_level = rocksdb::InfoLogLevel::HEADER_LEVEL;
    options.info_log = std::make_shared<Silent>();
    options.listeners.push_back(std::make_shared<RetriedByOwner>());
    options.stats_dump_period_sec = 0;
    options.stats_persist_period_sec = 0;
    options.avoid_flush_during_shutdown = true;  // close() flushes what is to stay
    options.level_compaction_dynamic_level_bytes = true;
    rocksdb::BlockBasedTableOptions table;
    table.block_cache = rocksdb::NewLRUCache(options_.block_cache_bytes, kCacheShardBits);
    table.cache_index_and_filter_blocks = true;
    table.pin_l0_filter_and_index_blocks_in_cache = true;
    table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
    table.whole_key_filtering = false;
    table.format_version = 5;
    options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));

    rocksdb::DB* opened = nullptr;
    const rocksdb::Status status = rocksdb::DB::Open(options, directory, &opened);
    if (!status.ok()) return fail(error_of(status, "open the index in " + directory));
    db_.reset(opened);
    TRY(const auto position, get_now(kPositionKey));
    if (position) {
      Decoder in(*position);
      applied_ = in.u64();
      if (!in.done()) return fail(ErrorKind::corrupt, "the index's position does not parse");
    }
    durable_ = applied_.load();
    room_->patient = true;
    return {};
  }

  Task<Status> apply(std::vector<RowUpdate> updates, LogPosition position) override {
    if (filling() >= options_.write_buffer_bytes) {
      const Status flushed = co_await flush();
      if (!flushed && filling() >= options_.write_buffer_bytes) co_return flushed;
    }
    rocksdb::WriteBatch batch;
    for (const RowUpdate& update : updates) {
      if (update.kind == RowUpdate::Kind::put) batch.Put(update.key, slice(update.value));
      if (update.kind == RowUpdate::Kind::merge) batch.Merge(update.key, slice(update.value));
      if (update.kind == RowUpdate::Kind::erase) batch.Delete(update.key);
    }
    Bytes at;
    Encoder(at).u64(position);
    batch.Put(kPositionKey, slice(at));
    // A few rows go into memory faster than a worker wakes; what would have to wait for a flush does not.
    if (updates.size() <= kRowsAtOnce && write_now(batch, true).ok()) {
      applied_ = position;
      co_return Status();
    }
    co_return co_await runtime_.offload([&]() -> Status {
      rocksdb::Status status = write_now(batch, false);
      // After a failed flush it refuses everything until it is told to try again.
      if (!status.ok() && db_->Resume().ok()) status = write_now(batch, false);
      if (!status.ok()) return fail(error_of(status, "write to the index"));
      applied_ = position;
      return {};
    });
  }

  Task<Result<std::optional<Bytes>>> get(Key key) override {
    co_return co_await runtime_.offload([&] { return get_now(key); });
  }

  Task<Result<std::optional<KeyValue>>> first(Key from, Key to) override {
    Result<std::optional<KeyValue>> answer;
    if (try_first(from, to, answer)) co_return answer;
    CO_TRY(auto rows, co_await scan(std::move(from), std::move(to), 1));
    if (rows.empty()) co_return std::nullopt;
    co_return std::move(rows.front());
  }

  Task<Result<std::vector<KeyValue>>> scan(Key from, Key to, std::size_t limit) override {
    std::vector<KeyValue> rows;
    if (*read_in_a_row_ >= kReadInARow) co_await runtime_.yield();
    const std::size_t most = std::min(limit, kScannedAtOnce);
    const bool read = scan_at_once(from, to, most, rows);
    if (read && (rows.size() < most || most == limit)) co_return rows;
    if (!read) rows.clear();
    co_return co_await runtime_.offload([&]() -> Result<std::vector<KeyValue>> {
      const Key rest = rows.empty() ? from : rows.back().key + '\0';
      const rocksdb::Status status = scan_now(rest, to, limit, rows);
      if (!status.ok()) return fail(error_of(status, "read the index"));
      return std::move(rows);
    });
  }

  bool try_first(const Key& from, const Key& to, Result<std::optional<KeyValue>>& answer) override {
    std::vector<KeyValue> rows;
    if (*read_in_a_row_ >= kReadInARow || !scan_at_once(from, to, 1, rows)) return false;
    answer = rows.empty() ? std::optional<KeyValue>() : std::optional(std::move(rows.front()));
    return true;
  }

  LogPosition applied() const override { return applied_; }
  LogPosition durable() const override { return durable_; }

  // The one that runs may have begun before what is asked for was applied: then another follows it.
  Task<Status> flush() override {
    const Semaphore::Hold turn = co_await flush_turn_.acquire();
    const bool joined = flushing_;
    if (!joined) begin_flush();
    CO_TRY_OK(co_await flush_end());
    if (!joined) co_return Status();
    begin_flush();
    co_return co_await flush_end();
  }

  Task<Status> compact() override {
    co_return co_await runtime_.offload([&]() -> Status {
      rocksdb::CompactRangeOptions options;
      options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForce;
      const rocksdb::Status status = db_->CompactRange(options, nullptr, nullptr);
      if (!status.ok()) return fail(error_of(status, "compact the index"));
      return {};
    });
  }

  std::uint64_t size_on_disk() const override {
    std::uint64_t bytes = 0;
    db_->GetIntProperty(rocksdb::DB::Properties::kTotalSstFilesSize, &bytes);
    return bytes;
  }

  Task<Status> close() override {
    if (!db_) co_return Status();
    room_->patient = false;
    co_await tasks_.join();
    co_return co_await runtime_.offload([&]() -> Status {
      rocksdb::CancelAllBackgroundWork(db_.get(), true);
      const rocksdb::Status status = db_->Close();
      db_.reset();
      if (!status.ok()) return fail(error_of(status, "close the index"));
      return {};
    });
  }

 private:
  // At most so many rows are written on the reactor.
  static constexpr std::size_t kRowsAtOnce = 8;
  // The rest of a longer scan is a worker's.
  static constexpr std::size_t kScannedAtOnce = 512;
  // Rows read on the reactor in one turn, a seek counted as so many: some milliseconds.
  static constexpr std::size_t kReadInARow = 2048;
  static constexpr std::size_t kSeekAsRows = 8;
  rocksdb::Status write_now(rocksdb::WriteBatch& batch, bool at_once) {
    rocksdb::WriteOptions options;
    options.disableWAL = true;
    options.no_slowdown = at_once;
    return db_->Write(options, &batch);
  }

  // RocksDB's own text log would be in the clear.
  class Silent final : public rocksdb::Logger {
   public:
    using Logger::Logv;
    void Logv(const char*, va_list) override {}
  };

  // On a thread of its own, where it may wait for room for as long as the disk is full.
  void begin_flush() {
    flushing_ = true;
    tasks_.spawn([this]() -> Task<void> {
      flushed_ = co_await flush_lane_.run([this] { return flush_now(); });
      flushing_ = false;
      flush_ended_.notify_all();
    });
  }

  // What came of it; that the disk is full as soon as it is known, although the flush goes on.
  Task<Status> flush_end() {
    while (flushing_) {
      if (room_->waiting > 0)
        co_return fail(ErrorKind::no_space, "flush the index: there is no room on its disk");
      co_await flush_ended_.wait_until(runtime_.now() + kLookForRoom);
    }
    co_return flushed_;
  }

  Status flush_now() {
    const LogPosition upto = applied_;
    rocksdb::FlushOptions options;
    options.allow_write_stall = true;
    rocksdb::Status status = db_->Flush(options);
    if (!status.ok() && db_->Resume().ok()) status = db_->Flush(options);
    if (!status.ok()) return fail(error_of(status, "flush the index"));
    durable_ = std::max(durable_.load(), upto);
    return {};
  }

  // Bytes of the write buffer that changes go to.
  std::uint64_t filling() {
    std::uint64_t bytes = 0;
    db_->GetIntProperty(rocksdb::DB::Properties::kCurSizeActiveMemTable, &bytes);
    return bytes;
  }

  Result<std::optional<Bytes>> get_now(const Key& key) {
    rocksdb::PinnableSlice value;
    const rocksdb::Status status = db_->Get(rocksdb::ReadOptions(), db_->DefaultColumnFamily(), key, &value);
    if (status.IsNotFound()) return std::nullopt;
    if (!status.ok()) return fail(error_of(status, "read the index"));
    return bytes_of(value);
  }

  // What the block cache or the page cache has; waking a worker costs several times a read of it. Loops over
  // such reads would keep the reactor from everybody else: after so many it has a turn.
  bool scan_at_once(const Key& from, const Key& to, std::size_t limit, std::vector<KeyValue>& rows) {
    if (*read_in_a_row_ == 0) runtime_.post([counter = read_in_a_row_] { *counter = 0; });
    const NoWaiting now;
    const bool read = scan_now(from, to, limit, rows).ok();
    *read_in_a_row_ += kSeekAsRows + rows.size();
    return read;
  }

  // Behind the rows that are there, up to `limit` of them.
  rocksdb::Status scan_now(const Key& from, const Key& to, std::size_t limit, std::vector<KeyValue>& rows) {
    rocksdb::ReadOptions options;
    const rocksdb::Slice upper(to);
    options.iterate_upper_bound = &upper;
    // All versions of one row: the filter may answer for the whole prefix. Longer ranges must not use it.
    const bool one_row = from.size() >= kKeyFixed + kKeyVersion && to.size() == from.size() + 1 &&
                         to.compare(0, from.size() - kKeyVersion, from, 0, from.size() - kKeyVersion) == 0;
    options.total_order_seek = !one_row;
    options.prefix_same_as_start = one_row;
    const std::unique_ptr<rocksdb::Iterator> row(db_->NewIterator(options));
    for (row->Seek(from); row->Valid(); row->Next()) {
      rows.push_back({row->key().ToString(), bytes_of(row->value())});
      if (rows.size() >= limit) break;
    }
    return row->status();
  }

  Runtime& runtime_;
  RocksDbOptions options_;
  std::shared_ptr<RoomWait> room_ = std::make_shared<RoomWait>();
  std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<rocksdb::DB> db_;
  std::atomic<LogPosition> applied_{0};
  std::atomic<LogPosition> durable_{0};
  BlockingLane flush_lane_;
  Semaphore flush_turn_{runtime_, 1};
  bool flushing_ = false;
  Status flushed_;  // what came of the last one
  const std::shared_ptr<std::size_t> read_in_a_row_ = std::make_shared<std::size_t>(0);  // in this turn
  Signal flush_ended_;
  TaskGroup tasks_;
};

}  // namespace

Task<Result<std::unique_ptr<Engine>>> open_rocksdb_engine(Runtime& runtime, std::string directory,
                                                          SecretKey key, std::function<Status()> barrier,
                                                          bool fresh, RocksDbOptions options) {
  auto engine = std::make_unique<RocksDbEngine>(runtime, std::move(options));
  const Status opened = co_await runtime.offload([&]() -> Status {
    std::error_code error;
    if (fresh) std::filesystem::remove_all(directory, error);
    if (error) return fail(from_errno(error.value(), "discard the index in " + directory));
    std::filesystem::create_directories(directory, error);
    if (error) return fail(from_errno(error.value(), "make directory " + directory));
    return engine->open(directory, std::move(key), std::move(barrier));
  });
  if (!opened) co_return fail(opened.error());
  co_return std::unique_ptr<Engine>(std::move(engine));
}

}  // namespace cumulus
