#include "tools/cumulus/requests.h"

#include <fcntl.h>
#include <map>
#include <sys/stat.h>
#include <unistd.h>

#include "netclient/miner_list.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "tools/cumulus/bucket.h"
#include "tools/cumulus/former_miners.h"
#include "tools/cumulus/image_requests.h"
#include "tools/cumulus/mount_requests.h"
#include "tools/cumulus/nbd_requests.h"
#include "tools/cumulus/snapshot_requests.h"

namespace cumulus {
namespace {

using Answer = Task<Result<Json>>;

constexpr std::size_t kNamesInAnswerMax = kJsonFrameMax / 8;  // JSON writes a control character in six
constexpr off_t kMadeUpMax = 64 << 10;  // a page or a few, as /sys says of all its files

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

std::string text(const Json& request, const char* key) { return request.value(key, ""); }

Json status_json(const VolumeStatus& status, Desk& desk) {
  Json miners = Json::array();
  for (const MinerHealth& miner : status.miners) {
    Json one = {{"identity", miner.entry.id.hex()},
                {"address", miner.entry.address},
                {"domain", miner.entry.domain},
                {"answers", miner.answers}};
    if (!miner.answers) one["error"] = miner.error;
    if (miner.answers) {
      one["capacity"] = miner.status.capacity;
      one["used"] = miner.status.used;
      one["volume_used"] = miner.status.volume_used;
      one["volume_slices"] = miner.status.volume_slices;
      one["draining"] = miner.status.draining;
      one["read_only"] = miner.status.read_only;
    }
    miners.push_back(std::move(one));
  }
  return {{"name", desk.name},
          {"id", status.id.hex()},
          {"daemon_pid", ::getpid()},
          {"users", desk.residents.describe()},
          {"code", format("{}+{}", status.shape.k, status.shape.m)},
          {"segment", std::uint64_t{1} << status.shape.segment_log2},
          {"epoch", status.epoch},
          {"writable", status.writable},
          {"read_only_reason", status.read_only_reason},
          {"capacity", status.capacity},
          {"free", status.free},
          {"used", status.used},
          {"live", status.live},
          {"garbage", status.garbage},
          {"disks_uncounted", status.disks_uncounted},
          {"dirty", status.dirty},
          {"waiting_for", desk.stack.volume().obstacle()},
          {"segments", status.segments},
          {"segments_crowded", status.segments_crowded},
          {"segments_degraded", status.segments_degraded},
          {"positions",
           {{"accepted", status.accepted},
            {"written", status.written},
            {"local", status.durable},
            {"remote", status.remote},
            {"recovered", status.recovered}}},
          {"tail",
           {{"epoch", status.tail.through.epoch},
            {"sequence", status.tail.through.sequence},
            {"position", status.tail.position}}},
          {"holders",
           {{"count", status.quorum.holders},
            {"quorum", status.quorum.quorum},
            {"may_be_away", status.quorum.holders == 0 ? 0 : status.quorum.may_be_away()},
            {"may_lie", status.quorum.holders == 0 ? 0 : status.quorum.may_lie()}}},
          {"cache", status.cache_bytes},
          {"miners", std::move(miners)}};
}

Answer volume_status(Desk& desk, Session&, Json) {
  CO_TRY(const VolumeStatus status, co_await desk.stack.volume().status(true));
  co_return status_json(status, desk);
}

Answer volume_sync(Desk& desk, Session& session, Json) {
  CO_TRY_OK(co_await desk.residents.write_out());
  Progress progress = sending_progress(desk, session);
  CO_TRY_OK(co_await desk.stack.volume().flush(Durability::remote, std::move(progress)));
  CO_TRY(const VolumeStatus status, co_await desk.stack.volume().status(false));
  co_return Json{{"tail",
                  {{"epoch", status.tail.through.epoch},
                   {"sequence", status.tail.through.sequence},
                   {"position", status.tail.position}}}};
}

Answer volume_check(Desk& desk, Session& session, Json request) {
  CO_TRY(const CheckReport report,
         co_await desk.stack.volume().check(request.value("data", false), progress_of(session)));
  co_return Json{{"clean", report.clean()},
                 {"rows", report.rows},
                 {"segments", report.segments},
                 {"slices", report.slices},
                 {"slices_missing", report.slices_missing},
                 {"slices_wrong", report.slices_wrong},
                 {"problems", report.problems}};
}

Answer volume_repair(Desk& desk, Session& session, Json request) {
  RepairOptions options;
  options.restart = request.value("restart", false);
  CO_TRY(const RepairReport report, co_await desk.stack.volume().repair(options, progress_of(session)));
  co_return Json{
      {"segments", report.segments},         {"rebuilt", report.rebuilt},   {"spread", report.spread},
      {"resumed", report.resumed},           {"unspread", report.unspread}, {"whole", report.whole()},
      {"unrepairable", report.unrepairable}, {"problems", report.problems}};
}

Answer volume_drop_cache(Desk& desk, Session&, Json) {
  CO_TRY_OK(co_await desk.stack.volume().drop_cache());
  co_return Json::object();
}

Answer volume_set(Desk& desk, Session&, Json request) {
  CO_TRY(VolumeSettings settings, desk.home.load_settings(desk.name));
  desk.stack.settings() = settings;
  desk.stack.volume().set_options(settings.options);
  static_cast<void>(request);
  co_return settings.to_json();
}

Answer miner_list(Desk& desk, Session&, Json) {
  co_return Json{{"miners", print_miner_list(desk.stack.volume().miners())}};
}

Answer miner_set(Desk& desk, Session&, Json request) {
  CO_TRY(auto miners, parse_miner_list(text(request, "miners"), "miners"));
  CO_TRY(auto expected, parse_miner_list(text(request, "expected"), "expected"));
  const bool lost = request.value("lost", false);
  // What repairs moved off a miner is still there: the end of the volume must find it.
  if (!lost) CO_TRY_OK(note_former_miners(desk.home, desk.name, desk.stack.volume().miners(), miners));
  CO_TRY_OK(co_await desk.stack.volume().set_miners(miners, lost, std::move(expected)));
  CO_TRY_OK(
      Home::write_file(desk.home.volume(desk.name) + "/miners.toml", view_of(print_miner_list(miners))));
  co_return Json{{"miners", miners.size()}};
}

Answer daemon_stop(Desk& desk, Session&, Json) {
  const auto status = co_await desk.stack.volume().status(false);
  desk.stop();
  co_return Json{{"dirty", status ? status->dirty : 0}};
}

// --- objects ---

Task<Result<Bucket>> bucket_of(Desk& desk, const Json& request, bool make) {
  const std::string snapshot = text(request, "snapshot");
  if (snapshot.empty()) co_return co_await Bucket::open(desk.stack.volume(), text(request, "bucket"), make);
  co_return Bucket::at_snapshot(desk.stack.volume(), text(request, "bucket"), snapshot);
}

Json entry_json(const BucketEntry& entry) {
  return {{"name", entry.name}, {"size", entry.size}, {"modified_at", entry.modified_at / 1'000'000'000}};
}

Answer object_put(Desk& desk, Session& session, Json request) {
  Volume& volume = desk.stack.volume();
  CO_TRY(Bucket bucket, co_await bucket_of(desk, request, true));
  const Descriptor file{session.take_descriptor()};
  const std::string path = request.value("file", "the file");
  std::optional<std::uint64_t> size;
  Bucket::Source source;
  if (file.fd >= 0) {
    struct stat info{};
    if (::fstat(file.fd, &info) != 0) co_return fail(from_errno(errno, "look at " + path));
    // Of what a kernel makes up while it is read, the size says nothing: that is read to its end.
    const bool made_up = info.st_size == 0 || (info.st_blocks == 0 && info.st_size <= kMadeUpMax);
    if (!made_up) size = static_cast<std::uint64_t>(info.st_size);
    source = [&desk, &file, &path](std::uint64_t offset, MutableByteView into) -> Task<Result<std::size_t>> {
      const auto read = [&]() -> Result<std::size_t> {
        std::size_t done = 0;
        while (done < into.size()) {
          const ssize_t got =
              ::pread(file.fd, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
          if (got < 0 && errno == EINTR) continue;
          if (got < 0) return fail(from_errno(errno, "read " + path));
          if (got == 0) break;
          done += static_cast<std::size_t>(got);
        }
        return done;
      };
      co_return co_await desk.reactor.offload(read);
    };
  } else {
    source = [&session](std::uint64_t, MutableByteView into) { return session.receive_data(into); };
  }
  Progress putting = sending_progress(desk, session);
  CO_TRY(const Bucket::Put put,
         co_await bucket.put(desk.reactor, text(request, "object"), size, source, std::move(putting)));
  const bool remote = request.value("sync", false);
  const Durability level =
      remote ? Durability::remote : std::max(Durability::local, desk.stack.settings().options.flush_means);
  Progress progress = sending_progress(desk, session);
  CO_TRY_OK(co_await volume.wait(put.commit, level, std::move(progress)));
  Json answer = entry_json(put.entry);
  answer["position"] = put.commit.position;
  co_return answer;
}

Answer object_get(Desk& desk, Session& session, Json request) {
  CO_TRY(Bucket bucket, co_await bucket_of(desk, request, false));
  const Descriptor file{session.take_descriptor()};
  const std::string path = request.value("file", "the file");
  Bucket::Sink sink;
  if (file.fd >= 0) {
    sink = [&desk, &file, &path](std::uint64_t offset, ByteView bytes) -> Task<Status> {
      const auto write = [&]() -> Status {
        ByteView left = bytes;
        std::uint64_t at = offset;
        while (!left.empty()) {
          const ssize_t put = ::pwrite(file.fd, left.data(), left.size(), static_cast<off_t>(at));
          if (put < 0 && errno == EINTR) continue;
          if (put <= 0) return fail(from_errno(put == 0 ? EIO : errno, "write " + path));
          left = left.subspan(static_cast<std::size_t>(put));
          at += static_cast<std::uint64_t>(put);
        }
        return {};
      };
      co_return co_await desk.reactor.offload(write);
    };
  } else {
    sink = [&session](std::uint64_t, ByteView bytes) -> Task<Status> {
      co_return co_await session.send(FrameKind::data, bytes);
    };
  }
  const bool in_order = file.fd < 0;
  CO_TRY(const std::uint64_t size,
         co_await bucket.get(desk.reactor, text(request, "object"), in_order, sink, progress_of(session)));
  co_return Json{{"size", size}};
}

Answer object_ls(Desk& desk, Session&, Json request) {
  CO_TRY(Bucket bucket, co_await bucket_of(desk, request, false));
  const std::size_t limit = request.value("limit", std::size_t{10000});
  CO_TRY(const auto entries, co_await bucket.list(text(request, "prefix"), text(request, "after"),
                                                  std::min<std::size_t>(limit, 10000)));
  Json list = Json::array();
  std::size_t bytes = 0;
  for (const BucketEntry& entry : entries) {
    if (bytes > kNamesInAnswerMax) break;  // the next page begins there
    bytes += entry.name.size();
    list.push_back(entry_json(entry));
  }
  co_return list;
}

Answer object_stat(Desk& desk, Session&, Json request) {
  CO_TRY(Bucket bucket, co_await bucket_of(desk, request, false));
  CO_TRY(const BucketEntry entry, co_await bucket.stat(text(request, "object")));
  co_return entry_json(entry);
}

Answer object_rm(Desk& desk, Session&, Json request) {
  CO_TRY(Bucket bucket, co_await bucket_of(desk, request, false));
  CO_TRY_OK(co_await bucket.remove(text(request, "object")));
  CO_TRY_OK(co_await desk.stack.volume().flush());
  co_return Json::object();
}

// --- datasets and snapshots ---

Json dataset_json(const DatasetInfo& info) {
  static const std::map<DatasetType, std::string> kTypes = {
      {DatasetType::bucket, "bucket"}, {DatasetType::file_system, "fs"}, {DatasetType::image, "image"}};
  const auto usage = info.trees.find(0);
  Json snapshots = Json::array();
  for (const SnapshotInfo& snapshot : info.snapshots)
    snapshots.push_back({{"name", snapshot.name}, {"created_at", snapshot.created_at / 1'000'000'000}});
  return {{"name", info.name},
          {"type", kTypes.at(info.type)},
          {"parent", info.parent},
          {"snapshots", snapshots},
          {"bytes", usage == info.trees.end() ? 0 : usage->second.bytes},
          {"objects", usage == info.trees.end() ? 0 : usage->second.objects}};
}

Answer dataset_ls(Desk& desk, Session&, Json) {
  Json list = Json::array();
  for (const DatasetInfo& info : desk.stack.volume().datasets()) list.push_back(dataset_json(info));
  co_return list;
}

Answer resident_ls(Desk& desk, Session&, Json) { co_return desk.residents.describe(); }

using Serve = Answer (*)(Desk&, Session&, Json);
const std::map<std::string, Serve, std::less<>> kRequests = {
    {"volume.status", volume_status},
    {"volume.sync", volume_sync},
    {"volume.check", volume_check},
    {"volume.repair", volume_repair},
    {"volume.drop-cache", volume_drop_cache},
    {"volume.set", volume_set},
    {"miner.list", miner_list},
    {"miner.set", miner_set},
    {"daemon.stop", daemon_stop},
    {"object.put", object_put},
    {"object.get", object_get},
    {"object.ls", object_ls},
    {"object.stat", object_stat},
    {"object.rm", object_rm},
    {"dataset.ls", dataset_ls},
    {"resident.ls", resident_ls},
    {"snapshot.create", serve_snapshot_create},
    {"snapshot.rm", serve_snapshot_remove},
    {"snapshot.identity", serve_snapshot_identity},
    {"snapshot.rollback", serve_snapshot_rollback},
    {"snapshot.diff", serve_snapshot_diff},
    {"snapshot.export", serve_snapshot_export},
    {"snapshot.import", serve_snapshot_import},
    {"clone", serve_clone},
    {"nbd.serve", serve_nbd_serve},
    {"nbd.wait", serve_nbd_wait},
    {"nbd.stop", serve_nbd_stop},
    {"image.create", serve_image_create},
    {"image.ls", serve_image_list},
    {"image.rm", serve_image_remove},
    {"image.resize", serve_image_resize},
    {"image.flatten", serve_image_flatten},
    {"image.mark", serve_image_mark},
    {"image.attach", serve_image_attach},
};

}  // namespace

Task<Result<Json>> serve_request(Desk& desk, Session& session, Json request) {
  const std::string name = request.is_object() ? text(request, "request") : "";
  if (const ServeRequest serve = find_mount_request(name))
    co_return co_await serve(desk, session, std::move(request));
  const auto found = kRequests.find(name);
  if (found == kRequests.end())
    co_return fail(
        ErrorKind::invalid,
        format("the daemon does not know '{}': it is of another version; stop it with 'cumulus volume stop'",
               name));
  co_return co_await found->second(desk, session, std::move(request));
}

}  // namespace cumulus
