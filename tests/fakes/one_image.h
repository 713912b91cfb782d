// OneImage: a volume that is one disk image of zeros, for tests of what serves disks. Its commits wait while
// `full`, as those of a volume whose log has no room.
#pragma once

#include <cstdlib>

#include "blockdev/image_header.h"
#include "objectstore/io/sync.h"

namespace cumulus {

class OneImage final : public Volume {
 public:
  OneImage(Runtime& runtime, std::uint64_t size) : changed_(runtime), size_(size) {
    info_.id = 1;
    info_.type = DatasetType::image;
    info_.name = "disk";
    info_.head = {{1}};
  }
  void set_full(bool full) {
    full_ = full;
    changed_.notify_all();
  }
  std::size_t waiting() const { return waiting_; }
  std::size_t committed() const { return committed_; }

  std::vector<DatasetInfo> datasets() const override { return {info_}; }
  const DatasetInfo* find_dataset(std::string_view name) const override {
    return name == info_.name ? &info_ : nullptr;
  }
  const DatasetInfo* find_dataset(DatasetId id) const override { return id == info_.id ? &info_ : nullptr; }
  Task<Result<Commit>> commit(Transaction transaction) override {
    const Transaction held = std::move(transaction);
    ++waiting_;
    while (full_) co_await changed_.wait();
    --waiting_;
    ++committed_;
    co_return Commit();
  }
  Task<Result<std::optional<ObjectStat>>> stat(View, ObjectId) override {
    co_return ObjectStat{size_, ImageHeader().encode()};
  }
  Task<Result<std::size_t>> read(View, ObjectId, std::uint64_t, MutableByteView into, Warming) override {
    std::fill(into.begin(), into.end(), std::uint8_t{0});
    co_return into.size();
  }
  bool try_read(const View&, ObjectId, std::uint64_t, MutableByteView, Result<std::size_t>&) override {
    return false;
  }
  Task<Status> flush(Durability, Progress) override { co_return Status(); }
  Task<Status> flush() override { co_return Status(); }
  void hasten() override {}
  Task<Status> wait(Commit, Durability, Progress) override { co_return Status(); }
  Task<Status> wait(Commit) override { co_return Status(); }
  std::optional<Error> loss() const override { return std::nullopt; }
  std::string obstacle() const override { return {}; }
  void stop_waiting() override {}
  Task<Status> close() override { co_return Status(); }

  // No disk's server asks for these.
  Task<Result<DatasetId>> create_dataset(std::string, DatasetOptions) override { std::abort(); }
  Task<Status> remove_dataset(DatasetId) override { std::abort(); }
  Task<Status> rename_dataset(DatasetId, std::string) override { std::abort(); }
  Task<Status> set_quota(DatasetId, std::uint32_t, std::uint64_t, std::uint64_t) override { std::abort(); }
  Task<Status> create_snapshots(std::vector<SnapshotTarget>) override { std::abort(); }
  Task<Status> remove_snapshot(DatasetId, std::string) override { std::abort(); }
  Task<Status> rollback(DatasetId, std::string) override { std::abort(); }
  Task<Result<std::vector<DatasetId>>> clone(DatasetId, std::string, std::vector<std::string>) override {
    std::abort();
  }
  Task<Status> detach(DatasetId, View) override { std::abort(); }
  Result<ObjectId> allocate_object(DatasetId) override { std::abort(); }
  Task<Result<std::vector<Stretch>>> stretches(View, ObjectId, std::uint64_t, std::uint64_t) override {
    std::abort();
  }
  Task<Result<std::optional<std::uint64_t>>> next_written(View, ObjectId, std::uint64_t) override {
    std::abort();
  }
  Task<Result<std::optional<Bytes>>> xattr(View, ObjectId, Bytes) override { std::abort(); }
  Task<Result<std::vector<OmapEntry>>> xattrs(View, ObjectId) override { std::abort(); }
  Task<Result<std::optional<Bytes>>> omap(View, ObjectId, Bytes) override { std::abort(); }
  Task<Result<std::vector<OmapEntry>>> omap_list(View, ObjectId, std::optional<Bytes>, std::size_t) override {
    std::abort();
  }
  Task<Result<std::vector<ObjectId>>> diff_objects(View, View, ObjectId, std::size_t) override {
    std::abort();
  }
  Task<Result<std::vector<Range>>> diff_ranges(View, View, ObjectId, std::uint64_t, std::uint64_t) override {
    std::abort();
  }
  Task<Result<VolumeStatus>> status(bool) override { std::abort(); }
  Task<Result<CheckReport>> check(bool, Progress) override { std::abort(); }
  Task<Result<RepairReport>> repair(RepairOptions, Progress) override { std::abort(); }
  Task<Status> drop_cache() override { std::abort(); }
  Task<Status> set_miners(std::vector<MinerEntry>, bool, std::optional<std::vector<MinerEntry>>) override {
    std::abort();
  }
  void set_options(const VolumeOptions&) override {}
  std::vector<MinerEntry> miners() const override { return {}; }

 private:
  Signal changed_;
  std::uint64_t size_;
  DatasetInfo info_;
  bool full_ = false;
  std::size_t waiting_ = 0;
  std::size_t committed_ = 0;
};

}  // namespace cumulus
