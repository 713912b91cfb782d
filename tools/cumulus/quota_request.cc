#include "tools/cumulus/quota_request.h"

#include <algorithm>

#include "objectstore/base/format.h"

namespace cumulus {
namespace {

constexpr std::uint32_t kKindMask = 0170000;
constexpr std::uint32_t kDirectory = 0040000;

using Files = std::shared_ptr<PosixFileSystem>;

// Holds a file system that nobody has mounted while its trees are changed. It goes over one tree and ends by
// itself.
class Counting final : public WorkingResident {
 public:
  Counting(Desk& desk, DatasetId dataset, std::string target)
      : WorkingResident(desk.reactor, desk.residents), dataset_(dataset), target_(std::move(target)) {}

  std::string kind() const override { return "quota"; }
  Json describe() const override {
    return {{"kind", kind()}, {"where", "command that counts it"}, {"target", target_}};
  }
  bool holds(DatasetId dataset) const override { return dataset == dataset_; }

 private:
  DatasetId dataset_;
  std::string target_;
};

Error in_words(const FsError& error, const std::string& path) {
  const std::string text = format("{}: {}", path, error.message);
  switch (error.kind) {
    case FsErrorKind::not_found:
      return {ErrorKind::not_found, text};
    case FsErrorKind::quota:
    case FsErrorKind::no_space:
      return {ErrorKind::no_space, text};
    case FsErrorKind::io:
      return {ErrorKind::io, text};
    case FsErrorKind::read_only:
      return {ErrorKind::fenced, text};
    default:
      return {ErrorKind::invalid, text};
  }
}

// The directory that a path names, from the root. Symbolic links are not followed.
Task<Result<NodeId>> directory_at(PosixFileSystem& files, std::string path) {
  NodeId at = kRootNode;
  const Caller caller;
  for (std::size_t from = 0; from < path.size();) {
    const std::size_t end = std::min(path.find('/', from), path.size());
    std::string name = path.substr(from, end - from);
    from = end + 1;
    if (name.empty() || name == ".") continue;
    if (name == "..") co_return fail(ErrorKind::invalid, format("'{}' has '..' in it", path));
    if (at == kRootNode && name == ".snapshots")
      co_return fail(ErrorKind::invalid, "a snapshot cannot be changed, and what it holds counts for nobody");
    const auto found = co_await files.lookup(caller, at, std::move(name));
    if (!found) co_return fail(in_words(found.error(), path));
    if ((found->attributes.mode & kKindMask) != kDirectory)
      co_return fail(ErrorKind::invalid,
                     format("'{}' leads over what is no directory: quotas are of directories", path));
    at = found->node;
  }
  co_return at;
}

struct Limits {
  std::optional<std::uint64_t> bytes;
  std::optional<std::uint64_t> inodes;
  bool given() const { return bytes || inodes; }
};
std::optional<std::uint64_t> limit_of(const Json& request, const char* key) {
  if (!request.contains(key) || request[key].is_null()) return std::nullopt;
  return request[key].get<std::uint64_t>();
}

Json as_json(const std::string& name, const std::string& path, const QuotaState& state) {
  Json now = {{"name", name},
              {"bytes", std::max<std::int64_t>(state.bytes, 0)},
              {"bytes_max", state.bytes_max},
              {"inodes", std::max<std::int64_t>(state.objects, 0)},
              {"inodes_max", state.objects_max}};
  if (!path.empty()) now["path"] = path;
  return now;
}

Task<Result<Json>> change_tree(Files files, std::string name, std::string path, Limits limits) {
  CO_TRY(const NodeId node, co_await directory_at(*files, path));
  const auto before = co_await files->tree_quota(node);
  if (!before) co_return fail(in_words(before.error(), path));
  if (limits.given()) {
    const QuotaState now = before->value_or(QuotaState{});
    const FsStatus set = co_await files->set_tree_quota(node, limits.bytes.value_or(now.bytes_max),
                                                        limits.inodes.value_or(now.objects_max));
    if (!set) co_return fail(in_words(set.error(), path));
  }
  const auto after = co_await files->tree_quota(node);
  if (!after) co_return fail(in_words(after.error(), path));
  if (!*after && !limits.given())
    co_return fail(ErrorKind::not_found,
                   format("{} has no quota of its own: --bytes or --inodes gives it one", path));
  co_return as_json(name, path, after->value_or(QuotaState{}));
}

// Where it is mounted for writing, the mount's own; else one of our own for as long as this runs.
Task<Result<Json>> tree_quota(Desk& desk, const DatasetInfo& info, std::string path, Limits limits) {
  const DatasetId id = info.id;
  const std::string name = info.name;
  if (Files mounted = desk.mounts.files_of(id))
    co_return co_await change_tree(std::move(mounted), name, std::move(path), limits);
  std::optional<Counting> holding;
  if (limits.given()) {
    CO_TRY_OK(desk.residents.check_free(id, desk.name + "/" + name));
    holding.emplace(desk, id, desk.name + "/" + name);
  }
  FileSystemOptions options;
  options.read_only = !limits.given();
  std::string head;
  CO_TRY(auto opened,
         co_await PosixFileSystem::open(desk.reactor, desk.stack.volume(), id, std::move(head), options));
  const Files files = std::move(opened);
  auto answer = co_await change_tree(files, name, std::move(path), limits);
  const FsStatus closed = co_await files->close();
  if (answer && !closed) co_return fail(in_words(closed.error(), name));
  co_return answer;
}

}  // namespace

Task<Result<Json>> serve_fs_quota(Desk& desk, Session&, Json request) {
  const std::string name = request.value("file_system", "");
  const std::string path = request.value("path", "");
  const DatasetInfo* info = desk.stack.volume().find_dataset(name);
  if (info == nullptr || info->type != DatasetType::file_system)
    co_return fail(ErrorKind::not_found,
                   format("there is no file system '{}' in volume '{}'", name, desk.name));
  const DatasetId id = info->id;
  const Limits limits{limit_of(request, "bytes"), limit_of(request, "inodes")};
  Json answer;
  if (path.find_first_not_of('/') != std::string::npos) {
    CO_TRY(answer, co_await tree_quota(desk, *info, path, limits));
  } else {
    const auto found = info->trees.find(0);
    const QuotaState now = found == info->trees.end() ? QuotaState{} : found->second;
    if (limits.given())
      CO_TRY_OK(co_await desk.stack.volume().set_quota(id, 0, limits.bytes.value_or(now.bytes_max),
                                                       limits.inodes.value_or(now.objects_max)));
    const DatasetInfo* after = desk.stack.volume().find_dataset(id);
    if (after == nullptr) co_return fail(ErrorKind::not_found, format("'{}' was removed", name));
    const auto set = after->trees.find(0);
    answer = as_json(name, "", set == after->trees.end() ? QuotaState{} : set->second);
  }
  if (limits.given()) CO_TRY_OK(co_await desk.stack.volume().flush());
  co_return answer;
}

}  // namespace cumulus
