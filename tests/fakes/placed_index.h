// PlacedIndex: an Index that knows only where segments are: for the tests of those who look after stored
// segments. Everything else is refused. Header-only. Reactor thread.
#pragma once

#include <map>

#include "objectstore/base/check.h"
#include "objectstore/index/index.h"

namespace cumulus {

class PlacedIndex final : public Index {
 public:
  std::map<SegmentId, change::Placed> segments;
  Status soundness;  // what check() says

  Task<Result<std::optional<PlacedSegment>>> placed(SegmentId segment) override {
    const auto found = segments.find(segment);
    std::optional<PlacedSegment> answer;
    if (found != segments.end()) answer = PlacedSegment{found->second};
    co_return answer;
  }
  Task<Result<std::vector<PlacedSegment>>> placed_list(SegmentKind kind, Sequence after,
                                                       std::size_t limit) override {
    std::map<Sequence, PlacedSegment> sorted;
    for (const auto& [id, where] : segments)
      if (id.kind == kind && id.sequence > after) sorted[id.sequence] = {where};
    std::vector<PlacedSegment> page;
    for (const auto& [sequence, where] : sorted)
      if (page.size() < limit) page.push_back(where);
    co_return page;
  }
  Task<Status> check(std::function<void(std::uint64_t)> progress) override {
    progress(segments.size());
    co_return soundness;
  }
  Task<Status> close() override { co_return Status(); }

  const DatasetInfo* dataset(DatasetId) const override { refuse(); }
  const DatasetInfo* dataset(std::string_view) const override { refuse(); }
  std::vector<const DatasetInfo*> datasets() const override { refuse(); }
  DatasetId next_dataset() const override { refuse(); }
  Task<Result<std::optional<ObjectStat>>> stat(View, ObjectId) override { refuse(); }
  Task<Result<std::vector<Extent>>> extents(View, ObjectId, std::uint64_t, std::uint64_t) override {
    refuse();
  }
  bool try_size(const View&, ObjectId, std::uint64_t&) override { refuse(); }
  bool try_extents(const View&, ObjectId, std::uint64_t, std::uint64_t, std::vector<Extent>&) override {
    refuse();
  }
  Task<Result<std::optional<std::uint64_t>>> next_written(View, ObjectId, std::uint64_t) override {
    refuse();
  }
  Task<Result<std::optional<Bytes>>> xattr(View, ObjectId, Bytes) override { refuse(); }
  Task<Result<std::vector<OmapEntry>>> xattrs(View, ObjectId) override { refuse(); }
  Task<Result<std::optional<Bytes>>> omap(View, ObjectId, Bytes) override { refuse(); }
  Task<Result<std::vector<OmapEntry>>> omap_list(View, ObjectId, std::optional<Bytes>, std::size_t) override {
    refuse();
  }
  Task<Result<std::vector<ObjectId>>> objects(View, ObjectId, std::size_t) override { refuse(); }
  Task<Result<std::vector<ObjectId>>> diff_objects(View, View, ObjectId, std::size_t) override { refuse(); }
  Task<Result<std::vector<ByteRange>>> diff_ranges(View, View, ObjectId, std::uint64_t,
                                                   std::uint64_t) override {
    refuse();
  }
  Task<Status> prepare(const std::vector<Change>&) override { refuse(); }
  bool stage(const Change&) override { refuse(); }
  void close_group(LogPosition) override { refuse(); }
  void group_written(LogPosition, std::uint64_t, ResolveRun) override { refuse(); }
  Task<Status> room_for_group(TimePoint) override { refuse(); }
  Task<Status> abandon_unwritten() override { refuse(); }
  Task<Status> replay(LogPosition, std::vector<Change>) override { refuse(); }
  LogPosition applied() const override { refuse(); }
  LogPosition durable() const override { refuse(); }
  Task<Status> flush() override { refuse(); }
  Engine& engine() override { refuse(); }

 private:
  [[noreturn]] static void refuse() {
    check_failed("this index only knows placed segments", __FILE__, __LINE__);
  }
};

}  // namespace cumulus
