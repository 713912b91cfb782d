#include "tools/cumulus/mount_requests.h"

#include <map>
#include <unistd.h>

#include "fs/file_system.h"
#include "objectstore/base/format.h"
#include "tools/cumulus/mounts.h"
#include "tools/cumulus/quota_request.h"

namespace cumulus {
namespace {

using Answer = Task<Result<Json>>;

constexpr std::uint8_t kFileChunkLog2 = 20;
constexpr std::uint8_t kFileCellLog2 = 14;

// Reads wait as long as the last mount that said so wants: the volume has one setting for all.
Status apply_outage_wait(Desk& desk, const MountOptions& options, bool for_good) {
  if (options.outage_wait.empty()) return {};
  VolumeSettings settings = desk.stack.settings();
  TRY_OK(settings.set("outage-wait", options.outage_wait));
  if (!for_good) return {};
  desk.stack.settings() = settings;
  desk.stack.volume().set_options(settings.options);
  return {};
}

Answer mount_prepare(Desk& desk, Session&, Json request) {
  CO_TRY(MountOrder order, MountOrder::from_json(request));
  CO_TRY_OK(apply_outage_wait(desk, order.options, false));
  CO_TRY_OK(co_await desk.mounts.check(desk.stack.volume(), std::move(order)));
  co_return Json::object();
}

Answer mount_serve(Desk& desk, Session& session, Json request) {
  const int device = session.take_descriptor();
  if (device < 0) co_return fail(ErrorKind::invalid, "a mount comes with its connection");
  auto order = MountOrder::from_json(request);
  if (!order) {
    ::close(device);
    co_return fail(order.error());
  }
  const MountOptions options = order->options;
  CO_TRY_OK(co_await desk.mounts.serve(desk.stack.volume(), std::move(*order), device));
  CO_TRY_OK(apply_outage_wait(desk, options, true));
  co_return Json::object();
}

Answer mount_flush(Desk& desk, Session& session, Json request) {
  const Durability level = request.value("sync", false) ? Durability::remote : Durability::local;
  std::string directory = request.value("directory", "");
  Progress progress = sending_progress(desk, session);
  CO_TRY_OK(
      co_await desk.mounts.flush(desk.stack.volume(), std::move(directory), level, std::move(progress)));
  co_return Json::object();
}

Answer mount_wait(Desk& desk, Session& session, Json request) {
  std::string directory = request.value("directory", "");
  while (desk.mounts.is_mounted(directory)) {
    if (session.gone()) co_return fail(ErrorKind::closed, "the command went away");
    co_await desk.mounts.wait_a_while();
    if (request.value("brief", false)) break;
  }
  if (desk.mounts.is_mounted(directory)) co_return Json{{"mounted", true}};
  if (request.value("sync", false)) {
    Progress progress = sending_progress(desk, session);
    CO_TRY_OK(co_await desk.stack.volume().flush(Durability::remote, std::move(progress)));
  }
  co_return Json::object();
}

Answer fs_create(Desk& desk, Session&, Json request) {
  const std::string name = request.value("file_system", "");
  DatasetOptions options;
  options.type = DatasetType::file_system;
  options.chunk_log2 = kFileChunkLog2;
  options.cell_log2 = kFileCellLog2;
  CO_TRY(const DatasetId id, co_await desk.stack.volume().create_dataset(name, options));
  const auto formatted =
      co_await PosixFileSystem::make_empty(desk.reactor, desk.stack.volume(), id, ::geteuid(), ::getegid());
  if (!formatted) co_return fail(formatted.error());
  CO_TRY_OK(co_await desk.stack.volume().flush());
  co_return Json{{"name", name}};
}

Result<const DatasetInfo*> file_system_named(Desk& desk, const std::string& name) {
  const DatasetInfo* info = desk.stack.volume().find_dataset(name);
  if (info == nullptr || info->type != DatasetType::file_system)
    return fail(ErrorKind::not_found, format("there is no file system '{}' in volume '{}'", name, desk.name));
  return info;
}

Answer fs_rm(Desk& desk, Session&, Json request) {
  CO_TRY(const DatasetInfo* info, file_system_named(desk, request.value("file_system", "")));
  CO_TRY_OK(desk.residents.check_free(info->id, desk.name + "/" + info->name));
  CO_TRY_OK(co_await desk.stack.volume().remove_dataset(info->id));
  CO_TRY_OK(co_await desk.stack.volume().flush());
  co_return Json::object();
}

Json tree_json(const DatasetInfo& info, std::uint32_t tree) {
  const auto found = info.trees.find(tree);
  const QuotaState state = found == info.trees.end() ? QuotaState{} : found->second;
  return {{"name", info.name},
          {"tree", tree},
          {"bytes", std::max<std::int64_t>(state.bytes, 0)},
          {"bytes_max", state.bytes_max},
          {"inodes", std::max<std::int64_t>(state.objects, 0)},
          {"inodes_max", state.objects_max}};
}

Answer fs_ls(Desk& desk, Session&, Json) {
  Json all = Json::array();
  for (const DatasetInfo& info : desk.stack.volume().datasets()) {
    if (info.type == DatasetType::file_system) all.push_back(tree_json(info, 0));
  }
  co_return all;
}

const std::map<std::string, ServeRequest, std::less<>> kRequests = {
    {"mount.prepare", mount_prepare},
    {"mount.serve", mount_serve},
    {"mount.flush", mount_flush},
    {"mount.wait", mount_wait},
    {"fs.create", fs_create},
    {"fs.rm", fs_rm},
    {"fs.ls", fs_ls},
    {"fs.quota", serve_fs_quota},
};

}  // namespace

ServeRequest find_mount_request(std::string_view name) {
  const auto found = kRequests.find(name);
  return found == kRequests.end() ? nullptr : found->second;
}

}  // namespace cumulus
