// snapshot.diff: what differs between two instants of an image, a bucket or a file system.
#include <algorithm>

#include "blockdev/image_difference.h"
#include "fs/difference.h"
#include "objectstore/base/format.h"
#include "tools/cumulus/bucket.h"
#include "tools/cumulus/snapshot_requests.h"

namespace cumulus {
namespace {

constexpr std::size_t kPage = 4096;        // differences in one answer
constexpr std::size_t kBatch = 64u << 10;  // bytes of paths in one frame

ImageInstant instant_of(const Json& request) {
  return {request.value("dataset", ""), request.value("snapshot", "")};
}

Task<Result<Bucket>> bucket_at(Desk& desk, ImageInstant instant) {
  if (instant.snapshot.empty())
    co_return co_await Bucket::open(desk.stack.volume(), std::move(instant.image), false);
  co_return Bucket::at_snapshot(desk.stack.volume(), std::move(instant.image), std::move(instant.snapshot));
}

// One page of two sorted lists of names, compared. An entry is another when it names another object: a put
// always makes a new one.
Task<Result<Json>> bucket_difference(Desk& desk, ImageInstant older, ImageInstant newer, std::string after) {
  CO_TRY(Bucket before, co_await bucket_at(desk, std::move(older)));
  CO_TRY(Bucket now, co_await bucket_at(desk, std::move(newer)));
  CO_TRY(auto old_names, co_await before.list("", after, kPage));
  CO_TRY(auto new_names, co_await now.list("", after, kPage));
  // Behind the end of the shorter page nothing can be said yet.
  std::optional<std::string> upto;
  if (old_names.size() == kPage) upto = old_names.back().name;
  if (new_names.size() == kPage && (!upto || new_names.back().name < *upto)) upto = new_names.back().name;
  const auto beyond = [&upto](const BucketEntry& entry) { return upto && entry.name > *upto; };
  std::erase_if(old_names, beyond);
  std::erase_if(new_names, beyond);
  Json names = Json::array();
  const auto say = [&names](const char* what, const BucketEntry& entry) {
    names.push_back({{"change", what}, {"name", entry.name}});
  };
  auto a = old_names.begin();
  for (const BucketEntry& b : new_names) {
    for (; a != old_names.end() && a->name < b.name; ++a) say("removed", *a);
    const bool known = a != old_names.end() && a->name == b.name;
    if (!known) say("added", b);
    if (known && a->object != b.object) say("changed", b);
    if (known) ++a;
  }
  for (; a != old_names.end(); ++a) say("removed", *a);
  Json answer = {{"names", std::move(names)}};
  if (upto) answer["next"] = *upto;
  co_return answer;
}

// --- file systems ---

Result<View> view_at(Desk& desk, const ImageInstant& instant) {
  const DatasetInfo* info = desk.stack.volume().find_dataset(instant.image);
  if (info == nullptr) return fail(ErrorKind::not_found, format("'{}' was removed", instant.image));
  if (instant.snapshot.empty()) return info->head;
  const auto found = std::ranges::find(info->snapshots, instant.snapshot, &SnapshotInfo::name);
  if (found == info->snapshots.end())
    return fail(ErrorKind::not_found, format("'{}' has no snapshot '{}'", info->name, instant.snapshot));
  return found->view;
}

const char* word_of(PathChange::Kind kind) {
  switch (kind) {
    case PathChange::Kind::added:
      return "added";
    case PathChange::Kind::removed:
      return "removed";
    case PathChange::Kind::modified:
      return "modified";
    case PathChange::Kind::metadata:
      return "metadata";
    case PathChange::Kind::renamed:
      return "renamed";
  }
  return "changed";
}

const char* kind_of(std::uint32_t mode) {
  switch (mode >> 12) {
    case 001:
      return "fifo";
    case 002:
      return "character device";
    case 004:
      return "directory";
    case 006:
      return "block device";
    case 010:
      return "file";
    case 012:
      return "symbolic link";
    default:
      return "socket";
  }
}

// One line, whatever bytes a name has.
std::string in_one_line(const std::string& path) {
  std::string line;
  for (const char c : path) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\\')
      line += format("\\{:03o}", static_cast<unsigned char>(c));
    else
      line += c;
  }
  return line;
}

// JSON knows no bytes: of a name that is not UTF-8 there is an exact form besides.
void put_path(Json& entry, const std::string& key, const std::string& path) {
  entry[key] = path;
  const std::string shown = entry[key].dump(-1, ' ', false, Json::error_handler_t::replace);
  Json readable = Json::parse(shown);
  if (readable.get_ref<const std::string&>() == path) return;
  entry[key] = std::move(readable);
  std::string hex;
  for (const char c : path) hex += format("{:02x}", static_cast<unsigned char>(c));
  entry[key + "_hex"] = std::move(hex);
}

std::string line_of(const PathChange& change, bool json) {
  if (!json) {
    const std::string path = in_one_line(change.path);
    if (change.from.empty()) return format("{:<8} {}\n", word_of(change.kind), path);
    return format("{:<8} {} -> {}\n", word_of(change.kind), in_one_line(change.from), path);
  }
  Json entry = {{"change", word_of(change.kind)}, {"kind", kind_of(change.mode)}};
  put_path(entry, "path", change.path);
  if (!change.from.empty()) put_path(entry, "from", change.from);
  return entry.dump();
}

// Lines of text, or the elements of a JSON array, in data frames as they are found; then how many there were.
Task<Result<Json>> path_difference(Desk& desk, Session& session, ImageInstant older, ImageInstant newer,
                                   bool json) {
  if (older.snapshot.empty() || newer.snapshot.empty()) CO_TRY_OK(co_await desk.residents.write_out());
  CO_TRY(View before, view_at(desk, older));
  CO_TRY(View now, view_at(desk, newer));
  std::uint64_t count = 0;
  std::string batch;
  PathChangeSink sink = [&](PathChange change) -> Task<Status> {
    if (json && count > 0) batch += ",\n";
    batch += line_of(change, json);
    ++count;
    if (session.gone()) co_return fail(ErrorKind::closed, "the command went away");
    if (batch.size() < kBatch) co_return Status();
    const Status sent = co_await session.send(FrameKind::data, view_of(batch));
    batch.clear();
    co_return sent;
  };
  const DifferenceLimits limits;
  CO_TRY_OK(co_await file_system_difference(desk.reactor, desk.stack.volume(), std::move(before),
                                            std::move(now), limits, std::move(sink)));
  if (!batch.empty()) CO_TRY_OK(co_await session.send(FrameKind::data, view_of(batch)));
  co_return Json{{"paths", count}};
}

}  // namespace

