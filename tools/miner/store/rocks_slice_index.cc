// The miner's only include of RocksDB. Keys: 's' + sortable key = location, 'm' + sortable key = manifest,
// 'v' + volume = usage, 'b' + bundle = usage, 'p' = position (FORMAT.md).
#include "tools/miner/store/rocks_slice_index.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include "objectstore/base/codec.h"

namespace cumulus {
namespace {

rocksdb::Slice slice_of(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
ByteView view_of_slice(const rocksdb::Slice& slice) {
  return view_of(std::string_view(slice.data(), slice.size()));
}

Error from_rocks(const rocksdb::Status& status, std::string_view what) {
  ErrorKind kind = ErrorKind::io;
  if (status.IsCorruption()) kind = ErrorKind::corrupt;
  if (status.IsNoSpace()) kind = ErrorKind::no_space;
  return {kind, std::string(what) + ": " + status.ToString()};
}

Bytes encode_location(const SliceLocation& location) {
  Bytes out;
  Encoder to(out);
  to.u32(location.data.bundle);
  to.u64(location.data.offset);
  to.u64(location.length);
  to.u32(location.manifest_length);
  to.u8(location.rotten ? 1 : 0);
  to.bytes(location.root);
  return out;
}

Result<SliceLocation> decode_location(ByteView bytes) {
  Decoder from(bytes);
  SliceLocation location;
  location.data.bundle = from.u32();
  location.data.offset = from.u64();
  location.length = from.u64();
  location.manifest_length = from.u32();
  location.rotten = from.u8() != 0;
  location.root = from.array<32>();
  if (!from.done()) return fail(ErrorKind::corrupt, "slice index: a location row does not parse");
  return location;
}

std::string volume_key(const VolumeId& volume) { return "v" + std::string(text_of(volume.view())); }
std::string bundle_key(std::uint32_t bundle) {
  std::string key = "b";
  for (int shift = 24; shift >= 0; shift -= 8) key.push_back(static_cast<char>(bundle >> shift));
  return key;
}

class RocksSliceIndex final : public SliceIndex {
 public:
  explicit RocksSliceIndex(std::unique_ptr<rocksdb::DB> db) : db_(std::move(db)) {}

  Result<IndexTotals> totals() override;
  Result<std::optional<SliceLocation>> find(const SliceKey& key) override;
  std::optional<std::optional<SliceLocation>> find_cached(const SliceKey& key) override;
  Result<std::optional<Bytes>> manifest(const SliceKey& key) override;
  Result<std::vector<IndexedManifest>> list(const VolumeId& volume, std::optional<SliceId> after,
                                            std::size_t count_max, std::size_t bytes_max) override;
  Result<std::vector<IndexedSlice>> page(std::optional<SliceKey> after, std::size_t count_max) override;
  Status apply(const IndexBatch& batch) override;
  Status flush() override;
  Status clear() override;

 private:
  std::unique_ptr<rocksdb::Iterator> iterate(const std::string& from) {
    rocksdb::ReadOptions options;
    options.fill_cache = false;
    options.total_order_seek = true;
    std::unique_ptr<rocksdb::Iterator> rows(db_->NewIterator(options));
    rows->Seek(from);
    return rows;
  }
  std::unique_ptr<rocksdb::DB> db_;
};

Result<IndexTotals> RocksSliceIndex::totals() {
  IndexTotals totals;
  std::string value;
  const auto got = db_->Get(rocksdb::ReadOptions(), "p", &value);
  if (got.IsNotFound()) return totals;
  if (!got.ok()) return fail(from_rocks(got, "slice index: read the position"));
  Decoder position(view_of(value));
  totals.position.bundle = position.u32();
  totals.position.offset = position.u64();
  if (!position.done()) return fail(ErrorKind::corrupt, "slice index: the position row does not parse");
  auto rows = iterate("b");
  for (; rows->Valid() && rows->key().starts_with("b") && rows->key().size() == 5; rows->Next()) {
    std::uint32_t number = 0;
    for (int i = 1; i <= 4; ++i) number = number << 8 | static_cast<std::uint8_t>(rows->key()[i]);
    Decoder from(view_of_slice(rows->value()));
    BundleUsage usage;
    usage.end = from.u64();
    usage.live_bytes = from.u64();
    usage.held_bytes = from.u64();
    usage.live_slices = from.u64();
    if (!from.done()) return fail(ErrorKind::corrupt, "slice index: a bundle row does not parse");
    totals.bundles.emplace_back(number, usage);
  }
  for (rows->Seek("v"); rows->Valid() && rows->key().starts_with("v") && rows->key().size() == 33;
       rows->Next()) {
    VolumeId volume;
    std::memcpy(volume.bytes.data(), rows->key().data() + 1, 32);
    Decoder from(view_of_slice(rows->value()));
    VolumeUsage usage;
    usage.bytes = from.u64();
    usage.slices = from.u64();
    if (!from.done()) return fail(ErrorKind::corrupt, "slice index: a volume row does not parse");
    totals.volumes.emplace_back(volume, usage);
  }
  if (!rows->status().ok()) return fail(from_rocks(rows->status(), "slice index: read the totals"));
  return totals;
}

Result<std::optional<SliceLocation>> RocksSliceIndex::find(const SliceKey& key) {
  rocksdb::PinnableSlice value;
  const auto got = db_->Get(rocksdb::ReadOptions(), db_->DefaultColumnFamily(), "s" + key.sortable(), &value);
  if (got.IsNotFound()) return std::optional<SliceLocation>();
  if (!got.ok()) return fail(from_rocks(got, "slice index: look " + key.describe() + " up"));
  TRY(const SliceLocation location, decode_location(view_of_slice(value)));
  return location;
}

std::optional<std::optional<SliceLocation>> RocksSliceIndex::find_cached(const SliceKey& key) {
  rocksdb::ReadOptions options;
  options.read_tier = rocksdb::kBlockCacheTier;
  rocksdb::PinnableSlice value;
  const auto got = db_->Get(options, db_->DefaultColumnFamily(), "s" + key.sortable(), &value);
  if (got.IsNotFound()) return std::optional<SliceLocation>();
  if (!got.ok()) return std::nullopt;
  const auto location = decode_location(view_of_slice(value));
  if (!location) return std::nullopt;
  return std::optional(*location);
}

Result<std::optional<Bytes>> RocksSliceIndex::manifest(const SliceKey& key) {
  rocksdb::PinnableSlice value;
  const auto got = db_->Get(rocksdb::ReadOptions(), db_->DefaultColumnFamily(), "m" + key.sortable(), &value);
  if (got.IsNotFound()) return std::optional<Bytes>();
  if (!got.ok()) return fail(from_rocks(got, "slice index: read the manifest of " + key.describe()));
  const ByteView bytes = view_of_slice(value);
  return std::optional(Bytes(bytes.begin(), bytes.end()));
}

Result<std::vector<IndexedManifest>> RocksSliceIndex::list(const VolumeId& volume,
                                                           std::optional<SliceId> after,
                                                           std::size_t count_max, std::size_t bytes_max) {
  const std::string prefix = "m" + std::string(text_of(volume.view()));
  const std::string first = after ? "m" + SliceKey{volume, *after}.sortable() : prefix;
  auto rows = iterate(first);
  if (after && rows->Valid() && rows->key() == rocksdb::Slice(first)) rows->Next();
  std::vector<IndexedManifest> found;
  std::size_t bytes = 0;
  for (; rows->Valid() && rows->key().starts_with(prefix) && found.size() < count_max; rows->Next()) {
    const ByteView manifest = view_of_slice(rows->value());
    if (!found.empty() && bytes + manifest.size() > bytes_max) break;
    bytes += manifest.size();
    IndexedManifest row;
    if (!SliceKey::parse_sortable(view_of_slice(rows->key()).subspan(1), row.key))
      return fail(ErrorKind::corrupt, "slice index: a manifest's key does not parse");
    row.manifest.assign(manifest.begin(), manifest.end());
    found.push_back(std::move(row));
  }
  if (!rows->status().ok()) return fail(from_rocks(rows->status(), "slice index: list"));
  return found;
}

Result<std::vector<IndexedSlice>> RocksSliceIndex::page(std::optional<SliceKey> after,
                                                        std::size_t count_max) {
  const std::string first = after ? "s" + after->sortable() : "s";
  auto rows = iterate(first);
  if (after && rows->Valid() && rows->key() == rocksdb::Slice(first)) rows->Next();
  std::vector<IndexedSlice> found;
  for (; rows->Valid() && rows->key().starts_with("s") && found.size() < count_max; rows->Next()) {
    IndexedSlice row;
    if (!SliceKey::parse_sortable(view_of_slice(rows->key()).subspan(1), row.key))
      return fail(ErrorKind::corrupt, "slice index: a location's key does not parse");
    TRY(row.location, decode_location(view_of_slice(rows->value())));
    found.push_back(row);
  }
  if (!rows->status().ok()) return fail(from_rocks(rows->status(), "slice index: read a page"));
  return found;
}

void add_changes(rocksdb::WriteBatch& rows, const std::vector<IndexChange>& changes) {
  for (const auto& change : changes) {
    const std::string key = change.key.sortable();
    if (change.location) {
      rows.Put("s" + key, slice_of(encode_location(*change.location)));
      if (change.manifest) rows.Put("m" + key, slice_of(*change.manifest));
    } else {
      rows.Delete("s" + key);
      rows.Delete("m" + key);
    }
  }
}

Status RocksSliceIndex::apply(const IndexBatch& batch) {
  rocksdb::WriteBatch rows;
  add_changes(rows, batch.changes);
  Bytes value;
  for (const auto& [volume, usage] : batch.volumes) {
    value.clear();
    Encoder to(value);
    to.u64(usage.bytes);
    to.u64(usage.slices);
    rows.Put(volume_key(volume), slice_of(value));
  }
  for (const auto& [bundle, usage] : batch.bundles) {
    if (!usage) {
      rows.Delete(bundle_key(bundle));
      continue;
    }
    value.clear();
    Encoder to(value);
    to.u64(usage->end);
    to.u64(usage->live_bytes);
    to.u64(usage->held_bytes);
    to.u64(usage->live_slices);
    rows.Put(bundle_key(bundle), slice_of(value));
  }
  value.clear();
  Encoder to(value);
  to.u32(batch.position.bundle);
  to.u64(batch.position.offset);
  rows.Put("p", slice_of(value));
  rocksdb::WriteOptions options;
  options.disableWAL = true;
  auto done = db_->Write(options, &rows);
  // A flush that failed in the background (a full disk) stops all writes until this is asked.
  if (!done.ok() && db_->Resume().ok()) done = db_->Write(options, &rows);
  if (!done.ok()) return fail(from_rocks(done, "slice index: write"));
  return {};
}

Status RocksSliceIndex::flush() {
  const auto done = db_->Flush(rocksdb::FlushOptions());
  if (!done.ok()) return fail(from_rocks(done, "slice index: flush"));
  return {};
}

Status RocksSliceIndex::clear() {
  // Every key begins with a lower-case letter.
  rocksdb::WriteOptions options;
  options.disableWAL = true;
  const auto done = db_->DeleteRange(options, db_->DefaultColumnFamily(), "a", "zz");
  if (!done.ok()) return fail(from_rocks(done, "slice index: clear"));
  return flush();
}

rocksdb::Options bounded_options() {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.write_buffer_size = 8 << 20;
  options.max_write_buffer_number = 2;
  options.max_open_files = 64;
  options.max_background_jobs = 2;
  options.compression = rocksdb::kNoCompression;  // roots, keys and signatures do not compress
  options.info_log_level = rocksdb::HEADER_LEVEL;
  options.keep_log_file_num = 1;
  options.max_manifest_file_size = 4 << 20;
  options.use_direct_io_for_flush_and_compaction = false;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(24 << 20);
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.cache_index_and_filter_blocks = true;
  table.block_size = 8 << 10;
  table.format_version = 5;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

}  // namespace

Result<std::unique_ptr<SliceIndex>> open_rocks_slice_index(const std::string& directory) {
  rocksdb::DB* db = nullptr;
  const auto opened = rocksdb::DB::Open(bounded_options(), directory, &db);
  if (!opened.ok()) return fail(from_rocks(opened, directory));
  return std::make_unique<RocksSliceIndex>(std::unique_ptr<rocksdb::DB>(db));
}

Status discard_rocks_slice_index(const std::string& directory) {
  const auto done = rocksdb::DestroyDB(directory, bounded_options());
  if (!done.ok()) return fail(from_rocks(done, directory));
  return {};
}

}  // namespace cumulus
