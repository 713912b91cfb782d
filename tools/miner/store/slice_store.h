// SliceStore: everything a miner stores, behind one door: put, read, prove, list, have, remove.
//
// What it acknowledged it never loses: a put returns after the manifest's signature was checked, the slice's
// Merkle root recomputed over the received bytes, and bundles were synced with it (many puts share one
// fdatasync). It keeps no file for a slice: bundles are an append-only log, the index is that log replayed.
// When the disk refuses, puts fail with no_space or io and reads go on; the next put tries afresh. FORMAT.md
// has the files.
//
// Thread rule: reactor. Hashing and index look-ups run on workers. Volumes do not see each other: every call
// names one. Bounds: the caller's windows bound puts and reads in flight; queues here hold what they admit.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "objectstore/base/metrics.h"
#include "objectstore/io/file.h"
#include "objectstore/io/sync.h"
#include "objectstore/manifest.h"
#include "tools/miner/store/buffer_pools.h"
#include "tools/miner/store/bundle_files.h"
#include "tools/miner/store/bundle_log.h"
#include "tools/miner/store/bundle_scanner.h"
#include "tools/miner/store/leaf_cache.h"
#include "tools/miner/store/slice_index.h"

namespace cumulus {

struct SliceStoreOptions {
  std::string directory;  // holds bundles/
  bundle::StoreSecret secret{};
  std::uint64_t capacity = 0;                   // bytes that bundles may hold
  std::uint64_t bundle_size = 256ULL << 20;     // less when the capacity is small (bundle_size_for)
  std::uint64_t free_min = 64ULL << 20;         // disk space that puts leave alone
  std::uint64_t batch_bytes_max = 32ULL << 20;  // one group commit
  std::size_t batch_entries_max = 1024;
  std::size_t leaf_cache_bytes = 8 << 20;
};
// 256 MiB, or an eighth of the capacity when that is less, at least 8 MiB.
std::uint64_t bundle_size_for(std::uint64_t capacity);

struct StoredRange {
  std::shared_ptr<Buffer> owner;  // read buffer
  ByteView bytes;                 // the range, inside owner
};

struct ProvenRange {
  std::uint64_t leaves_offset = 0;
  StoredRange leaves;
  Bytes proof;
};

struct StoreTotals {
  std::uint64_t used = 0;  // bytes held in bundles, garbage included
  std::uint64_t live = 0;
  std::uint64_t slices = 0;
  std::uint64_t volumes = 0;
  std::uint64_t bundles = 0;
};

class SliceStore {
 public:
  // Replays what the index lacks. An index that is ahead of the bundles (another disk's, a restored one) is
  // cleared and rebuilt. corrupt or unsupported when the bundles are not this store's.
  static Task<Result<std::unique_ptr<SliceStore>>> open(Runtime& runtime, FileSystem& files,
                                                        std::unique_ptr<SliceIndex> index, Metrics& metrics,
                                                        SliceStoreOptions options);
  ~SliceStore();
  SliceStore(const SliceStore&) = delete;
  SliceStore& operator=(const SliceStore&) = delete;

  struct Put {
    SliceKey key;
    std::shared_ptr<const Bytes> manifest;
    // The slice's bytes begin at the buffer's start; its size is a multiple of 4096.
    std::shared_ptr<Buffer> data;
    std::size_t length = 0;
    std::uint64_t quota = 0;  // of the volume, bytes
  };
  // corrupt (manifest, volume, root or length do not fit), exists (other root), no_space, io, closed.
  Task<Status> put(Put request);
  // Slices that are not there count as removed. Durable when it returns.
  Task<Status> remove(VolumeId volume, std::vector<SliceId> slices);

  // One disk read. not_found; corrupt: known to be rotten; invalid: beyond the end.
  Task<Result<StoredRange>> read(SliceKey key, std::uint64_t offset, std::uint64_t length);
  // The whole leaves around the range, with their Merkle proof. Reads and checks the whole slice when its
  // leaf digests are not at hand; a mismatch marks it rotten.
  Task<Result<ProvenRange>> prove(SliceKey key, std::uint64_t offset, std::uint64_t length);
  Task<Result<Bytes>> manifest(SliceKey key);
  Task<Result<std::vector<IndexedManifest>>> list(VolumeId volume, std::optional<SliceId> after,
                                                  std::size_t count_max, std::size_t bytes_max);
  Task<Result<std::vector<std::optional<Digest>>>> have(VolumeId volume, std::vector<SliceId> slices);

  // Slices in key order after `after`, of all volumes: for scrub.
  Task<Result<std::vector<IndexedSlice>>> page(std::optional<SliceKey> after, std::size_t count_max);
  // Re-reads a slice and compares its root. False when it is bad (then it is marked); true also when it is
  // gone.
  Task<Result<bool>> scrub(SliceKey key);

  // Where buffers for put() come from.
  BufferPools& buffers() { return buffers_; }
  StoreTotals totals() const;
  VolumeUsage usage(const VolumeId& volume) const;
  std::uint64_t capacity() const { return options_.capacity; }
  // The last group commit failed: the disk refuses writes.
  bool write_failed() const { return write_failed_; }
  // What the index does not take now fails from here on (the next start replays it), so that whoever waits
  // for such a put can end before close() is called.
  void end_retries() { retries_end_ = true; }
  // All that was asked for is done, then files are closed. Call once, before destruction.
  Task<void> close();

