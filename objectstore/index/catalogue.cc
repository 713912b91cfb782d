#include "objectstore/index/catalogue.h"

#include <algorithm>

#include "objectstore/base/codec.h"
#include "objectstore/key_space.h"

namespace cumulus {
namespace {

constexpr std::uint8_t kFormat = 1;
constexpr std::uint8_t kDatasetFormat = 2;  // 1: snapshots without their quota trees
constexpr std::size_t kSpansMax = 4096;
constexpr std::size_t kSnapshotsMax = 1u << 20;
constexpr std::size_t kNameMax = 4096;
constexpr std::size_t kTreesMax = 1u << 20;

Error bad_row() { return {ErrorKind::corrupt, "a catalogue row of the index does not parse"}; }

void encode_view(const View& view, Encoder& out) {
  out.varint(view.size());
  for (const ViewSpan& span : view) {
    out.varint(span.dataset);
    out.varint(span.from);
    out.u64(span.to);
  }
}

View decode_view(Decoder& in) {
  View view(in.varint_max(kSpansMax));
  for (ViewSpan& span : view) {
    span.dataset = static_cast<DatasetId>(in.varint_max(~DatasetId{0}));
    span.from = in.varint();
    span.to = in.u64();
    if (!in.ok()) return {};
  }
  return view;
}

// A number is free again when nothing is counted under it any more.
void drop_if_empty(QuotaTrees& trees, std::uint32_t tree) {
  if (tree != 0 && trees[tree] == QuotaState{}) trees.erase(tree);
}

// The head shows what the snapshot showed, and takes as much; the limits are the head's where it has any.
QuotaTrees trees_after_rollback(const QuotaTrees& now, const QuotaTrees& then) {
  QuotaTrees trees = then;
  const auto whole = now.find(0);
  if (whole != now.end()) trees[0];
  for (auto& [tree, quota] : trees) {
    const auto known = now.find(tree);
    if (known == now.end()) continue;
    quota.bytes_max = known->second.bytes_max;
    quota.objects_max = known->second.objects_max;
  }
  return trees;
}

void encode_trees(const QuotaTrees& trees, Encoder& out) {
  out.varint(trees.size());
  for (const auto& [tree, quota] : trees) {
    out.varint(tree);
    out.varint(quota.bytes_max);
    out.varint(quota.objects_max);
    out.u64(static_cast<std::uint64_t>(quota.bytes));
    out.u64(static_cast<std::uint64_t>(quota.objects));
  }
}

QuotaTrees decode_trees(Decoder& in) {
  QuotaTrees trees;
  for (std::uint64_t left = in.varint_max(kTreesMax); left > 0 && in.ok(); --left) {
    QuotaState& quota = trees[static_cast<std::uint32_t>(in.varint_max(~std::uint32_t{0}))];
    quota.bytes_max = in.varint();
    quota.objects_max = in.varint();
    quota.bytes = static_cast<std::int64_t>(in.u64());
    quota.objects = static_cast<std::int64_t>(in.u64());
  }
  return trees;
}

}  // namespace

const DatasetInfo* Catalogue::find(DatasetId id) const {
  const auto found = datasets_.find(id);
  return found == datasets_.end() ? nullptr : &found->second;
}
DatasetInfo* Catalogue::find(DatasetId id) {
  const auto found = datasets_.find(id);
  return found == datasets_.end() ? nullptr : &found->second;
}
const DatasetInfo* Catalogue::find(std::string_view name) const {
  const auto found = names_.find(name);
  return found == names_.end() ? nullptr : find(found->second);
}
std::vector<const DatasetInfo*> Catalogue::all() const {
  std::vector<const DatasetInfo*> list;
  list.reserve(datasets_.size());
  for (const auto& [id, info] : datasets_) list.push_back(&info);
  return list;
}

void Catalogue::note_object(DatasetId id, ObjectId object) {
  DatasetInfo* info = find(id);
  if (info != nullptr && info->next_object <= object) info->next_object = object + 1;
}

bool Catalogue::apply(const Change& change, std::set<DatasetId>& changed, std::set<DatasetId>& counted) {
  if (const auto* create = std::get_if<change::CreateDataset>(&change)) {
    if (create->id == 0 || find(create->id) != nullptr || names_.contains(create->name)) return false;
    DatasetInfo info;
    info.id = create->id;
    info.type = create->type;
    info.name = create->name;
    info.chunk_log2 = create->chunk_log2;
    info.cell_log2 = create->cell_log2;
    info.next_object = create->next_object;
    info.parent = create->parent;
    info.created_at = create->created_at;
    info.head.push_back({create->id, 0, ~Version{0}});
    info.head.insert(info.head.end(), create->inherited.begin(), create->inherited.end());
    info.trees = trees_of(create->inherited);
    names_.emplace(info.name, info.id);
    next_ = std::max(next_, info.id + 1);
    changed.insert(info.id);
    counted.insert(info.id);
    datasets_.emplace(info.id, std::move(info));
    return true;
  }
  const auto dataset_of = [this](const Change& any) -> DatasetInfo* {
    return std::visit(
        [this](const auto& c) -> DatasetInfo* {
          if constexpr (requires { c.id; }) return find(c.id);
          return nullptr;
        },
        any);
  };
  DatasetInfo* info = dataset_of(change);
  if (info == nullptr) return false;
  if (const auto* usage = std::get_if<change::AddUsage>(&change)) {
    QuotaState& tree = info->trees[usage->tree];
    tree.bytes += usage->bytes;
    tree.objects += usage->objects;
    drop_if_empty(info->trees, usage->tree);
    counted.insert(info->id);
    return true;
  }
  changed.insert(info->id);
  if (std::holds_alternative<change::RemoveDataset>(change)) {
    counted.insert(info->id);
    names_.erase(info->name);
    datasets_.erase(info->id);
    return true;
  }
  if (const auto* rename = std::get_if<change::RenameDataset>(&change)) {
    if (names_.contains(rename->name)) return false;
    names_.erase(info->name);
    info->name = rename->name;
    names_.emplace(info->name, info->id);
    return true;
  }
  if (const auto* quota = std::get_if<change::SetQuota>(&change)) {
    info->trees[quota->tree].bytes_max = quota->bytes;
    info->trees[quota->tree].objects_max = quota->objects;
    drop_if_empty(info->trees, quota->tree);
    counted.insert(info->id);
    return true;
  }
  if (std::holds_alternative<change::Detach>(change)) {
    std::erase_if(info->head, [info](const ViewSpan& span) { return span.dataset != info->id; });
    info->parent.clear();
    return true;
  }
  const auto snapshot_named = [info](const std::string& name) {
    return std::ranges::find(info->snapshots, name, &SnapshotInfo::name);
  };
  if (const auto* create = std::get_if<change::CreateSnapshot>(&change)) {
    if (snapshot_named(create->name) != info->snapshots.end()) return false;
    SnapshotInfo snapshot;
    snapshot.name = create->name;
    snapshot.version = info->version++;
    snapshot.created_at = create->created_at;
    snapshot.view = info->head;
    snapshot.view.front().to = snapshot.version;
    snapshot.trees = info->trees;
    info->snapshots.push_back(std::move(snapshot));
    return true;
  }
  if (const auto* remove = std::get_if<change::RemoveSnapshot>(&change)) {
    const auto found = snapshot_named(remove->name);
    if (found == info->snapshots.end()) return false;
    info->snapshots.erase(found);
    return true;
  }
  if (const auto* rollback = std::get_if<change::Rollback>(&change)) {
    const auto found = snapshot_named(rollback->snapshot);
    if (found == info->snapshots.end()) return false;
    // What was written since is hidden, not gone: the head continues at a new version above the snapshot's
    // spans.
    ++info->version;
    info->head = {{info->id, info->version, ~Version{0}}};
    info->head.insert(info->head.end(), found->view.begin(), found->view.end());
    info->trees = trees_after_rollback(info->trees, found->trees);
    counted.insert(info->id);
    return true;
  }
  return false;
}

// What a clone begins with: the trees of the snapshot that it inherits.
QuotaTrees Catalogue::trees_of(const View& inherited) const {
  const DatasetInfo* parent = inherited.empty() ? nullptr : find(inherited.front().dataset);
  if (parent == nullptr) return {};
  const auto found = std::ranges::find(parent->snapshots, inherited, &SnapshotInfo::view);
  return found == parent->snapshots.end() ? QuotaTrees() : found->trees;
}

RowUpdate Catalogue::dataset_row(DatasetId id) const {
  const DatasetInfo* info = find(id);
  RowUpdate row{RowUpdate::Kind::erase, catalogue_dataset_key(id), {}};
  if (info == nullptr) return row;
  row.kind = RowUpdate::Kind::put;
  Encoder out(row.value);
  out.u8(kDatasetFormat);
  out.u8(static_cast<std::uint8_t>(info->type));
  out.u8(info->chunk_log2);
  out.u8(info->cell_log2);
  out.text(info->name);
  out.text(info->parent);
  out.u64(info->created_at);
  out.varint(info->version);
  encode_view(info->head, out);
  out.varint(info->snapshots.size());
  for (const SnapshotInfo& snapshot : info->snapshots) {
    out.text(snapshot.name);
    out.varint(snapshot.version);
    out.u64(snapshot.created_at);
    encode_view(snapshot.view, out);
    encode_trees(snapshot.trees, out);
  }
  out.varint(info->trees.size());
  for (const auto& [tree, quota] : info->trees) {
    out.varint(tree);
    out.varint(quota.bytes_max);
    out.varint(quota.objects_max);
  }
  return row;
}

RowUpdate Catalogue::counters_row(DatasetId id) const {
  const DatasetInfo* info = find(id);
  RowUpdate row{RowUpdate::Kind::erase, catalogue_counters_key(id), {}};
  if (info == nullptr) return row;
  row.kind = RowUpdate::Kind::put;
  Encoder out(row.value);
  out.u8(kFormat);
  out.varint(info->next_object);
  out.varint(info->trees.size());
  for (const auto& [tree, quota] : info->trees) {
    out.varint(tree);
    out.u64(static_cast<std::uint64_t>(quota.bytes));
    out.u64(static_cast<std::uint64_t>(quota.objects));
  }
  return row;
}

// Dataset ids are never used again: the next one outlives the highest dataset's removal.
RowUpdate Catalogue::next_row() const {
  RowUpdate row{RowUpdate::Kind::put, catalogue_counters_key(0), {}};
  Encoder out(row.value);
  out.u8(kFormat);
  out.varint(next_);
  return row;
}

Status Catalogue::load(const KeyValue& row) {
  if (row.key.size() != 16) return {};
  const std::string_view place = std::string_view(row.key).substr(0, 12);
  Decoder key(view_of(std::string_view(row.key).substr(12)));
  const DatasetId id = __builtin_bswap32(key.u32());
  Decoder in(row.value);
  if (place == std::string_view(catalogue_dataset_key(0)).substr(0, 12)) {
    DatasetInfo& info = datasets_[id];
    info.id = id;
    const std::uint8_t version = in.u8();
    if (version == 0 || version > kDatasetFormat) return fail(bad_row());
    info.type = static_cast<DatasetType>(in.u8());
    info.chunk_log2 = in.u8();
    info.cell_log2 = in.u8();
    info.name = in.text(kNameMax);
    info.parent = in.text(kNameMax);
    info.created_at = in.u64();
    info.version = in.varint();
    info.head = decode_view(in);
    info.snapshots.resize(in.varint_max(std::min<std::uint64_t>(kSnapshotsMax, in.remaining())));
    for (SnapshotInfo& snapshot : info.snapshots) {
      snapshot.name = in.text(kNameMax);
      snapshot.version = in.varint();
      snapshot.created_at = in.u64();
      snapshot.view = decode_view(in);
      if (version > 1) snapshot.trees = decode_trees(in);
      if (!in.ok()) return fail(bad_row());
    }
    for (std::uint64_t trees = in.varint_max(kTreesMax); trees > 0 && in.ok(); --trees) {
      QuotaState& quota = info.trees[static_cast<std::uint32_t>(in.varint_max(~std::uint32_t{0}))];
      quota.bytes_max = in.varint();
      quota.objects_max = in.varint();
    }
    if (!in.done() || info.head.empty()) return fail(bad_row());
    names_[info.name] = id;
    next_ = std::max(next_, id + 1);
  } else if (place == std::string_view(catalogue_counters_key(0)).substr(0, 12)) {
    if (in.u8() != kFormat) return fail(bad_row());
    if (id == 0) {
      next_ = std::max(next_, static_cast<DatasetId>(in.varint_max(~DatasetId{0})));
      return in.done() ? Status() : fail(bad_row());
    }
    DatasetInfo* info = find(id);
    if (info == nullptr) return fail(bad_row());
    info->next_object = in.varint();
    for (std::uint64_t trees = in.varint_max(kTreesMax); trees > 0 && in.ok(); --trees) {
      QuotaState& quota = info->trees[static_cast<std::uint32_t>(in.varint_max(~std::uint32_t{0}))];
      quota.bytes = static_cast<std::int64_t>(in.u64());
      quota.objects = static_cast<std::int64_t>(in.u64());
    }
    if (!in.done()) return fail(bad_row());
    std::erase_if(info->trees,
                  [](const auto& tree) { return tree.first != 0 && tree.second == QuotaState{}; });
  }
  return {};
}

Bytes encode_placed(const change::Placed& placed) {
  Bytes bytes;
  Encoder out(bytes);
  out.u8(kFormat);
  out.u8(static_cast<std::uint8_t>(placed.segment.kind));
  out.varint(placed.segment.epoch);
  out.varint(placed.segment.sequence);
  out.bytes(placed.salt);
  out.u32(placed.length);
  out.u8(placed.k);
  out.u8(placed.m);
  for (const MinerId& miner : placed.miners) out.bytes(miner.view());
  return bytes;
}

Result<change::Placed> decode_placed(ByteView bytes) {
  Decoder in(bytes);
  change::Placed placed;
  const std::uint8_t format = in.u8();
  placed.segment.kind = static_cast<SegmentKind>(in.u8());
  placed.segment.epoch = in.varint();
  placed.segment.sequence = in.varint();
  placed.salt = in.array<16>();
  placed.length = in.u32();
  placed.k = in.u8();
  placed.m = in.u8();
  placed.miners.resize(std::size_t{placed.k} + placed.m);
  for (MinerId& miner : placed.miners) miner.bytes = in.array<32>();
  if (!in.done() || format != kFormat || placed.k == 0) return fail(bad_row());
  return placed;
}

}  // namespace cumulus
