// Group commit: many puts and removals, one batch in a bundle, one fdatasync, one write to the index.
#include "objectstore/base/check.h"
#include "objectstore/base/log.h"
#include "tools/miner/store/slice_store_parts.h"

namespace cumulus {

using bundle::RecordType;

Task<Status> SliceStore::enqueue(std::shared_ptr<Pending> entry) {
  if (entry->charge != 0) {
    reserved_[entry->key.volume] += entry->charge;
    reserved_total_ += entry->charge;
  }
  queue_.push_back(entry);
  queue_changed_.notify_all();
  while (!entry->done) co_await entry->finished.wait();
  if (entry->charge != 0) {
    const auto reserved = reserved_.find(entry->key.volume);
    reserved->second -= entry->charge;
    if (reserved->second == 0) reserved_.erase(reserved);
    reserved_total_ -= entry->charge;
  }
  co_return entry->outcome;
}

std::vector<std::shared_ptr<SliceStore::Pending>> SliceStore::take_batch() {
  std::vector<std::shared_ptr<Pending>> batch;
  std::uint64_t bytes = 0;
  std::uint64_t meta = 0;
  while (!queue_.empty() && batch.size() < options_.batch_entries_max) {
    const auto& next = queue_.front();
    const std::uint64_t next_meta = bundle::kRecordSize + (next->manifest ? next->manifest->size() : 0);
    if (!batch.empty() &&
        (bytes + next->length > options_.batch_bytes_max || meta + next_meta > bundle::kMetaMax / 2))
      break;
    bytes += next->length;
    meta += next_meta;
    batch.push_back(next);
    queue_.pop_front();
  }
  return batch;
}

Task<void> SliceStore::commit_loop() {
  for (;;) {
    while (queue_.empty() && !commits_end_) co_await queue_changed_.wait();
    if (queue_.empty()) co_return;
    const auto batch = take_batch();
    const Status outcome = co_await commit(batch);
    for (const auto& entry : batch) {
      entry->outcome = outcome;
      entry->done = true;
      entry->finished.notify_all();
    }
  }
}

Task<Status> SliceStore::commit(std::vector<std::shared_ptr<Pending>> entries) {
  if (index_behind_) co_return fail(*index_behind_);
  std::vector<LogEntry> records;
  std::vector<std::optional<SliceLocation>> old;
  std::vector<ByteView> manifests;
  IndexBatch marks;
  for (const auto& entry : entries) {
    if (entry->mark) {
      marks.changes.push_back({entry->key, entry->mark, std::nullopt});
      continue;
    }
    LogEntry record;
    record.type = entry->type;
    record.key = entry->key;
    if (entry->type == RecordType::put) {
      record.root = entry->root;
      record.manifest = *entry->manifest;
      record.data = entry->data->view(entry->offset, entry->length);
    } else {
      record.before = entry->before;
      record.victim = entry->old ? entry->old->data : entry->victim;
      record.victim_length = entry->old ? entry->old->length : entry->victim_length;
    }
    records.push_back(record);
    old.push_back(entry->old);
    manifests.push_back(record.manifest);
  }
  IndexBatch changes;
  if (!records.empty()) {
    const auto batch = co_await log_->write(records);
    if (!batch) {
      refuse_writes(batch.error());
      co_return fail(batch.error());
    }
    write_failed_ = false;
    commits_.add();
    changes = fold(*batch, old, manifests);
  }
  std::ranges::move(marks.changes, std::back_inserter(changes.changes));
  co_return co_await apply(std::move(changes));
}

IndexBatch SliceStore::fold(const bundle::Batch& batch, const std::vector<std::optional<SliceLocation>>& old,
                            const std::vector<ByteView>& manifests) {
  CHECK(batch.records.size() == old.size() && old.size() == manifests.size());
  IndexBatch changes;
  BundleUsage& home = bundles_[batch.at.bundle];
  home.end = batch.at.offset + batch.total_length;
  home.held_bytes += batch.total_length;
  held_total_ += batch.total_length;
  changed_bundles_.insert(batch.at.bundle);
  position_ = {batch.at.bundle, home.end};
  for (std::size_t i = 0; i < batch.records.size(); ++i) {
    const bundle::Record& record = batch.records[i];
    const bool removal = record.type == RecordType::remove;
    if (removal) ++removals_in_[batch.at.bundle][record.before.bundle];
    // A removal carried forward says nothing of a slice that was put after it.
    if (removal && (!old[i] || old[i]->data >= record.before)) continue;
    if (old[i]) {
      VolumeUsage& volume = volumes_[record.key.volume];
      volume.bytes -= old[i]->charge();
      --volume.slices;
      --slices_total_;
      live_total_ -= old[i]->charge();
      BundleUsage& was = bundles_[old[i]->data.bundle];
      was.live_bytes -= old[i]->charge();
      --was.live_slices;
      changed_bundles_.insert(old[i]->data.bundle);
      leaf_cache_.erase(record.key);
      release_space(*old[i]);
    }
    changed_volumes_.insert(record.key.volume);
    IndexChange change;
    change.key = record.key;
    if (!removal) {
      SliceLocation location;
      location.data = {batch.at.bundle, batch.at.offset + record.data_offset};
      location.length = record.data_length;
      location.manifest_length = record.manifest_length;
      location.root = record.root;
      VolumeUsage& volume = volumes_[record.key.volume];
      volume.bytes += location.charge();
      ++volume.slices;
      ++slices_total_;
      live_total_ += location.charge();
      home.live_bytes += location.charge();
      ++home.live_slices;
      change.location = location;
      change.manifest.emplace(manifests[i].begin(), manifests[i].end());
    }
    changes.changes.push_back(std::move(change));
  }
  return changes;
}

void SliceStore::add_usage(IndexBatch& batch) {
  for (const VolumeId& volume : changed_volumes_) batch.volumes.emplace_back(volume, volumes_[volume]);
  for (const std::uint32_t number : changed_bundles_) {
    const auto found = bundles_.find(number);
    batch.bundles.emplace_back(number, found == bundles_.end() ? std::nullopt : std::optional(found->second));
  }
  batch.position = position_;
}

// The bundles hold the batch already, so the index must take it: it is tried until it does. Meanwhile puts
// wait or are refused (write_failed), reads go on.
Task<Status> SliceStore::apply(IndexBatch batch) {
  add_usage(batch);
  for (;;) {
    const Status applied = co_await runtime_.offload([this, &batch] { return index_->apply(batch); });
    if (applied) break;
    log_error("{}; trying again", applied.error().message());
    refuse_writes(applied.error());
    if (closing_ || retries_end_) {  // the next start replays the batch
      index_behind_ = applied.error();
      co_return applied;
    }
    co_await runtime_.sleep_for(kRetryPause);
  }
  changed_volumes_.clear();
  for (const auto& [number, usage] : batch.bundles) {
    const auto found = bundles_.find(number);  // space may have been punched out meanwhile
    if ((found == bundles_.end() && !usage) || (found != bundles_.end() && usage && found->second == *usage))
      changed_bundles_.erase(number);
  }
  hand_over_freed();
  reclaim_wanted_.notify_all();
  used_gauge_.set(held_total_);
  slices_gauge_.set(slices_total_);
  co_return Status();
}

void SliceStore::refuse_writes(Error error) {
  commit_failures_.add();
  write_failed_ = true;
  write_error_ = std::move(error);
  retry_at_ = runtime_.now() + kRetryPause;
}

}  // namespace cumulus
