#include "tools/cumulus/snapshot_requests.h"

#include <algorithm>

#include "blockdev/image_difference.h"
#include "objectstore/base/format.h"

namespace cumulus {
namespace {

std::string text(const Json& request, const char* key) { return request.value(key, ""); }

Result<const DatasetInfo*> dataset_named(Desk& desk, const std::string& name) {
  const DatasetInfo* info = desk.stack.volume().find_dataset(name);
  if (info == nullptr)
    return fail(ErrorKind::not_found, format("there is no '{}' in volume '{}'", name, desk.name));
  return info;
}

ImageInstant instant_of(const Json& request) { return {text(request, "dataset"), text(request, "snapshot")}; }

// Holds an image while a difference is received into it, as long as the request runs.
class Receiving final : public WorkingResident {
 public:
  Receiving(Desk& desk, Session& session, std::string name)
      : WorkingResident(desk.reactor, desk.residents), session_(session), name_(std::move(name)) {}

  Status hold(DatasetId dataset) {
    TRY_OK(residents().check_free(dataset, name_, this));
    dataset_ = dataset;
    return {};
  }

  std::string kind() const override { return "import"; }
  Json describe() const override {
    return {{"kind", kind()}, {"where", "of a difference into it"}, {"target", name_}};
  }
  bool holds(DatasetId dataset) const override { return dataset_ != 0 && dataset == dataset_; }

 private:
  void ask_to_end() override { session_.end(); }

  Session& session_;
  std::string name_;
  DatasetId dataset_ = 0;
};

}  // namespace

Task<Result<Json>> serve_snapshot_create(Desk& desk, Session&, Json request) {
  std::vector<Volume::SnapshotTarget> targets;
  for (const Json& target : request["targets"]) {
    CO_TRY(const DatasetInfo* info, dataset_named(desk, text(target, "dataset")));
    targets.push_back({info->id, text(target, "snapshot")});
  }
  CO_TRY_OK(co_await desk.residents.write_out());
  CO_TRY_OK(co_await desk.stack.volume().create_snapshots(std::move(targets)));
  CO_TRY_OK(co_await desk.stack.volume().flush());
  co_return Json::object();
}

Task<Result<Json>> serve_snapshot_remove(Desk& desk, Session&, Json request) {
  CO_TRY(const DatasetInfo* info, dataset_named(desk, text(request, "dataset")));
  CO_TRY_OK(co_await desk.stack.volume().remove_snapshot(info->id, text(request, "snapshot")));
  CO_TRY_OK(co_await desk.stack.volume().flush());
  co_return Json::object();
}

Task<Result<Json>> serve_snapshot_identity(Desk& desk, Session&, Json request) {
  ImageInstant instant = instant_of(request);
  CO_TRY(const SnapshotIdentity identity,
         co_await snapshot_identity(desk.stack.volume(), std::move(instant)));
  co_return Json{{"identity", to_hex(encode_identity(identity))}};
}

Task<Result<Json>> serve_snapshot_rollback(Desk& desk, Session&, Json request) {
  CO_TRY(const DatasetInfo* info, dataset_named(desk, text(request, "dataset")));
  CO_TRY_OK(desk.residents.check_free(info->id, info->name));
  CO_TRY_OK(co_await desk.stack.volume().rollback(info->id, text(request, "snapshot")));
  CO_TRY_OK(co_await desk.stack.volume().flush());
  co_return Json::object();
}

Task<Result<Json>> serve_clone(Desk& desk, Session&, Json request) {
  CO_TRY(const DatasetInfo* info, dataset_named(desk, text(request, "dataset")));
  auto names = request["names"].get<std::vector<std::string>>();
  CO_TRY_OK(co_await desk.stack.volume().clone(info->id, text(request, "snapshot"), std::move(names)));
  CO_TRY_OK(co_await desk.stack.volume().flush());
  co_return Json::object();
}

Task<Result<Json>> serve_snapshot_export(Desk& desk, Session& session, Json request) {
  std::optional<ImageInstant> base;
  if (request.contains("older")) base = instant_of(request["older"]);
  ImageInstant end = instant_of(request["newer"]);
  DifferenceSink sink = [&session](ByteView bytes) -> Task<Status> {
    for (ByteView left = bytes; !left.empty();) {
      const ByteView part = left.first(std::min<std::size_t>(left.size(), kDataFrameMax));
      CO_TRY_OK(co_await session.send(FrameKind::data, part));
      left = left.subspan(part.size());
    }
    co_return Status();
  };
  Progress progress = progress_of(session);
  CO_TRY(const std::uint64_t sent,
         co_await send_difference(desk.stack.volume(), std::move(base), std::move(end), std::move(sink),
                                  std::move(progress)));
  co_return Json{{"bytes", sent}};
}

Task<Result<Json>> serve_snapshot_import(Desk& desk, Session& session, Json request) {
  DifferenceSource source = [&session](MutableByteView into) { return session.receive_data(into); };
  std::string image = text(request, "dataset");
  Receiving receiving(desk, session, desk.name + "/" + image);
  std::function<Status(DatasetId)> writing = [&receiving](DatasetId dataset) {
    return receiving.hold(dataset);
  };
  Progress progress = progress_of(session);
  const WallTime now = desk.reactor.wall_now();
  CO_TRY(const Received received,
         co_await receive_difference(desk.stack.volume(), std::move(image), std::move(source), now,
                                     std::move(writing), std::move(progress)));
  co_return Json{{"snapshot", received.snapshot}, {"bytes", received.bytes}};
}

}  // namespace cumulus
