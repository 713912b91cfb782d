// The calls of SliceStore. Commits are in slice_store_commit.cc, replay in slice_store_open.cc, space in
// slice_store_space.cc.
#include "tools/miner/store/slice_store.h"

#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/crypto/merkle.h"
#include "tools/miner/store/slice_check.h"
#include "tools/miner/store/slice_store_parts.h"

namespace cumulus {

using bundle::kBlock;

SliceStore::SliceStore(Runtime& runtime, FileSystem& files, std::unique_ptr<SliceIndex> index,
                       Metrics& metrics, SliceStoreOptions options)
    : runtime_(runtime),
      options_(std::move(options)),
      files_(files, options_.directory + "/bundles", options_.secret, options_.free_min),
      index_(std::move(index)),
      leaf_cache_(options_.leaf_cache_bytes),
      queue_changed_(runtime),
      keys_changed_(runtime),
      reclaim_wanted_(runtime),
      idle_(runtime),
      committer_(runtime),
      reclaimer_(runtime),
      puts_(metrics.counter("cumulus_miner_slices_put_total")),
      put_bytes_(metrics.counter("cumulus_miner_put_bytes_total")),
      commits_(metrics.counter("cumulus_miner_commits_total")),
      commit_failures_(metrics.counter("cumulus_miner_commit_failures_total")),
      rotten_found_(metrics.counter("cumulus_miner_rotten_slices_found_total")),
      used_gauge_(metrics.counter("cumulus_miner_used_bytes")),
      slices_gauge_(metrics.counter("cumulus_miner_slices")) {}

SliceStore::~SliceStore() { CHECK(calls_ == 0 && committer_.running() == 0 && reclaimer_.running() == 0); }

Task<void> SliceStore::close() {
  closing_ = true;
  while (calls_ != 0) co_await idle_.wait();
  reclaim_wanted_.notify_all();
  co_await reclaimer_.join();  // it may still commit
  commits_end_ = true;
  queue_changed_.notify_all();
  co_await committer_.join();
  if (log_) co_await log_->close();
  const Status flushed = co_await runtime_.offload([this] { return index_->flush(); });
  if (!flushed) log_warn("{}; the next start replays more of the bundles", flushed.error().message());
}

Task<void> SliceStore::lock_key(SliceKey key) {
  while (locked_keys_.contains(key)) co_await keys_changed_.wait();
  locked_keys_.insert(key);
}

Status SliceStore::room_for(const Put& request, std::uint64_t charge, std::uint64_t replaced) const {
  const auto reserved = reserved_.find(request.key.volume);
  const std::uint64_t promised = reserved == reserved_.end() ? 0 : reserved->second;
  const std::uint64_t used = usage(request.key.volume).bytes - replaced + promised;
  if (used + charge > request.quota)
    return fail(ErrorKind::no_space,
                cumulus::format("volume {} uses {} of its quota of {} bytes on this miner",
                                request.key.volume.brief(), used, request.quota));
  if (held_total_ + reserved_total_ + charge + kBlock > options_.capacity)
    return fail(ErrorKind::no_space,
                cumulus::format("the miner holds {} of its {} bytes", held_total_, options_.capacity));
  if (write_failed_ && runtime_.now() < retry_at_) return fail(write_error_);
  return {};
}

Task<Status> SliceStore::put(Put request) {
  CHECK(request.data && request.data->size() % kBlock == 0 && request.length <= request.data->size());
  const Call call(*this);
  if (closing_) co_return fail(ErrorKind::closed, "the miner is shutting down");
  co_await lock_key(request.key);
  const KeyLock lock(*this, request.key);
  co_return co_await put_locked(std::move(request));
}

Task<Status> SliceStore::put_locked(Put request) {
  struct Checked {
    Status verified;
    Digest root{};
    Result<std::optional<SliceLocation>> old;
    bool same_manifest = false;  // as the old one's
  };
  // Cheap refusals first; hashing is the dear part.
  SliceLocation location;
  location.length = request.length;
  location.manifest_length = static_cast<std::uint32_t>(request.manifest->size());
  const std::uint64_t charge = location.charge();
  const Checked checked = co_await runtime_.offload([&]() -> Checked {
    Checked result{{}, {}, index_->find(request.key)};
    if (!result.old) return result;
    const auto root = verify_slice(request.key, *request.manifest, request.data->view(0, request.length));
    if (root)
      result.root = *root;
    else
      result.verified = fail(root.error());
    if (!*result.old) return result;
    const auto manifest = index_->manifest(request.key);
    result.same_manifest = manifest && *manifest == *request.manifest;
    return result;
  });
  if (!checked.old) co_return fail(checked.old.error());
  CO_TRY_OK(checked.verified);
  auto old = *checked.old;
  if (old && !old->rotten) {
    if (old->root != checked.root)
      co_return fail(ErrorKind::exists, request.key.describe() + " is stored here with other content");
    // What is listed is the manifest: equal bytes under another one are no part of that segment.
    if (!checked.same_manifest)
      co_return fail(ErrorKind::exists, request.key.describe() + " is stored here under another manifest");
    // "Stored" is a promise about the bytes on the disk now: who sends a slice again may do so because they
    // rotted. Nor does a removal that failed, and lies in a bundle still, take it away later: it is written
    // anew behind that.
    CO_TRY(const bool good, co_await still_good(request.key, *old));
    if (good && !log_->holds_failed_batch()) co_return Status();
    if (!good) {
      // Known as rotten before anything else: its replacement may find no room.
      co_await mark_locked(request.key, *old);
      CO_TRY(old, co_await find(request.key));
    }
  }
  CO_TRY_OK(room_for(request, charge, old ? old->charge() : 0));
  auto entry = std::make_shared<Pending>(runtime_);
  entry->type = bundle::RecordType::put;
  entry->key = request.key;
  entry->root = checked.root;
  entry->manifest = request.manifest;
  entry->data = request.data;
  entry->length = request.length;
  entry->charge = charge;
  entry->old = old;
  CO_TRY_OK(co_await enqueue(entry));
  puts_.add();
  put_bytes_.add(request.length);
  co_return Status();
}

Task<Status> SliceStore::remove(VolumeId volume, std::vector<SliceId> slices) {
  const Call call(*this);
  if (closing_) co_return fail(ErrorKind::closed, "the miner is shutting down");
  Status outcome;
  for (std::size_t first = 0; first < slices.size(); first += kRemovedTogether) {
    TaskGroup removals(runtime_);
    const std::size_t end = std::min(slices.size(), first + kRemovedTogether);
    for (std::size_t i = first; i < end; ++i) {
      removals.spawn([this, key = SliceKey{volume, slices[i]}, &outcome]() -> Task<void> {
        const Status removed = co_await remove_one(key);
        if (!removed && outcome) outcome = removed;
      });
    }
    co_await removals.join();
  }
  co_return outcome;
}

Task<Status> SliceStore::remove_one(SliceKey key) {
  co_await lock_key(key);
  const KeyLock lock(*this, key);
  CO_TRY(const auto old, co_await find(key));
  if (!old) co_return Status();
  auto entry = std::make_shared<Pending>(runtime_);
  entry->type = bundle::RecordType::remove;
  entry->key = key;
  entry->old = old;
  co_return co_await enqueue(entry);
}

Task<Result<std::optional<SliceLocation>>> SliceStore::find(SliceKey key) {
  if (const auto cached = index_->find_cached(key)) co_return *cached;
  co_return co_await runtime_.offload([this, &key] { return index_->find(key); });
}

Task<Result<SliceLocation>> SliceStore::find_whole(SliceKey key) {
  CO_TRY(const auto location, co_await find(key));
  if (!location) co_return fail(ErrorKind::not_found, key.describe() + " is not stored here");
  if (location->rotten)
    co_return fail(ErrorKind::corrupt, key.describe() + " rotted on this miner's disk: put it again");
  co_return *location;
}

Task<Result<StoredRange>> SliceStore::read_at(SliceLocation location, std::uint64_t offset,
                                              std::uint64_t length) {
  const std::uint64_t first = location.data.offset + offset;
  const std::uint64_t from = first / kBlock * kBlock;
  const std::uint64_t to = bundle::round_up(first + length, kBlock);
  StoredRange range;
  range.owner = buffers_.acquire(std::max<std::uint64_t>(to - from, kBlock));
  CO_TRY(const std::size_t got,
         co_await files_.read(location.data.bundle, from, range.owner->view(0, to - from)));
  if (got < first - from + length)
    co_return fail(ErrorKind::corrupt, cumulus::format("{} ends at {}, before the slice's end",
                                                       files_.path(location.data.bundle), from + got));
  range.bytes = range.owner->view(first - from, length);
  co_return range;
}

Task<Result<StoredRange>> SliceStore::read(SliceKey key, std::uint64_t offset, std::uint64_t length) {
  const Call call(*this);
  for (;;) {
    const std::uint64_t removals = removals_;
    CO_TRY(const SliceLocation location, co_await find_whole(key));
    if (offset > location.length || length > location.length - offset)
      co_return fail(ErrorKind::invalid, cumulus::format("{} has {} bytes; {} from {} were asked for",
                                                         key.describe(), location.length, length, offset));
    auto range = co_await read_at(location, offset, length);
    if (removals == removals_) co_return range;
    // Something was removed or moved meanwhile, perhaps this: its bytes may have been punched under the read.
    CO_TRY(const SliceLocation still, co_await find_whole(key));
    if (still == location) co_return range;
  }
}

Task<Result<ProvenRange>> SliceStore::prove(SliceKey key, std::uint64_t offset, std::uint64_t length) {
  const Call call(*this);
  CO_TRY(const SliceLocation location, co_await find_whole(key));
  if (length == 0 || offset > location.length || length > location.length - offset)
    co_return fail(ErrorKind::invalid, cumulus::format("{} has {} bytes; a proof of {} from {} was asked for",
                                                       key.describe(), location.length, length, offset));
  auto leaves = leaf_cache_.find(key, location.root);
  if (!leaves) {
    CO_TRY(const StoredRange whole, co_await read(key, 0, location.length));
    auto digests = co_await runtime_.offload([&whole] { return merkle_leaves(whole.bytes); });
    if (merkle_root(digests, location.length) != location.root) {
      co_await mark_rotten(key, location);
      co_return fail(ErrorKind::corrupt, key.describe() + " rotted on this miner's disk: put it again");
    }
    leaves = std::make_shared<const std::vector<Digest>>(std::move(digests));
    leaf_cache_.insert(key, location.root, leaves);
  }
  ProvenRange proven;
  const std::uint64_t first = offset / kMerkleLeafSize;
  const std::uint64_t last = (offset + length - 1) / kMerkleLeafSize;
  proven.leaves_offset = first * kMerkleLeafSize;
  const std::uint64_t end = std::min(location.length, (last + 1) * kMerkleLeafSize);
  CO_TRY(proven.leaves, co_await read(key, proven.leaves_offset, end - proven.leaves_offset));
  proven.proof = merkle_proof(*leaves, first, last - first + 1);
  co_return proven;
}

Task<Result<Bytes>> SliceStore::manifest(SliceKey key) {
  const Call call(*this);
  CO_TRY(auto found, co_await runtime_.offload([this, &key] { return index_->manifest(key); }));
  if (!found) co_return fail(ErrorKind::not_found, key.describe() + " is not stored here");
  co_return *std::move(found);
}

Task<Result<std::vector<IndexedManifest>>> SliceStore::list(VolumeId volume, std::optional<SliceId> after,
                                                            std::size_t count_max, std::size_t bytes_max) {
  const Call call(*this);
  co_return co_await runtime_.offload([&] { return index_->list(volume, after, count_max, bytes_max); });
}

Task<Result<std::vector<std::optional<Digest>>>> SliceStore::have(VolumeId volume,
                                                                  std::vector<SliceId> slices) {
  const Call call(*this);
  using Roots = std::vector<std::optional<Digest>>;
  co_return co_await runtime_.offload([&]() -> Result<Roots> {
    Roots roots;
    roots.reserve(slices.size());
    for (const SliceId& slice : slices) {
      TRY(const auto location, index_->find({volume, slice}));
      roots.push_back(location && !location->rotten ? std::optional(location->root) : std::nullopt);
    }
    return roots;
  });
}

Task<Result<std::vector<IndexedSlice>>> SliceStore::page(std::optional<SliceKey> after,
                                                         std::size_t count_max) {
  const Call call(*this);
  co_return co_await runtime_.offload([&] { return index_->page(after, count_max); });
}

Task<Result<bool>> SliceStore::scrub(SliceKey key) {
  const Call call(*this);
  CO_TRY(const auto location, co_await find(key));
  if (!location) co_return true;
  if (location->rotten) co_return false;
  CO_TRY(const bool good, co_await still_good(key, *location));
  if (!good) co_await mark_rotten(key, *location);
  co_return good;
}

// Reads it back and compares its root; nothing is marked. True also when it was removed meanwhile.
Task<Result<bool>> SliceStore::still_good(SliceKey key, SliceLocation location) {
  const auto whole = co_await read(key, 0, location.length);
  if (!whole && whole.error().kind() == ErrorKind::not_found) co_return true;
  if (!whole) {
    // A disk that cannot read the slice back has lost it just the same.
    if (whole.error().kind() == ErrorKind::io || whole.error().kind() == ErrorKind::corrupt) co_return false;
    co_return fail(whole.error());
  }
  const Digest root = co_await runtime_.offload([&whole] { return merkle_root(whole->bytes); });
  co_return root == location.root;
}

Task<void> SliceStore::mark_rotten(SliceKey key, SliceLocation seen) {
  co_await lock_key(key);
  const KeyLock lock(*this, key);
  co_await mark_locked(key, seen);
}

// The caller holds the key.
Task<void> SliceStore::mark_locked(SliceKey key, SliceLocation seen) {
  const auto now = co_await find(key);
  // Moved, removed or put again meanwhile: what was seen was not its bytes.
  if (!now || !*now || **now != seen) co_return;
  rotten_found_.add();
  // A dying disk has millions of them: the metric counts all, the log shows some.
  if (const std::uint64_t found = rotten_found_.value(); found <= 20 || found % 1000 == 0)
    log_warn("{} does not match its root any more: marked rotten ({} since start)", key.describe(), found);
  leaf_cache_.erase(key);
  seen.rotten = true;
  auto entry = std::make_shared<Pending>(runtime_);
  entry->key = key;
  entry->mark = seen;
  (void)co_await enqueue(entry);  // failing, the next scrub finds it again
}

StoreTotals SliceStore::totals() const {
  StoreTotals totals;
  totals.used = held_total_;
  totals.volumes = volumes_.size();
  totals.bundles = bundles_.size();
  totals.live = live_total_;
  totals.slices = slices_total_;
  return totals;
}

VolumeUsage SliceStore::usage(const VolumeId& volume) const {
  const auto found = volumes_.find(volume);
  return found == volumes_.end() ? VolumeUsage{} : found->second;
}

std::uint64_t bundle_size_for(std::uint64_t capacity) {
  std::uint64_t size = 256ULL << 20;
  while (size > capacity / 8 && size > 8ULL << 20) size /= 2;
  return size;
}

}  // namespace cumulus
