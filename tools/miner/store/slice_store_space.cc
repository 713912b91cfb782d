// Space given back: holes punched where removed slices lay, and bundles of mostly garbage rewritten. One task
// does both, after what made the garbage is durable.
#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/log.h"
#include "objectstore/crypto/merkle.h"
#include "tools/miner/store/slice_store_parts.h"

namespace cumulus {

using bundle::kBlock;

namespace {
constexpr std::uint64_t kGarbageMin =
    4ULL << 20;  // less is not worth a rewrite, unless nothing lives in the bundle
constexpr Duration kRewritePause = std::chrono::seconds(30);
constexpr Duration kRewritePauseMax = std::chrono::hours(1);
constexpr std::size_t kCarriedMax = 512;  // removals carried side by side: they share commits
}  // namespace

void SliceStore::release_space(const SliceLocation& location) {
  // Packed data shares its blocks with others: it goes when its bundle is rewritten.
  if (location.length > bundle::kPackedMax) freed_.push_back(location);
}

void SliceStore::hand_over_freed() {
  if (!freed_.empty()) ++removals_;
  to_punch_.insert(to_punch_.end(), freed_.begin(), freed_.end());
  freed_.clear();
}

Task<void> SliceStore::punch_waiting() {
  while (!to_punch_.empty()) {
    const SliceLocation location = to_punch_.front();
    to_punch_.pop_front();
    const std::uint32_t number = location.data.bundle;
    if (!bundles_.contains(number)) continue;
    const std::uint64_t length = bundle::round_up(location.length, kBlock);
    const Status punched = co_await files_.punch(number, location.data.offset, length);
    const auto home = bundles_.find(number);
    if (!punched || home == bundles_.end()) continue;  // its rewrite gives the space back
    home->second.held_bytes -= std::min(home->second.held_bytes, length);
    held_total_ -= std::min(held_total_, length);
    changed_bundles_.insert(number);
  }
}

std::uint32_t SliceStore::oldest_but(std::uint32_t number) const {
  for (const auto& [other, usage] : bundles_) {
    if (other != number) return other;
  }
  return ~std::uint32_t{0};
}

std::uint64_t SliceStore::needed_removals(std::uint32_t number) const {
  const auto found = removals_in_.find(number);
  if (found == removals_in_.end()) return 0;
  std::uint64_t count = 0;
  for (auto at = found->second.lower_bound(oldest_but(number)); at != found->second.end(); ++at)
    count += at->second;
  return count;
}

std::optional<std::uint32_t> SliceStore::worst_bundle() const {
  std::optional<std::uint32_t> worst;
  std::uint64_t most = 0;
  // Near the capacity, space is worth more than the work of moving what lives.
  const bool tight = held_total_ > options_.capacity / 10 * 9;
  for (const auto& [number, usage] : bundles_) {
    if (number >= position_.bundle || number == log_->open_number()) continue;
    const auto off = put_off_.find(number);
    if (off != put_off_.end() && runtime_.now() < off->second.until) continue;
    const std::uint64_t removals = needed_removals(number);
    const std::uint64_t live = usage.live_bytes + removals * bundle::kRecordSize;
    const std::uint64_t garbage = usage.held_bytes - std::min(usage.held_bytes, live);
    const bool dead = usage.live_slices == 0 && removals == 0;
    const bool mostly = garbage > kGarbageMin && garbage > usage.held_bytes / (tight ? 8 : 2);
    const std::uint64_t worth = dead ? ~std::uint64_t{0} : garbage;
    if ((dead || mostly) && worth > most) {
      most = worth;
      worst = number;
    }
  }
  return worst;
}

Task<void> SliceStore::reclaim_loop() {
  while (!closing_) {
    co_await punch_waiting();
    const TimePoint now = runtime_.now();
    const auto victim = now >= rewrite_after_ ? worst_bundle() : std::nullopt;
    if (victim) {
      const Status rewritten = co_await BundleRewriter(*this, *victim).run();
      if (rewritten) {
        put_off_.erase(*victim);
      } else if (!closing_) {
        log_warn("rewrite {}: {}", files_.path(*victim), rewritten.error().message());
        put_off(*victim);
      }
      continue;
    }
    if (!to_punch_.empty() || closing_) continue;
    if (const auto again = next_rewrite(now)) {
      co_await reclaim_wanted_.wait_until(*again);
    } else {
      co_await reclaim_wanted_.wait();
    }
  }
}

void SliceStore::put_off(std::uint32_t number) {
  if (write_failed_) {  // no fault of this bundle
    rewrite_after_ = runtime_.now() + kRewritePause;
    return;
  }
  PutOff& off = put_off_[number];
  off.pause = std::clamp(off.pause * 2, kRewritePause, kRewritePauseMax);
  off.until = runtime_.now() + off.pause;
}

std::optional<TimePoint> SliceStore::next_rewrite(TimePoint now) const {
  std::optional<TimePoint> next;
  const auto consider = [&](TimePoint at) {
    if (at > now && (!next || at < *next)) next = at;
  };
  consider(rewrite_after_);
  for (const auto& [number, off] : put_off_) consider(off.until);
  return next;
}

Task<Status> BundleRewriter::run() {
  const auto size = store_.files_.size(number_);
  if (size) {
    CO_TRY_OK(co_await move_slices(*size));
  } else if (size.error().kind() != ErrorKind::not_found) {  // it went at the last try, but no sync followed
    co_return fail(size.error());
  }
  const auto usage = store_.bundles_.find(number_);
  CHECK(usage != store_.bundles_.end());
  if (usage->second.live_slices != 0)
    co_return fail(ErrorKind::corrupt, cumulus::format("{} slices could not be moved out of it: it is kept",
                                                       usage->second.live_slices));
  // Only now: a bundle that must be kept would have its removals carried at every try.
  if (size && removals_needed_) {
    CO_TRY_OK(co_await carry_removals(*size));
  }
  // What moved must be durable in the index before the name goes, or the next start would rebuild it all.
  CO_TRY_OK(co_await store_.runtime_.offload([this] { return store_.index_->flush(); }));
  CO_TRY_OK(co_await store_.files_.remove(number_));
  // Not before: as long as the file may be there, removals of what lies in it are needed.
  store_.held_total_ -= std::min(store_.held_total_, usage->second.held_bytes);
  store_.bundles_.erase(usage);
  store_.removals_in_.erase(number_);
  store_.changed_bundles_.insert(number_);
  co_return Status();
}

Task<Status> BundleRewriter::move_slices(std::uint64_t size) {
  BundleScanner scanner(store_.files_, store_.options_.secret, {number_, kBlock}, size);
  for (;;) {
    if (store_.closing_) co_return fail(ErrorKind::closed, "the miner is shutting down");
    CO_TRY(const auto found, co_await scanner.next());
    if (!found) co_return Status();
    for (const auto& record : found->batch.records) {
      if (record.type == bundle::RecordType::put) {
        CO_TRY_OK(co_await move(record, found->batch.at, found->manifest(record)));
      } else if (needed(record)) {
        removals_needed_ = true;
      }
    }
  }
}

Task<Status> BundleRewriter::move(const bundle::Record& record, BundlePosition at, ByteView manifest) {
  const BundlePosition data{at.bundle, at.offset + record.data_offset};
  co_await store_.lock_key(record.key);
  const SliceStore::KeyLock lock(store_, record.key);
  CO_TRY(const auto location, co_await store_.find(record.key));
  if (!location || location->data != data) co_return Status();
  auto entry = std::make_shared<SliceStore::Pending>(store_.runtime_);
  entry->key = record.key;
  entry->old = location;
  bool whole = false;
  if (!location->rotten) {
    const auto bytes = co_await store_.read_at(*location, 0, location->length);
    if (!bytes) {
      if (bytes.error().kind() != ErrorKind::io && bytes.error().kind() != ErrorKind::corrupt)
        co_return fail(bytes.error());
      // Lost, as for scrub, but it stays for now; the others go on. A later try drops it.
      co_await store_.mark_locked(record.key, *location);
      co_return Status();
    }
    const Digest root = co_await store_.runtime_.offload([&bytes] { return merkle_root(bytes->bytes); });
    whole = root == location->root;
    entry->data = bytes->owner;
    entry->offset = static_cast<std::size_t>(bytes->bytes.data() - bytes->owner->data());
  }
  if (whole) {
    entry->root = location->root;
    entry->manifest = std::make_shared<const Bytes>(manifest.begin(), manifest.end());
    entry->length = location->length;
  } else {
    log_warn("{} rotted and is dropped; its volume's repair puts it again", record.key.describe());
    entry->type = bundle::RecordType::remove;
    entry->data.reset();
  }
  co_return co_await store_.enqueue(entry);
}

// A removal matters as long as a bundle is there that may hold a put which it killed: else a rebuilt index
// would bring the slice back.
bool BundleRewriter::needed(const bundle::Record& removal) const {
  return removal.before.bundle >= store_.oldest_but(number_);
}

Task<Status> BundleRewriter::carry_removals(std::uint64_t size) {
  BundleScanner scanner(store_.files_, store_.options_.secret, {number_, kBlock}, size);
  std::vector<bundle::Record> gathered;
  for (;;) {
    if (store_.closing_) co_return fail(ErrorKind::closed, "the miner is shutting down");
    CO_TRY(const auto found, co_await scanner.next());
    if (!found) co_return co_await carry_together(gathered);
    for (const auto& record : found->batch.records) {
      if (record.type != bundle::RecordType::remove || !needed(record)) continue;
      gathered.push_back(record);
      if (gathered.size() < kCarriedMax) continue;
      CO_TRY_OK(co_await carry_together(gathered));
      gathered.clear();
    }
  }
}

Task<Status> BundleRewriter::carry_together(const std::vector<bundle::Record>& removals) {
  Status outcome;
  TaskGroup group(store_.runtime_);
  for (const auto& record : removals) {
    group.spawn([this, &record, &outcome]() -> Task<void> {
      const Status carried = co_await carry(record);
      if (!carried && outcome) outcome = carried;
    });
  }
  co_await group.join();
  co_return outcome;
}

Task<Status> BundleRewriter::carry(const bundle::Record& record) {
  co_await store_.lock_key(record.key);
  const SliceStore::KeyLock lock(store_, record.key);
  auto entry = std::make_shared<SliceStore::Pending>(store_.runtime_);
  entry->type = bundle::RecordType::remove;
  entry->key = record.key;
  entry->before = record.before;
  entry->victim = record.victim;
  entry->victim_length = record.victim_length;
  co_return co_await store_.enqueue(entry);
}

}  // namespace cumulus