 private:
  friend class BundleRewriter;
  static constexpr Duration kRetryPause = std::chrono::seconds(1);
  static constexpr std::size_t kRemovedTogether = 256;  // slices of one remove() at a time
  struct Pending;
  class Call;
  class KeyLock;

  SliceStore(Runtime& runtime, FileSystem& files, std::unique_ptr<SliceIndex> index, Metrics& metrics,
             SliceStoreOptions options);

  // Opening.
  Task<Status> load();
  Task<Result<bool>> index_fits(const std::vector<std::uint32_t>& numbers);
  Task<Status> replay_bundle(std::uint32_t number, bool newest);
  Task<Status> replay_batch(BundleScanner::Found found, bool newest);
  Task<Status> drop_torn(BundleScanner::Found& found);

  // The committer: one task, one batch at a time.
  Task<void> commit_loop();
  std::vector<std::shared_ptr<Pending>> take_batch();
  Task<Status> commit(std::vector<std::shared_ptr<Pending>> entries);
  Task<Status> enqueue(std::shared_ptr<Pending> entry);
  IndexBatch fold(const bundle::Batch& batch, const std::vector<std::optional<SliceLocation>>& old,
                  const std::vector<ByteView>& manifests);
  Task<Status> apply(IndexBatch batch);
  void refuse_writes(Error error);
  // Fills the absolute values of what changed since the last apply.
  void add_usage(IndexBatch& batch);

  Task<void> lock_key(SliceKey key);
  Task<Status> put_locked(Put request);
  Task<Status> remove_one(SliceKey key);
  // `replaced`: what the key's slice of now takes of the quota, and gives back.
  Status room_for(const Put& request, std::uint64_t charge, std::uint64_t replaced) const;
  Task<Result<std::optional<SliceLocation>>> find(SliceKey key);
  Task<Result<SliceLocation>> find_whole(SliceKey key);
  Task<Result<StoredRange>> read_at(SliceLocation location, std::uint64_t offset, std::uint64_t length);
  Task<Result<bool>> still_good(SliceKey key, SliceLocation location);
  Task<void> mark_locked(SliceKey key, SliceLocation seen);
  Task<void> mark_rotten(SliceKey key, SliceLocation seen);

  // Space.
  void release_space(const SliceLocation& location);
  void hand_over_freed();
  Task<void> reclaim_loop();
  Task<void> punch_waiting();
  std::optional<std::uint32_t> worst_bundle() const;
  // The oldest bundle that holds anything, `number` left out.
  std::uint32_t oldest_but(std::uint32_t number) const;
  // Removals in a bundle that older bundles still need, as far as is known (removals_in_).
  std::uint64_t needed_removals(std::uint32_t number) const;
  void put_off(std::uint32_t number);
  // When something that is put off at `now` comes up again.
  std::optional<TimePoint> next_rewrite(TimePoint now) const;

  Runtime& runtime_;
  SliceStoreOptions options_;
  BundleFiles files_;
  BufferPools buffers_;
  std::unique_ptr<SliceIndex> index_;
  std::unique_ptr<BundleLog> log_;
  LeafCache leaf_cache_;

  // What volumes and bundles hold, as the index will say after the next apply.
  std::unordered_map<VolumeId, VolumeUsage> volumes_;
  std::map<std::uint32_t, BundleUsage> bundles_;
  // By bundle: how many removals it holds, by the bundle of their `before`. In memory alone: what the index
  // had at the start is not counted, so such a bundle is rewritten once more at most.
  std::map<std::uint32_t, std::map<std::uint32_t, std::uint64_t>> removals_in_;
  std::unordered_set<VolumeId> changed_volumes_;
  std::set<std::uint32_t> changed_bundles_;
  std::uint64_t held_total_ = 0;
  std::uint64_t live_total_ = 0;
  std::uint64_t slices_total_ = 0;
  BundlePosition position_;

  // Admitted, not yet in a batch.
  std::unordered_map<VolumeId, std::uint64_t> reserved_;
  std::uint64_t reserved_total_ = 0;

  std::deque<std::shared_ptr<Pending>> queue_;
  Signal queue_changed_;
  std::unordered_set<SliceKey> locked_keys_;
  Signal keys_changed_;
  std::vector<SliceLocation> freed_;  // by the commit under way: to_punch_ gets it once the index has it
  std::deque<SliceLocation> to_punch_;
  Signal reclaim_wanted_;
  // Readers of a bundle whose bytes may be punched meanwhile look again when this moved.
  std::uint64_t removals_ = 0;
  TimePoint rewrite_after_;  // the disk took no rewrite: not before this
  struct PutOff {
    TimePoint until;
    Duration pause{};
  };
  std::map<std::uint32_t, PutOff> put_off_;  // bundles whose own rewrite failed

  bool write_failed_ = false;
  Error write_error_{ErrorKind::io, ""};
  TimePoint retry_at_;
  bool closing_ = false;
  bool retries_end_ = false;
  std::optional<Error> index_behind_;  // it did not take a batch: none may follow
  std::size_t calls_ = 0;
  Signal idle_;
  bool commits_end_ = false;
  TaskGroup committer_;
  TaskGroup reclaimer_;

  Counter& puts_;
  Counter& put_bytes_;
  Counter& commits_;
  Counter& commit_failures_;
  Counter& rotten_found_;
  Counter& used_gauge_;
  Counter& slices_gauge_;
};

}  // namespace cumulus
