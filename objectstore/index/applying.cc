// StoreIndex: from overlay to engine, in the order of the groups; opening, flushing, checking, closing.
#include <algorithm>
#include <chrono>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/index/store_index.h"
#include "objectstore/key_space.h"

namespace cumulus {
namespace {

constexpr Duration kRetryPause = std::chrono::seconds(1);
constexpr Duration kFlushRetry = std::chrono::seconds(5);
constexpr unsigned kIoFailuresMax = 30;  // in a row: then it is the disk

}  // namespace

StoreIndex::StoreIndex(Runtime& runtime, std::unique_ptr<Engine> engine, IndexOptions options,
                       Metrics& metrics)
    : runtime_(runtime),
      engine_(std::move(engine)),
      options_(options),
      cache_(options.row_cache_bytes),
      rows_loaded_(metrics.counter("cumulus_index_rows_loaded_total")),
      rows_applied_(metrics.counter("cumulus_index_rows_applied_total")),
      work_(runtime),
      applied_(runtime),
      tasks_(runtime) {}

StoreIndex::~StoreIndex() = default;

Task<Result<std::unique_ptr<Index>>> Index::open(Runtime& runtime, std::unique_ptr<Engine> engine,
                                                 IndexOptions options, Metrics& metrics) {
  auto index = std::make_unique<StoreIndex>(runtime, std::move(engine), options, metrics);
  if (Status started = co_await index->start(); !started) {
    const Status closed = co_await index->close();
    static_cast<void>(closed);  // the first error is the one to tell
    co_return fail(started.error());
  }
  co_return std::unique_ptr<Index>(std::move(index));
}

Task<Status> StoreIndex::start() {
  CO_TRY_OK(co_await load_catalogue());
  open_.number = engine_->applied() + 1;
  flushed_at_ = runtime_.now();
  tasks_.spawn(apply_groups());
  co_return Status();
}

Task<Status> StoreIndex::load_catalogue() {
  catalogue_ = {};
  // Stored segments (object 3) are looked up one by one: they may be many.
  for (std::string from = catalogue_dataset_key(0);;) {
    CO_TRY(const auto page, co_await engine_->scan(from, object_prefix(0, 3), 1024));
    for (const KeyValue& row : page) CO_TRY_OK(catalogue_.load(row));
    if (page.size() < 1024) break;
    from = page.back().key + '\0';
  }
  co_return Status();
}

// --- groups ---

void StoreIndex::close_group(LogPosition number) {
  CHECK(number == open_.number);
  for (const DatasetId id : changed_datasets_) open_.catalogue.push_back(catalogue_.dataset_row(id));
  for (const DatasetId id : counted_datasets_) open_.catalogue.push_back(catalogue_.counters_row(id));
  if (!changed_datasets_.empty()) open_.catalogue.push_back(catalogue_.next_row());
  changed_datasets_.clear();
  counted_datasets_.clear();
  groups_.push_back(std::exchange(open_, {}));
  open_.number = number + 1;
}

void StoreIndex::group_written(LogPosition number, std::uint64_t log_bytes, ResolveRun resolve) {
  const auto group = std::ranges::find(groups_, number, &Group::number);
  CHECK(group != groups_.end());
  CHECK(group == groups_.begin() || std::prev(group)->written);
  // Staged runs may also stand in rows of later groups (clones of what this group wrote).
  const auto place = [&](const Run& run) { return is_staged(run) ? resolve(run) : run; };
  for (auto later = group; later != groups_.end(); ++later)
    resolve_group(*later, later->number == number, place);
  resolve_group(open_, false, place);
  group->written = true;
  group->log_bytes = log_bytes;
  ++written_count_;
  work_.notify_all();
}

void StoreIndex::resolve_group(Group& group, bool own, const std::function<Run(const Run&)>& place) {
  if (!own && !group.has_clones) return;
  for (const auto& [entry, version] : group.touched) {
    for (OverlayRow& row : entry->second)
      if (row.group == group.number && row.version == version)
        if (auto* chunk = std::get_if<ChunkRow>(&row.value)) chunk->resolve(place);
  }
}

Task<Status> StoreIndex::room_for_group(TimePoint until) {
  for (;;) {
    if (failure_) co_return fail(*failure_);
    const auto waiting = static_cast<std::uint32_t>(std::ranges::count(groups_, true, &Group::written));
    if (waiting < options_.unapplied_groups_max) co_return Status();
    if (trouble_ && runtime_.now() >= until) co_return fail(*trouble_);
    if (trouble_ && until != TimePoint::max())
      co_await applied_.wait_until(until);
    else
      co_await applied_.wait();
  }
}

std::vector<RowUpdate> StoreIndex::updates_of(const Group& group) {
  std::vector<RowUpdate> updates = group.catalogue;
  updates.reserve(updates.size() + group.touched.size() + group.placed.size());
  for (const auto& [entry, version] : group.touched) {
    const auto& [prefix, rows] = *entry;
    const auto row = std::ranges::find_if(
        rows, [&](const OverlayRow& r) { return r.version == version && r.group == group.number; });
    CHECK(row != rows.end());
    RowUpdate update{RowUpdate::Kind::put, with_version(prefix, version), {}};
    if (const auto* header = std::get_if<HeaderRow>(&row->value)) {
      update.value = header->encode();
    } else if (const auto* value = std::get_if<ValueRow>(&row->value)) {
      update.value = value->encode();
    } else {
      const auto& chunk = std::get<ChunkRow>(row->value);
      const Chain* chain = cache_.find(prefix);
      const RowVersion* below = nullptr;
      if (chain != nullptr) {
        const auto same = std::ranges::find(*chain, version, &RowVersion::version);
        if (same != chain->end()) below = &*same;
      }
      if (chain != nullptr && below == nullptr) {
        update.value = chunk.encode();  // the first row of this version
      } else if (below != nullptr && below->operands + 1 >= options_.operands_max) {
        ChunkRow whole = std::get<ChunkRow>(below->value);
        whole.put_all(chunk);
        update.value = whole.encode();
      } else {
        update.kind = RowUpdate::Kind::merge;
        update.value = chunk.encode();
      }
    }
    updates.push_back(std::move(update));
  }
  for (const auto& [segment, placed] : group.placed)
    updates.push_back({RowUpdate::Kind::put, placed_key(segment), encode_placed(placed)});
  return updates;
}

// The group is in the engine: its rows leave the overlay and enter the cached chains.
void StoreIndex::settle(const Group& group) {
  for (const auto& [entry, version] : group.touched) {
    auto& [prefix, rows] = *entry;
    const auto row = std::ranges::find_if(
        rows, [&](const OverlayRow& r) { return r.version == version && r.group == group.number; });
    if (Chain* chain = cache_.find(prefix)) {
      auto at = std::ranges::find_if(*chain, [&](const RowVersion& r) { return r.version <= version; });
      if (at == chain->end() || at->version != version) {
        chain->insert(at, {version, std::move(row->value), 0});
      } else if (auto* chunk = std::get_if<ChunkRow>(&at->value)) {
        chunk->put_all(std::get<ChunkRow>(row->value));
        at->operands = at->operands + 1 >= options_.operands_max ? 0 : at->operands + 1;
      } else {
        at->value = std::move(row->value);
      }
      cache_.resized(prefix);
    }
    if (const auto loading = loading_.find(prefix); loading != loading_.end()) ++loading->second.applied;
    rows.erase(row);
    if (rows.empty()) overlay_.erase(entry);
  }
  for (const auto& [segment, placed] : group.placed) placed_cache_.insert_or_assign(segment, placed);
  ++settled_;
}

// A disk that is full or failed once is tried again: the log has everything, writers wait for room, and a
// passing cause leaves nothing behind. What the engine itself calls damaged, or an error that stays, is for a
// rebuild.
bool StoreIndex::may_pass(const Error& error) {
  if (error.kind() == ErrorKind::no_space) return true;
  return error.kind() == ErrorKind::io && ++failures_in_a_row_ < kIoFailuresMax;
}

Task<Status> StoreIndex::apply_group(const Group& group) {
  for (;;) {
    std::vector<RowUpdate> updates = updates_of(group);
    Status done = co_await engine_->apply(std::move(updates), group.number);
    if (done) {
      if (trouble_) log_info("the index takes changes again");
      trouble_.reset();
      failures_in_a_row_ = 0;
      co_return done;
    }
    if (closing_ || !may_pass(done.error())) co_return done;
    if (!trouble_) log_warn("the index takes no changes now, and is tried again: {}", done.error().message());
    trouble_ = done.error();
    applied_.notify_all();
    const TimePoint again = runtime_.now() + kRetryPause;
    while (!closing_ && runtime_.now() < again) co_await work_.wait_until(again);
  }
}

Task<void> StoreIndex::flush_by_pace() {
  const Status flushed = co_await engine_->flush();
  bytes_since_flush_ = 0;
  flushed_at_ = runtime_.now();
  if (flushed) {
    failures_in_a_row_ = 0;
  } else if (may_pass(flushed.error())) {
    log_warn("the index is not durable yet, and is tried again: {}", flushed.error().message());
    flushed_at_ += kFlushRetry - options_.flush_interval;
  } else {
    failure_ = flushed.error();
  }
}

Task<void> StoreIndex::apply_groups() {
  while (!failure_) {
    if (groups_.empty() || !groups_.front().written) {
      if (closing_) co_return;
      if (wants_flush()) {
        co_await flush_by_pace();
        continue;
      }
      const bool pending = engine_->durable() < engine_->applied();
      co_await work_.wait_until((pending ? flushed_at_ : runtime_.now()) + options_.flush_interval);
      continue;
    }
    const Group& group = groups_.front();
    if (Status done = co_await apply_group(group); !done) {
      failure_ = done.error().within("apply the log to the index");
      break;
    }
    rows_applied_.add(group.touched.size() + group.placed.size());
    settle(group);
    bytes_since_flush_ += group.log_bytes;
    groups_.pop_front();
    applied_.notify_all();
    if (bytes_since_flush_ >= options_.flush_log_bytes) co_await flush_by_pace();
  }
  if (failure_) log_error("the index is unusable until it is rebuilt: {}", failure_->message());
  applied_.notify_all();
}

bool StoreIndex::wants_flush() const {
  return engine_->durable() < engine_->applied() && runtime_.now() >= flushed_at_ + options_.flush_interval;
}

Task<Status> StoreIndex::abandon_unwritten() {
  // Readers go back to the written state: groups that never became part of the log vanish.
  const auto drop = [&](const Group& group) {
    for (const auto& [entry, version] : group.touched) {
      std::erase_if(entry->second, [&](const OverlayRow& row) {
        return row.group == group.number && row.version == version;
      });
      if (entry->second.empty()) overlay_.erase(entry);
    }
  };
  const LogPosition next = open_.number;
  drop(open_);
  open_ = {};
  while (!groups_.empty() && !groups_.back().written) {
    drop(groups_.back());
    groups_.pop_back();
  }
  open_.number = next;
  ++stage_count_;  // plans are void
  changed_datasets_.clear();
  counted_datasets_.clear();
  applied_.notify_all();  // there is room again for who waits
  while (!groups_.empty() && !failure_ && !trouble_) co_await applied_.wait();
  if (failure_) co_return fail(*failure_);
  if (!groups_.empty()) co_return fail(*trouble_);
  co_return co_await load_catalogue();
}

Task<Status> StoreIndex::replay(LogPosition number, std::vector<Change> changes) {
  if (number != open_.number)
    co_return fail(ErrorKind::corrupt,
                   format("group {} of the log follows group {}", number, open_.number - 1));
  CO_TRY_OK(co_await room_for_group(TimePoint::max()));
  for (const Change& change : changes) {
    const std::vector<Change> one{change};
    // A second load is needed only when a row was evicted at once; more means that something else is wrong.
    Staged staged = Staged::needs_rows;
    for (int attempt = 0; attempt < 8 && staged == Staged::needs_rows; ++attempt) {
      CO_TRY_OK(co_await prepare(one));
      staged = stage_change(change);
    }
    if (staged != Staged::done)
      co_return fail(ErrorKind::corrupt,
                     format("group {} of the log has a change that contradicts what came before", number));
    ++stage_count_;
  }
  close_group(number);
  group_written(number, 0, [](const Run& run) { return run; });
  co_return Status();
}

Task<Status> StoreIndex::flush() {
  const auto written_left = [this] { return !groups_.empty() && groups_.front().written; };
  while (written_left() && !failure_ && !trouble_) co_await applied_.wait();
  if (failure_) co_return fail(*failure_);
  if (written_left()) co_return fail(*trouble_);
  CO_TRY_OK(co_await engine_->flush());
  bytes_since_flush_ = 0;
  flushed_at_ = runtime_.now();
  co_return Status();
}

// --- care ---

Task<Status> StoreIndex::check(std::function<void(std::uint64_t)> progress) {
  CO_TRY_OK(co_await flush());
  std::uint64_t rows = 0;
  for (std::string from(1, '\0');;) {
    CO_TRY(const auto page, co_await engine_->scan(from, std::string(4, static_cast<char>(0xFF)), 4096));
    for (const KeyValue& row : page) {
      ++rows;
      if (row.key == kPositionKey || row.key.starts_with(dataset_prefix(0))) {
        Catalogue scratch;
        if (row.key.starts_with(object_prefix(0, 3))) {
          auto placed = decode_placed(row.value);
          if (!placed) co_return fail(placed.error());
          if (placed_key(placed->segment) != row.key)
            co_return fail(ErrorKind::corrupt, "a stored segment stands under another's key");
        }
        continue;
      }
      ParsedKey key;
      if (!parse_key(row.key, key))
        co_return fail(ErrorKind::corrupt, format("index row {}: its key does not parse", rows));
      const DatasetInfo* info = catalogue_.find(key.dataset);
      if (info != nullptr && key.version > info->version)
        co_return fail(ErrorKind::corrupt,
                       format("object {} of '{}' has a row of version {}, the dataset is at {}", key.object,
                              info->name, key.version, info->version));
      Status sound;
      if (key.kind == RowKind::chunk) {
        auto chunk = ChunkRow::decode(row.value);
        if (!chunk) sound = fail(chunk.error());
        if (chunk && info != nullptr && !chunk->empty() &&
            chunk->pieces().back().end() > (1u << info->chunk_log2))
          sound = fail(ErrorKind::corrupt, "a piece passes the end of its chunk");
      } else if (key.kind == RowKind::header) {
        if (auto header = HeaderRow::decode(row.value); !header) sound = fail(header.error());
      } else if (auto value = ValueRow::decode(row.value); !value) {
        sound = fail(value.error());
      }
      if (!sound)
        co_return fail(sound.error().within(format("object {} of dataset {}", key.object, key.dataset)));
    }
    if (progress) progress(rows);
    if (page.size() < 4096) break;
    from = page.back().key + '\0';
  }
  co_return Status();
}

Task<Status> StoreIndex::close() {
  Status status;
  const bool waiting = !groups_.empty() && groups_.front().written;
  if (!failure_ && (waiting || engine_->durable() < engine_->applied())) status = co_await flush();
  closing_ = true;
  work_.notify_all();
  co_await tasks_.join();
  if (Status closed = co_await engine_->close(); status && !closed) status = closed;
  co_return status;
}

}  // namespace cumulus
