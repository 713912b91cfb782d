// StoreVolume's catalogue: datasets, their snapshots, clones and quotas, object ids. Every change is one
// transaction that decides on the reactor, against what was accepted before it. Reactor thread.
#include <algorithm>
#include <set>

#include "objectstore/base/format.h"
#include "objectstore/find_snapshot.h"
#include "objectstore/store/store_volume.h"

namespace cumulus {
namespace {

constexpr std::size_t kNameMax = 255;

Status check_name(const std::string& name, std::string_view what) {
  const bool bad = name.empty() || name.size() > kNameMax || name == "." || name == ".." ||
                   std::ranges::any_of(name, [](char c) {
                     return c == '/' || c == '@' || static_cast<unsigned char>(c) < 32;
                   });
  if (bad)
    return fail(
        ErrorKind::invalid,
        format("'{}' cannot name a {}: 1 to 255 bytes without '/', '@' and control characters", name, what));
  return {};
}

Error no_dataset(DatasetId id) { return {ErrorKind::not_found, format("dataset {} does not exist", id)}; }

// Where a view stands first on `parent`; nullptr: nowhere.
const ViewSpan* first_span_of(const View& view, DatasetId parent) {
  const auto found = std::ranges::find(view, parent, &ViewSpan::dataset);
  return found == view.end() ? nullptr : &*found;
}

// What another dataset calls what stands on `parent` (any of its snapshots, or the one that ends at
// `version`): its own name, or one of its snapshots. Empty: nothing stands on it.
std::string stands_on(const DatasetInfo& other, DatasetId parent, std::optional<Version> version) {
  const auto stands = [&](const View& view) {
    const ViewSpan* span = first_span_of(view, parent);
    return span != nullptr && (!version || span->to == *version);
  };
  if (stands(other.head)) return other.name;
  for (const SnapshotInfo& snapshot : other.snapshots)
    if (stands(snapshot.view)) return other.name + "@" + snapshot.name;
  return {};
}

Error no_snapshot(const DatasetInfo& info, std::string_view name) {
  return {ErrorKind::not_found, format("'{}' has no snapshot '{}'", info.name, name)};
}

}  // namespace

std::vector<DatasetInfo> StoreVolume::datasets() const {
  std::vector<DatasetInfo> all;
  for (const DatasetInfo* info : index_->datasets()) all.push_back(*info);
  return all;
}

const DatasetInfo* StoreVolume::find_dataset(std::string_view name) const { return index_->dataset(name); }
const DatasetInfo* StoreVolume::find_dataset(DatasetId id) const { return index_->dataset(id); }

Task<Result<DatasetId>> StoreVolume::create_dataset(std::string name, DatasetOptions options) {
  CO_TRY_OK(check_name(name, "dataset"));
  if (options.chunk_log2 < 16 || options.chunk_log2 > 24 || options.cell_log2 < 9 || options.cell_log2 > 20 ||
      options.cell_log2 > options.chunk_log2)
    co_return fail(ErrorKind::invalid, "chunks are 64K to 16M, cells 512 to 1M and no larger than a chunk");
  DatasetId id = 0;
  const Committer::BuildChanges build = [&]() -> Result<std::vector<Change>> {
    if (index_->dataset(name) != nullptr) return fail(ErrorKind::exists, format("'{}' exists already", name));
    id = index_->next_dataset();
    change::CreateDataset create;
    create.id = id;
    create.type = options.type;
    create.chunk_log2 = options.chunk_log2;
    create.cell_log2 = options.cell_log2;
    create.name = name;
    create.created_at = parts_.runtime.wall_now();
    return std::vector<Change>{create};
  };
  CO_TRY_OK(co_await committer_->commit_changes(build, false));
  co_return id;
}

Task<Status> StoreVolume::commit_one(Change change) {
  const Committer::BuildChanges build = [&]() -> Result<std::vector<Change>> {
    return std::vector<Change>{change};
  };
  auto done = co_await committer_->commit_changes(build, false);
  if (!done) co_return fail(done.error());
  co_return Status();
}

// Decided and staged in one uninterrupted step: two calls that race never both see the state before.
Task<Status> StoreVolume::commit_decided(Committer::BuildChanges build) {
  auto done = co_await committer_->commit_changes(std::move(build), false);
  if (!done) co_return fail(done.error());
  co_return Status();
}

Task<Status> StoreVolume::remove_dataset(DatasetId id) {
  Committer::BuildChanges build = [this, id]() -> Result<std::vector<Change>> {
    const DatasetInfo* info = index_->dataset(id);
    if (info == nullptr) return fail(no_dataset(id));
    // Clones see the parent's rows through their spans; a snapshot that a clone stands on must stay.
    for (const DatasetInfo* other : index_->datasets())
      if (const std::string child = other->id == id ? "" : stands_on(*other, id, std::nullopt);
          !child.empty())
        return fail(
            ErrorKind::exists,
            format("'{}' is the parent of '{}': it stays until that is removed or, an image, flattened",
                   info->name, child));
    return std::vector<Change>{change::RemoveDataset{id}};
  };
  co_return co_await commit_decided(std::move(build));
}

Task<Status> StoreVolume::rename_dataset(DatasetId id, std::string name) {
  CO_TRY_OK(check_name(name, "dataset"));
  Committer::BuildChanges build = [this, id, &name]() -> Result<std::vector<Change>> {
    if (index_->dataset(id) == nullptr) return fail(no_dataset(id));
    if (index_->dataset(name) != nullptr) return fail(ErrorKind::exists, format("'{}' exists already", name));
    return std::vector<Change>{change::RenameDataset{id, name}};
  };
  co_return co_await commit_decided(std::move(build));
}

Task<Status> StoreVolume::set_quota(DatasetId id, std::uint32_t tree, std::uint64_t bytes,
                                    std::uint64_t objects) {
  Committer::BuildChanges build = [this, id, tree, bytes, objects]() -> Result<std::vector<Change>> {
    if (index_->dataset(id) == nullptr) return fail(no_dataset(id));
    return std::vector<Change>{change::SetQuota{id, tree, bytes, objects}};
  };
  co_return co_await commit_decided(std::move(build));
}

Task<Status> StoreVolume::create_snapshots(std::vector<SnapshotTarget> targets) {
  Committer::BuildChanges build = [this, &targets]() -> Result<std::vector<Change>> {
    std::vector<Change> changes;
    std::set<std::pair<DatasetId, std::string>> named;
    for (const SnapshotTarget& target : targets) {
      TRY_OK(check_name(target.name, "snapshot"));
      const DatasetInfo* info = index_->dataset(target.dataset);
      if (info == nullptr) return fail(no_dataset(target.dataset));
      const bool again = !named.emplace(target.dataset, target.name).second;
      if (again || find_snapshot(*info, target.name) != nullptr)
        return fail(ErrorKind::exists, format("'{}@{}' {}", info->name, target.name,
                                              again ? "is named twice" : "exists already"));
      changes.emplace_back(change::CreateSnapshot{target.dataset, target.name, parts_.runtime.wall_now()});
    }
    return changes;
  };
  co_return co_await commit_decided(std::move(build));
}

Task<Status> StoreVolume::remove_snapshot(DatasetId id, std::string name) {
  Committer::BuildChanges build = [this, id, &name]() -> Result<std::vector<Change>> {
    const DatasetInfo* info = index_->dataset(id);
    if (info == nullptr) return fail(no_dataset(id));
    const SnapshotInfo* snapshot = find_snapshot(*info, name);
    if (snapshot == nullptr) return fail(no_snapshot(*info, name));
    for (const DatasetInfo* other : index_->datasets())
      if (const std::string child = other->id == id ? "" : stands_on(*other, id, snapshot->version);
          !child.empty())
        return fail(
            ErrorKind::exists,
            format("'{}@{}' is the parent of '{}': it stays until that is removed or, an image, flattened",
                   info->name, name, child));
    return std::vector<Change>{change::RemoveSnapshot{id, name}};
  };
  co_return co_await commit_decided(std::move(build));
}

Task<Status> StoreVolume::detach(DatasetId id, View head) {
  Committer::BuildChanges build = [this, id, &head]() -> Result<std::vector<Change>> {
    const DatasetInfo* info = index_->dataset(id);
    if (info == nullptr) return fail(no_dataset(id));
    if (info->head != head)
      return fail(ErrorKind::invalid, format("'{}' was set back meanwhile: try again", info->name));
    return std::vector<Change>{change::Detach{id}};
  };
  co_return co_await commit_decided(std::move(build));
}

Task<Status> StoreVolume::rollback(DatasetId id, std::string snapshot) {
  Committer::BuildChanges build = [this, id, &snapshot]() -> Result<std::vector<Change>> {
    const DatasetInfo* info = index_->dataset(id);
    if (info == nullptr) return fail(no_dataset(id));
    if (find_snapshot(*info, snapshot) == nullptr) return fail(no_snapshot(*info, snapshot));
    return std::vector<Change>{change::Rollback{id, snapshot}};
  };
  co_return co_await commit_decided(std::move(build));
}

Task<Result<std::vector<DatasetId>>> StoreVolume::clone(DatasetId id, std::string snapshot,
                                                        std::vector<std::string> names) {
  std::vector<DatasetId> ids;
  for (const std::string& name : names) CO_TRY_OK(check_name(name, "dataset"));
  // A thousand clones are a few groups, not one: each batch is one transaction.
  constexpr std::size_t kBatch = 256;
  for (std::size_t from = 0; from < names.size(); from += kBatch) {
    const Committer::BuildChanges build = [&]() -> Result<std::vector<Change>> {
      const DatasetInfo* info = index_->dataset(id);
      if (info == nullptr) return fail(no_dataset(id));
      const SnapshotInfo* source = find_snapshot(*info, snapshot);
      if (source == nullptr) return fail(no_snapshot(*info, snapshot));
      std::vector<Change> changes;
      DatasetId next = index_->next_dataset();
      for (std::size_t i = from; i < std::min(names.size(), from + kBatch); ++i) {
        if (index_->dataset(names[i]) != nullptr || std::count(names.begin(), names.end(), names[i]) != 1)
          return fail(ErrorKind::exists, format("'{}' exists already", names[i]));
        change::CreateDataset create;
        create.id = next;
        create.type = info->type;
        create.chunk_log2 = info->chunk_log2;
        create.cell_log2 = info->cell_log2;
        create.name = names[i];
        create.inherited = source->view;
        create.next_object = info->next_object;
        create.parent = info->name + "@" + snapshot;
        create.created_at = parts_.runtime.wall_now();
        ids.push_back(next++);
        changes.emplace_back(std::move(create));
      }
      return changes;
    };
    auto done = co_await committer_->commit_changes(build, false);
    if (!done) co_return fail(done.error());
  }
  co_return ids;
}

Result<ObjectId> StoreVolume::allocate_object(DatasetId dataset) {
  const DatasetInfo* info = index_->dataset(dataset);
  if (info == nullptr) return fail(no_dataset(dataset));
  ObjectId& next = next_objects_[dataset];
  next = std::max(next, info->next_object);
  if (next > kObjectIdMax)
    return fail(ErrorKind::no_space, format("'{}' has used up its object ids", info->name));
  return next++;
}

}  // namespace cumulus