Task<Result<Json>> serve_snapshot_diff(Desk& desk, Session& session, Json request) {
  ImageInstant older = instant_of(request["older"]);
  ImageInstant newer = instant_of(request["newer"]);
  std::vector<DatasetType> types;
  for (const ImageInstant* one : {&older, &newer}) {
    const DatasetInfo* info = desk.stack.volume().find_dataset(one->image);
    if (info == nullptr)
      co_return fail(ErrorKind::not_found, format("there is no '{}' in volume '{}'", one->image, desk.name));
    types.push_back(info->type);
  }
  if (types[0] != types[1])
    co_return fail(ErrorKind::invalid,
                   "images are compared with images, buckets with buckets, file systems with file systems");
  if (types[0] == DatasetType::bucket) {
    std::string after = request.value("after", "");
    co_return co_await bucket_difference(desk, std::move(older), std::move(newer), std::move(after));
  }
  if (types[0] == DatasetType::file_system)
    co_return co_await path_difference(desk, session, std::move(older), std::move(newer),
                                       request.value("json", false));
  const auto from = request.value("from", std::uint64_t{0});
  CO_TRY(const DifferencePage page,
         co_await difference_page(desk.stack.volume(), std::move(older), std::move(newer), from, kPage));
  Json ranges = Json::array();
  for (const Volume::Range& range : page.ranges)
    ranges.push_back({{"offset", range.offset}, {"length", range.length}});
  Json answer = {{"ranges", std::move(ranges)}, {"size", page.size}};
  if (page.reached < page.size) answer["next"] = page.reached;
  co_return answer;
}

}  // namespace cumulus
