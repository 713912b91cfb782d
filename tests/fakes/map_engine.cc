#include "tests/fakes/map_engine.h"

#include "objectstore/base/check.h"
#include "objectstore/index/rows.h"

namespace cumulus {

MapEngine::MapEngine(Runtime& runtime, std::shared_ptr<MapEngineDisk> disk, MapEngineOptions options)
    : runtime_(runtime),
      disk_(std::move(disk)),
      options_(std::move(options)),
      random_(options_.seed),
      rows_(disk_->rows),
      applied_(disk_->position) {}

Task<void> MapEngine::maybe_late() {
  if (draw(options_.late_one_in)) co_await runtime_.offload([] {});
}

void MapEngine::apply_to(std::map<Key, Bytes>& rows, const RowUpdate& update) {
  if (update.kind == RowUpdate::Kind::erase) {
    rows.erase(update.key);
  } else if (update.kind == RowUpdate::Kind::put || !rows.contains(update.key)) {
    rows[update.key] = update.value;
  } else {
    auto row = ChunkRow::decode(rows[update.key]);
    const auto newer = ChunkRow::decode(update.value);
    CHECK(row && newer);
    row->put_all(*newer);
    rows[update.key] = row->encode();
  }
}

Task<Status> MapEngine::apply(std::vector<RowUpdate> updates, LogPosition position) {
  co_await maybe_late();
  if (failure_) co_return fail(*failure_);
  CHECK(position > applied_);
  for (RowUpdate& update : updates) {
    apply_to(rows_, update);
    volatile_.push_back(std::move(update));
  }
  applied_ = position;
  // In the background: what fails there is tried at the next flush.
  if (draw(options_.spontaneous_one_in)) static_cast<void>(persist());
  co_await maybe_late();
  co_return Status();
}

Status MapEngine::persist() {
  if (options_.barrier && !options_.canary_no_barrier) TRY_OK(options_.barrier());
  for (const RowUpdate& update : volatile_) apply_to(disk_->rows, update);
  volatile_.clear();
  disk_->position = applied_;
  return {};
}

Task<Status> MapEngine::flush() {
  co_await maybe_late();
  if (failure_) co_return fail(*failure_);
  co_return persist();
}

Task<Result<std::optional<Bytes>>> MapEngine::get(Key key) {
  std::optional<Bytes> value;
  if (const auto found = rows_.find(key); found != rows_.end()) value = found->second;
  co_await maybe_late();
  co_return value;
}

Task<Result<std::optional<KeyValue>>> MapEngine::first(Key from, Key to) {
  CO_TRY(auto rows, co_await scan(std::move(from), std::move(to), 1));
  if (rows.empty()) co_return std::nullopt;
  co_return std::move(rows.front());
}

Task<Result<std::vector<KeyValue>>> MapEngine::scan(Key from, Key to, std::size_t limit) {
  std::vector<KeyValue> found;
  for (auto row = rows_.lower_bound(from); row != rows_.end() && row->first < to && found.size() < limit;
       ++row)
    found.push_back({row->first, row->second});
  for (std::uint32_t turn = 0; turn < options_.scan_turns; ++turn) co_await maybe_late();
  co_return found;
}

bool MapEngine::try_first(const Key& from, const Key& to, Result<std::optional<KeyValue>>& answer) {
  if (draw(options_.late_one_in)) return false;
  const auto row = rows_.lower_bound(from);
  if (row == rows_.end() || row->first >= to) {
    answer = std::nullopt;
  } else {
    answer = KeyValue{row->first, row->second};
  }
  return true;
}

Task<Status> MapEngine::compact() { co_return Status(); }

std::uint64_t MapEngine::size_on_disk() const {
  std::uint64_t bytes = 0;
  for (const auto& [key, value] : disk_->rows) bytes += key.size() + value.size();
  return bytes;
}

Task<Status> MapEngine::close() { co_return Status(); }

}  // namespace cumulus
