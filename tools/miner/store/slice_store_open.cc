// Opening: the index says how far it got; the bundles after that are replayed. Then torn tails are cut, and a
// new bundle will be begun by the first put.
#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/crypto/merkle.h"
#include "tools/miner/store/slice_store_parts.h"

namespace cumulus {

using bundle::kBlock;

Task<Result<std::unique_ptr<SliceStore>>> SliceStore::open(Runtime& runtime, FileSystem& files,
                                                           std::unique_ptr<SliceIndex> index,
                                                           Metrics& metrics, SliceStoreOptions options) {
  std::unique_ptr<SliceStore> store(
      new SliceStore(runtime, files, std::move(index), metrics, std::move(options)));
  CO_TRY_OK(files.create_directories(store->options_.directory + "/bundles"));
  CO_TRY_OK(co_await files.sync_directory(store->options_.directory));
  CO_TRY_OK(co_await store->load());
  SliceStore& opened = *store;
  opened.committer_.spawn(opened.commit_loop());
  opened.reclaimer_.spawn(opened.reclaim_loop());
  co_return store;
}

Task<Status> SliceStore::load() {
  CO_TRY(auto numbers, files_.list());
  CO_TRY(const bool fits, co_await index_fits(numbers));
  if (!fits) {
    log_warn("the slice index does not match the bundles in {}: rebuilding it", options_.directory);
    CO_TRY_OK(co_await runtime_.offload([this] { return index_->clear(); }));
  }
  CO_TRY(const auto totals, co_await runtime_.offload([this] { return index_->totals(); }));
  position_ = totals.position;
  for (const auto& [volume, usage] : totals.volumes) {
    volumes_[volume] = usage;
    live_total_ += usage.bytes;
    slices_total_ += usage.slices;
  }
  for (const auto& [number, usage] : totals.bundles) {
    if (!std::ranges::binary_search(numbers, number)) {
      changed_bundles_.insert(number);  // rewritten and removed; the row goes with the next commit
      continue;
    }
    bundles_[number] = usage;
    held_total_ += usage.held_bytes;
  }
  std::uint32_t newest = position_.bundle;
  for (const std::uint32_t number : numbers) {
    newest = std::max(newest, number);
    if (number >= position_.bundle) {
      CO_TRY_OK(co_await replay_bundle(number, number == numbers.back()));
    } else if (!bundles_.contains(number)) {
      // Its rewrite was finished but for the name.
      CO_TRY_OK(co_await files_.remove(number));
    }
  }
  log_ = std::make_unique<BundleLog>(runtime_, files_, options_.secret, options_.bundle_size, newest + 1);
  used_gauge_.set(held_total_);
  slices_gauge_.set(slices_total_);
  co_return Status();
}

// Not when it is ahead of the bundles, or knows slices in bundles that are gone.
Task<Result<bool>> SliceStore::index_fits(const std::vector<std::uint32_t>& numbers) {
  CO_TRY(const auto totals, co_await runtime_.offload([this] { return index_->totals(); }));
  for (const auto& [number, usage] : totals.bundles) {
    const bool there = std::ranges::binary_search(numbers, number);
    if (!there && usage.live_slices != 0) co_return false;
    if (!there) continue;
    CO_TRY(const std::uint64_t size, files_.size(number));
    if (size < usage.end) co_return false;
  }
  co_return true;
}

Task<Status> SliceStore::replay_bundle(std::uint32_t number, bool newest) {
  const auto known = bundles_.find(number);
  const Status header = co_await files_.check_header(number);
  if (!header && header.error().kind() == ErrorKind::unsupported) co_return header;
  CO_TRY(const std::uint64_t size, files_.size(number));
  const std::uint64_t from = position_.bundle == number ? std::max(position_.offset, kBlock) : kBlock;
  BundleScanner scanner(files_, options_.secret, {number, from}, size);
  std::optional<BundleScanner::Found> held;  // one behind: only the newest batch can be torn
  for (;;) {
    CO_TRY(auto found, co_await scanner.next());
    if (held) {
      CO_TRY_OK(co_await replay_batch(*std::move(held), !found));
    }
    if (!found) break;
    held = std::move(found);
  }
  if (scanner.skipped() != 0)
    log_error(
        "{}: {} bytes in its middle belong to no batch: rot; the slices that were described there are lost",
        files_.path(number), scanner.skipped());
  const std::uint64_t end = std::max(scanner.good_end(), known == bundles_.end() ? 0 : from);
  if (end == 0) {
    if (header || size < kBlock) co_return co_await files_.remove(number);
    // Cut off while it was made: only the newest can be. Kept under another name, in case it is not that.
    if (newest) {
      log_warn("{}; set aside", header.error().message());
      co_return co_await files_.set_aside(number);
    }
    co_return fail(header.error().within("the bundles are not this store's (is DIR/config the right one?)"));
  }
  if (end < size) {
    const Status cut = co_await files_.cut(number, end);
    if (!cut) log_warn("cut {} to its length: {}", files_.path(number), cut.error().message());
  }
  co_return Status();
}

Task<Status> SliceStore::replay_batch(BundleScanner::Found found, bool newest) {
  if (newest) {
    CO_TRY_OK(co_await drop_torn(found));
  }
  struct Looked {
    Status status;
    std::vector<std::optional<SliceLocation>> old;
  };
  auto looked = co_await runtime_.offload([&]() -> Looked {
    Looked result;
    for (const auto& record : found.batch.records) {
      auto location = index_->find(record.key);
      if (!location) return {fail(location.error()), {}};
      result.old.push_back(*std::move(location));
    }
    return result;
  });
  CO_TRY_OK(looked.status);
  std::vector<ByteView> manifests;
  manifests.reserve(found.batch.records.size());
  for (const auto& record : found.batch.records) manifests.push_back(found.manifest(record));
  IndexBatch changes = fold(found.batch, looked.old, manifests);
  add_usage(changes);
  CO_TRY_OK(co_await runtime_.offload([&] { return index_->apply(changes); }));
  changed_volumes_.clear();
  changed_bundles_.clear();
  hand_over_freed();
  co_return Status();
}

// The head of a batch may have reached the disk and its extents not: only slices that hash to their roots
// count.
Task<Status> SliceStore::drop_torn(BundleScanner::Found& found) {
  std::vector<bundle::Record> whole;
  for (const auto& record : found.batch.records) {
    bool good = record.type == bundle::RecordType::remove;
    if (!good) {
      SliceLocation location;
      location.data = {found.batch.at.bundle, found.batch.at.offset + record.data_offset};
      location.length = record.data_length;
      const auto bytes = co_await read_at(location, 0, record.data_length);
      if (bytes) {
        const Digest root = co_await runtime_.offload([&bytes] { return merkle_root(bytes->bytes); });
        good = root == record.root;
      }
    }
    if (good) {
      whole.push_back(record);
    } else {
      log_info("{}: torn by the last stop, never acknowledged: dropped", record.key.describe());
    }
  }
  found.batch.records = std::move(whole);
  co_return Status();
}

}  // namespace cumulus
