#include "objectstore/log/sync_barrier.h"

#include "objectstore/base/check.h"

namespace cumulus {

void SyncBarrier::add(Sequence segment, std::shared_ptr<SegmentSlot> slot) {
  auto entry = std::make_shared<Entry>();
  entry->slot = std::move(slot);
  const MutexLock lock(mutex_);
  CHECK(entries_.emplace(segment, std::move(entry)).second);
}

void SyncBarrier::remove(Sequence segment) {
  const MutexLock lock(mutex_);
  const auto found = entries_.find(segment);
  if (found == entries_.end()) return;
  found->second->durable = true;
  entries_.erase(found);
  changed_.notify_all();
}

void SyncBarrier::replace(Sequence segment, std::shared_ptr<SegmentSlot> slot) {
  const MutexLock lock(mutex_);
  Entry& entry = *entries_.at(segment);
  entry.slot = std::move(slot);
  entry.error.reset();
  changed_.notify_all();
}

void SyncBarrier::begin_reactor_sync(Sequence segment) {
  const MutexLock lock(mutex_);
  entries_.at(segment)->reactor_sync = true;
}

void SyncBarrier::end_reactor_sync(Sequence segment, const Status& status) {
  const MutexLock lock(mutex_);
  Entry& entry = *entries_.at(segment);
  entry.reactor_sync = false;
  if (!status && !entry.error) entry.error = status.error();
  changed_.notify_all();
}

void SyncBarrier::set_failed(Sequence segment, const Error& error) {
  const MutexLock lock(mutex_);
  Entry& entry = *entries_.at(segment);
  if (!entry.error) entry.error = error;
}

bool SyncBarrier::quiet(Sequence segment) const {
  const MutexLock lock(mutex_);
  return entries_.at(segment)->blocking == 0;
}

std::optional<Error> SyncBarrier::failed(Sequence segment) const {
  const MutexLock lock(mutex_);
  return entries_.at(segment)->error;
}

void SyncBarrier::give_up(const Error& error) {
  const MutexLock lock(mutex_);
  if (!given_up_) given_up_ = error;
  changed_.notify_all();
}

Status SyncBarrier::sync_all_blocking() {
  std::map<Sequence, std::shared_ptr<Entry>> entries;
  {
    const MutexLock lock(mutex_);
    if (given_up_) return fail(*given_up_);
    entries = entries_;
  }
  for (const auto& [segment, entry] : entries) TRY_OK(sync_entry(entry));
  return {};
}

Status SyncBarrier::sync_entry(const std::shared_ptr<Entry>& entry) {
  const bool reactor = on_reactor();
  for (;;) {
    std::shared_ptr<SegmentSlot> slot;
    {
      MutexLock lock(mutex_);
      if (entry->error && !reactor)
        lock.wait(changed_,
                  [&]() NO_THREAD_SAFETY_ANALYSIS { return given_up_ || entry->durable || !entry->error; });
      if (entry->durable) return {};
      if (given_up_) return fail(*given_up_);
      if (entry->error) return fail(*entry->error);
      slot = entry->slot;
      ++entry->blocking;
    }
    const Status status = slot->file().datasync_blocking();
    bool again = false;
    {
      MutexLock lock(mutex_);
      if (!status && slot == entry->slot && !entry->error) entry->error = status.error();
      if (--entry->blocking == 0) changed_.notify_all();
      if (status && entry->reactor_sync && !reactor)
        lock.wait(changed_, [&]() NO_THREAD_SAFETY_ANALYSIS {
          return given_up_ || entry->durable || !entry->reactor_sync;
        });
      again = !entry->durable && (entry->error || slot != entry->slot);
    }
    slot.reset();
    wake_();
    if (!again) return {};
    if (reactor && !status) return status;
  }
}

}  // namespace cumulus
