#include "tests/sim/workload.h"

#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"

namespace cumulus {
namespace {

constexpr std::size_t kObjectSizeMost = 160 * 1024;
constexpr std::size_t kObjectsMost = 24;
constexpr std::size_t kDatasetsMost = 6;
constexpr std::size_t kSnapshotsMost = 3;

void write_to(Bytes& data, std::uint64_t offset, ByteView bytes) {
  if (data.size() < offset + bytes.size()) data.resize(offset + bytes.size());
  std::ranges::copy(bytes, data.begin() + static_cast<std::ptrdiff_t>(offset));
}

}  // namespace

Bytes Workload::fresh_bytes(std::size_t size) {
  Bytes bytes(size);
  random_.fill(bytes);
  return bytes;
}

std::size_t Workload::random_size() {
  switch (random_.below(16)) {
    case 0:
      return random_.between(1, 16);
    case 1:
    case 2:
      return random_.between(8'000, 30'000);
    case 3:
      return random_.once_in(3) ? random_.between(30'000, 110'000) : 512;
    default:
      return random_.between(1, 6'000);
  }
}

std::string Workload::pick_dataset(const StoreModel& model) {
  CHECK(!model.datasets.empty());
  return std::next(model.datasets.begin(), static_cast<std::ptrdiff_t>(random_.below(model.datasets.size())))
      ->first;
}

ObjectId Workload::pick_object(const ModelDataset& dataset) {
  if (dataset.head.empty()) return 0;
  return std::next(dataset.head.begin(), static_cast<std::ptrdiff_t>(random_.below(dataset.head.size())))
      ->first;
}

Operation Workload::plan(Volume& volume, const StoreModel& now) {
  Operation operation;
  operation.after = now;
  if (now.datasets.empty() || random_.once_in(14))
    plan_catalogue(operation);
  else
    plan_transaction(volume, operation);
  return operation;
}

void Workload::plan_transaction(Volume& volume, Operation& operation) {
  operation.transaction.emplace();
  const std::string first = pick_dataset(operation.after);
  const std::uint64_t steps = random_.once_in(3) ? random_.between(2, 5) : 1;
  for (std::uint64_t i = 0; i < steps; ++i)
    plan_step(volume, operation, random_.once_in(4) ? pick_dataset(operation.after) : first);
}

void Workload::plan_step(Volume& volume, Operation& operation, const std::string& name) {
  Transaction& transaction = *operation.transaction;
  const DatasetInfo* info = volume.find_dataset(name);
  // A log that a failing disk ended has taken it back, and is about to refuse. Whoever reads would miss it.
  if (info == nullptr) return;
  ModelDataset& dataset = operation.after.datasets.at(name);
  ObjectId id = pick_object(dataset);
  const auto tell = [&](std::string_view what) {
    if (what != "compare") operation.changes = true;
    operation.what += format("{}{} {}:{}", operation.what.empty() ? "" : ", ", what, name, id);
  };
  if (id == 0 || (dataset.head.size() < kObjectsMost && random_.once_in(8))) {
    const auto allocated = volume.allocate_object(info->id);
    CHECK(allocated.has_value());
    id = *allocated;
    ModelObject object;
    object.header = fresh_bytes(random_.below(40));
    transaction.create({info->id, id}, object.header);
    dataset.head[id] = std::make_shared<ModelObject>(std::move(object));
    dataset.highest_object = std::max(dataset.highest_object, id);
    tell("create");
    return;
  }
  const ObjectRef ref{info->id, id};
  ModelObject& object = operation.after.change(name, id);
  const std::uint64_t size = object.data.size();
  const std::uint64_t offset = random_.below(size + (random_.once_in(4) ? 20'000 : 1));
  switch (random_.below(20)) {
    default: {
      const Bytes bytes =
          fresh_bytes(std::min(random_size(), kObjectSizeMost - std::min(offset, kObjectSizeMost - 1)));
      if (offset + bytes.size() > kObjectSizeMost) break;
      transaction.write(ref, offset, bytes);
      write_to(object.data, offset, bytes);
      tell(format("write {}+{} to", offset, bytes.size()));
      break;
    }
    case 0:
    case 1: {
      const Bytes bytes = fresh_bytes(random_size());
      if (size + bytes.size() > kObjectSizeMost) break;
      transaction.append(ref, bytes);
      write_to(object.data, size, bytes);
      tell(format("append {} to", bytes.size()));
      break;
    }
    case 2:
    case 3: {
      const std::uint64_t length = random_.between(1, 30'000);
      const bool grow = random_.once_in(2) && offset + length <= kObjectSizeMost;
      transaction.zero(ref, offset, length, random_.once_in(2), grow);
      if (grow && offset + length > size) object.data.resize(offset + length);
      for (std::uint64_t at = offset; at < std::min<std::uint64_t>(offset + length, object.data.size()); ++at)
        object.data[at] = 0;
      tell(format("zero {}+{}{} in", offset, length, grow ? " growing" : ""));
      break;
    }
    case 4: {
      const std::uint64_t to = random_.once_in(3) ? random_.below(size + 20'000) : random_.below(size + 1);
      if (to > kObjectSizeMost) break;
      transaction.truncate(ref, to);
      object.data.resize(to);
      tell(format("truncate to {}", to));
      break;
    }
    case 5:
      if (dataset.head.size() < 4) break;
      transaction.remove(ref);
      dataset.head.erase(id);
      tell("remove");
      break;
    case 6:
      object.header = fresh_bytes(random_.below(60));
      transaction.set_header(ref, object.header);
      tell("set header of");
      break;
    case 7: {
      const Bytes key = {static_cast<std::uint8_t>('a' + random_.below(4))};
      if (random_.once_in(3)) {
        transaction.remove_xattr(ref, key);
        object.xattrs.erase(key);
        tell("remove xattr of");
        break;
      }
      object.xattrs[key] = fresh_bytes(random_.below(100));
      transaction.set_xattr(ref, key, object.xattrs[key]);
      tell("set xattr of");
      break;
    }
    case 8:
    case 9: {
      const Bytes key = {static_cast<std::uint8_t>(random_.below(3)),
                         static_cast<std::uint8_t>(random_.below(6))};
      if (random_.once_in(3)) {
        transaction.remove_omap(ref, key);
        object.omap.erase(key);
        tell("remove omap of");
        break;
      }
      object.omap[key] = fresh_bytes(random_.below(200));
      transaction.set_omap(ref, key, object.omap[key]);
      tell("set omap of");
      break;
    }
    case 10:
    case 11: {
      const ObjectId from = pick_object(dataset);
      const ModelObject source = *dataset.head.at(from);
      if (source.data.empty()) break;
      const std::uint64_t begin = random_.below(source.data.size());
      const std::uint64_t length = random_.between(1, source.data.size() - begin);
      if (offset + length > kObjectSizeMost) break;
      transaction.clone_range({info->id, from}, begin, ref, offset, length);
      write_to(object.data, offset, ByteView(source.data).subspan(begin, length));
      tell(format("clone {}+{} of {} to {} of", begin, length, from, offset));
      break;
    }
    case 12: {
      if (size == 0) break;
      const std::uint64_t begin = random_.below(size);
      const std::uint64_t length = std::min<std::uint64_t>(random_.between(1, 3'000), size - begin);
      // Compares see the state before the transaction: only as its first step does the model know that.
      if (!operation.what.empty()) break;
      const ByteView expected = ByteView(object.data).subspan(begin, length);
      transaction.compare(ref, begin, Bytes(expected.begin(), expected.end()));
      transaction.assert_exists(ref);
      tell("compare");
      break;
    }
  }
}

void Workload::plan_catalogue(Operation& operation) {
  StoreModel& model = operation.after;
  const std::uint64_t number = next_name_++;
  if (model.datasets.empty() || (model.datasets.size() < 2 && random_.once_in(2))) {
    operation.kind = Operation::Kind::create_dataset;
    operation.dataset = format("set{}", number);
    operation.options.chunk_log2 = static_cast<std::uint8_t>(random_.between(16, 18));
    operation.options.cell_log2 = static_cast<std::uint8_t>(random_.between(9, 14));
    model.datasets[operation.dataset];
    operation.what = "create dataset " + operation.dataset;
    return;
  }
  const std::string name = pick_dataset(model);
  ModelDataset& dataset = model.datasets.at(name);
  operation.dataset = name;
  const auto pick_snapshot = [&] {
    return std::next(dataset.snapshots.begin(),
                     static_cast<std::ptrdiff_t>(random_.below(dataset.snapshots.size())))
        ->first;
  };
  const std::uint64_t what = random_.below(8);
  if (what == 0 && !dataset.has_clones && model.datasets.size() > 1) {
    operation.kind = Operation::Kind::remove_dataset;
    model.datasets.erase(name);
    operation.what = "remove dataset " + name;
  } else if (what == 1 && !dataset.has_clones) {
    operation.kind = Operation::Kind::rename_dataset;
    operation.names = {format("set{}", number)};
    model.datasets[operation.names[0]] = dataset;
    model.datasets.erase(name);
    operation.what = "rename dataset " + name + " to " + operation.names[0];
  } else if (what == 2 && !dataset.snapshots.empty() && !dataset.has_clones) {
    operation.kind = Operation::Kind::remove_snapshot;
    operation.snapshot = pick_snapshot();
    dataset.snapshots.erase(operation.snapshot);
    operation.what = "remove snapshot " + name + "@" + operation.snapshot;
  } else if (what == 3 && !dataset.snapshots.empty()) {
    operation.kind = Operation::Kind::rollback;
    operation.snapshot = pick_snapshot();
    dataset.head = dataset.snapshots.at(operation.snapshot);
    operation.what = "roll back " + name + "@" + operation.snapshot;
  } else if (what == 4 && !dataset.snapshots.empty() && model.datasets.size() < kDatasetsMost) {
    operation.kind = Operation::Kind::clone;
    operation.snapshot = pick_snapshot();
    operation.names = {format("set{}", number)};
    ModelDataset clone;
    clone.head = dataset.snapshots.at(operation.snapshot);
    clone.highest_object = dataset.highest_object;
    dataset.has_clones = true;
    model.datasets[operation.names[0]] = std::move(clone);
    operation.what = "clone " + name + "@" + operation.snapshot + " as " + operation.names[0];
  } else if (dataset.snapshots.size() < kSnapshotsMost) {
    operation.kind = Operation::Kind::create_snapshots;
    operation.snapshot = format("s{}", number);
    operation.names = {name};
    dataset.snapshots[operation.snapshot] = dataset.head;
    if (const std::string other = pick_dataset(model);
        other != name && model.datasets.at(other).snapshots.size() < kSnapshotsMost) {
      operation.names.push_back(other);
      ModelDataset& second = model.datasets.at(other);
      second.snapshots[operation.snapshot] = second.head;
    }
    operation.what = "snapshot " + name + "@" + operation.snapshot;
  } else {
    operation.kind = Operation::Kind::rollback;
    operation.snapshot = pick_snapshot();
    dataset.head = dataset.snapshots.at(operation.snapshot);
    operation.what = "roll back " + name + "@" + operation.snapshot;
  }
}

namespace {

Task<Status> execute_catalogue(Volume& volume, Operation& operation) {
  using Kind = Operation::Kind;
  if (operation.kind == Kind::create_dataset) {
    auto made = co_await volume.create_dataset(operation.dataset, operation.options);
    if (!made) co_return fail(made.error());
    co_return Status();
  }
  const DatasetInfo* info = volume.find_dataset(operation.dataset);
  if (info == nullptr) co_return fail(ErrorKind::not_found, "dataset " + operation.dataset + " is missing");
  const DatasetId id = info->id;
  if (operation.kind == Kind::remove_dataset) co_return co_await volume.remove_dataset(id);
  if (operation.kind == Kind::rename_dataset)
    co_return co_await volume.rename_dataset(id, operation.names[0]);
  if (operation.kind == Kind::remove_snapshot)
    co_return co_await volume.remove_snapshot(id, operation.snapshot);
  if (operation.kind == Kind::rollback) co_return co_await volume.rollback(id, operation.snapshot);
  if (operation.kind == Kind::clone) {
    auto made = co_await volume.clone(id, operation.snapshot, operation.names);
    if (!made) co_return fail(made.error());
    co_return Status();
  }
  std::vector<Volume::SnapshotTarget> targets;
  for (const std::string& name : operation.names)
    targets.push_back({volume.find_dataset(name)->id, operation.snapshot});
  co_return co_await volume.create_snapshots(std::move(targets));
}

Task<Result<LogPosition>> accepted_of(Volume& volume) {
  CO_TRY(const VolumeStatus status, co_await volume.status(false));
  co_return status.accepted;
}

}  // namespace

Task<Result<Placement>> Workload::execute(Volume& volume, Operation& operation) {
  if (operation.kind == Operation::Kind::transaction) {
    CO_TRY(const Commit commit, co_await volume.commit(std::move(*operation.transaction)));
    if (!operation.changes) co_return Placement{};
    co_return Placement{commit.position, commit.position};
  }
  CO_TRY(const LogPosition before, co_await accepted_of(volume));
  CO_TRY_OK(co_await execute_catalogue(volume, operation));
  CO_TRY(const LogPosition after, co_await accepted_of(volume));
  co_return Placement{before, after};
}

}  // namespace cumulus
