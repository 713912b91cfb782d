#include "tests/fakes/sim_disk.h"

#include <algorithm>
#include <utility>

#include "objectstore/base/check.h"

namespace cumulus {
namespace {

std::string parent_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

ByteView sector_of(const Bytes& bytes, std::uint64_t at, std::uint64_t sector) {
  if (at >= bytes.size()) return {};
  return ByteView(bytes).subspan(at, std::min<std::uint64_t>(sector, bytes.size() - at));
}

}  // namespace

std::string_view to_string(DiskFault fault) {
  constexpr std::array<std::string_view, static_cast<std::size_t>(DiskFault::count)> kNames = {
      "disk read error",    "disk write error",  "disk sync error",      "disk full",
      "disk rot",           "killed writing",    "unsynced sector lost", "unsynced sector kept",
      "unsynced name lost", "unsynced size lost"};
  return kNames[static_cast<std::size_t>(fault)];
}

// --- the disk ---

void SimDisk::put(Node& node, std::uint64_t offset, ByteView data) {
  if (data.empty()) return;
  node.changed = ++changes_;
  if (node.written.size() < offset + data.size()) node.written.resize(offset + data.size());
  std::ranges::copy(data, node.written.begin() + static_cast<std::ptrdiff_t>(offset));
  for (std::uint64_t at = offset / kSector * kSector; at < offset + data.size(); at += kSector)
    node.unsynced.insert(at);
}

void SimDisk::put_some(Node& node, std::uint64_t offset, ByteView data) {
  const std::uint64_t end = offset + data.size();
  for (std::uint64_t at = offset; at < end;) {
    const std::uint64_t next = std::min(end, at / kSector * kSector + kSector);
    if (random_.once_in(2)) put(node, at, data.subspan(at - offset, next - at));
    at = next;
  }
}

Status SimDisk::sync(Node& node, const std::set<std::uint64_t>& sectors, const std::string& path) {
  if (ignore_syncs_) return {};
  const bool failed = happens(weather_.sync_error);
  if (node.durable.size() != node.written.size() && !failed) node.durable.resize(node.written.size());
  for (const std::uint64_t at : sectors) {
    node.unsynced.erase(at);
    const ByteView bytes = sector_of(node.written, at, kSector);
    if (bytes.empty() || (failed && random_.once_in(2))) continue;
    if (node.durable.size() < at + bytes.size()) node.durable.resize(at + bytes.size());
    std::ranges::copy(bytes, node.durable.begin() + static_cast<std::ptrdiff_t>(at));
  }
  if (!failed) return {};
  count(DiskFault::sync_error);
  return fail(ErrorKind::io, "datasync " + path + ": simulated I/O error");
}

void SimDisk::apply(Names& names, const NameChange& change) {
  for (const std::string& path : change.removed) names.erase(path);
  for (const auto& [path, node] : change.added) names[path] = node;
}

void SimDisk::change_names(NameChange change) {
  apply(names_, change);
  pending_.push_back(std::move(change));
}

void SimDisk::process_died() {
  for (const InFlight& write : std::exchange(in_flight_, {})) {
    count(DiskFault::killed_writing);
    put_some(*write.node, write.offset, write.data);
  }
}

SimDisk::Image SimDisk::image_after_power_cut() {
  Names names = durable_names_;
  for (const NameChange& change : pending_) {
    if (random_.once_in(2))
      apply(names, change);
    else
      count(DiskFault::name_lost);
  }
  Image image;
  for (const auto& [path, node] : names) {
    Bytes bytes = node->durable;
    if (node->durable.size() != node->written.size()) {
      if (random_.once_in(2))
        bytes.resize(node->written.size());
      else
        count(DiskFault::size_lost);
    }
    for (const std::uint64_t at : node->unsynced) {
      const ByteView sector = sector_of(node->written, at, kSector);
      if (sector.empty()) continue;
      if (random_.once_in(2)) {
        count(DiskFault::sector_lost);
        continue;
      }
      count(DiskFault::sector_kept);
      if (bytes.size() < at + sector.size()) bytes.resize(at + sector.size());
      std::ranges::copy(sector, bytes.begin() + static_cast<std::ptrdiff_t>(at));
    }
    image[path] = std::move(bytes);
  }
  return image;
}

void SimDisk::restore(const Image& image) {
  names_.clear();
  pending_.clear();
  in_flight_.clear();
  for (const auto& [path, bytes] : image)
    names_[path] = std::make_shared<Node>(Node{bytes, bytes, {}, ++changes_});
  durable_names_ = names_;
}

void SimDisk::power_cut() {
  process_died();
  restore(image_after_power_cut());
}

bool SimDisk::rot(std::string_view part) {
  std::vector<Node*> candidates;
  for (const auto& [path, node] : names_)
    if (path.find(part) != std::string::npos && !node->written.empty()) candidates.push_back(node.get());
  if (candidates.empty()) return false;
  Node& node = *candidates[random_.below(candidates.size())];
  const std::uint64_t at = random_.below(node.written.size());
  const auto flip = static_cast<std::uint8_t>(1 + random_.below(255));
  node.written[at] ^= flip;
  if (at < node.durable.size()) node.durable[at] ^= flip;
  node.changed = ++changes_;
  count(DiskFault::rot);
  return true;
}

bool SimDisk::lose(const std::string& path) {
  if (names_.erase(path) == 0) return false;
  durable_names_.erase(path);
  for (NameChange& change : pending_) change.added.erase(path);
  return true;
}

std::map<std::string, ByteView> SimDisk::files_changed_after(std::uint64_t change) const {
  std::map<std::string, ByteView> files;
  for (const auto& [path, node] : names_)
    if (node->changed > change) files[path] = node->written;
  return files;
}

std::map<std::string, ByteView> SimDisk::durable_files() const {
  std::map<std::string, ByteView> files;
  for (const auto& [path, node] : durable_names_) files[path] = node->durable;
  return files;
}

const std::map<std::string, ByteView> SimDisk::files() const {
  std::map<std::string, ByteView> files;
  for (const auto& [path, node] : names_) files[path] = node->written;
  return files;
}

std::uint64_t SimDisk::used() const {
  std::uint64_t bytes = 0;
  for (const auto& [path, node] : names_) bytes += node->written.size();
  return bytes;
}

// --- one process's port to it ---

class SimFileSystem::OpenFile final : public File {
 public:
  OpenFile(SimFileSystem& files, SimDisk::NodePtr node, std::string path, OpenOptions options)
      : files_(files),
        disk_(files.disk_),
        node_(std::move(node)),
        path_(std::move(path)),
        options_(options) {}

  Task<Result<std::size_t>> read_at(std::uint64_t offset, MutableByteView into) override {
    check_aligned(offset, into.size());
    co_await files_.take_time();
    if (disk_.happens(disk_.weather_.read_error)) {
      disk_.count(DiskFault::read_error);
      co_return fail(ErrorKind::io, "read " + path_ + ": simulated I/O error");
    }
    const ByteView bytes = sector_of(node_->written, offset, into.size());
    std::ranges::copy(bytes, into.begin());
    co_return bytes.size();
  }

  Task<Status> write_at(std::uint64_t offset, ByteView data) override {
    check_aligned(offset, data.size());
    CO_TRY_OK(writable());
    const auto entry = disk_.in_flight_.insert(disk_.in_flight_.end(), {node_, offset, data});
    co_await files_.take_time();
    disk_.in_flight_.erase(entry);
    if (disk_.happens(disk_.weather_.write_error)) {
      disk_.count(DiskFault::write_error);
      disk_.put_some(*node_, offset, data);
      co_return fail(ErrorKind::io, "write " + path_ + ": simulated I/O error");
    }
    CO_TRY_OK(make_room(offset + data.size()));
    disk_.put(*node_, offset, data);
    co_return Status();
  }

  Task<Status> datasync() override {
    // Only what was written before the call is promised.
    const std::set<std::uint64_t> sectors = node_->unsynced;
    co_await files_.take_time();
    co_return disk_.sync(*node_, sectors, path_);
  }
  Status datasync_blocking() override {
    const std::set<std::uint64_t> sectors = node_->unsynced;
    return disk_.sync(*node_, sectors, path_);
  }

  Task<Status> allocate(std::uint64_t length) override {
    CO_TRY_OK(writable());
    co_await files_.take_time();
    CO_TRY_OK(make_room(length));
    // What was there stays: a recycled file keeps its stale bytes.
    const std::uint64_t old_size = node_->written.size();
    if (old_size < length) disk_.put(*node_, old_size, Bytes(length - old_size));
    co_return Status();
  }
  Task<Status> truncate(std::uint64_t length) override {
    CO_TRY_OK(writable());
    co_await files_.take_time();
    CO_TRY_OK(make_room(length));
    // What is cut off and perhaps grown again as zeros must not come back from the disk after a sync.
    const std::uint64_t end = std::max(node_->written.size(), node_->durable.size());
    for (std::uint64_t at = length / SimDisk::kSector * SimDisk::kSector; at < end; at += SimDisk::kSector)
      node_->unsynced.insert(at);
    node_->written.resize(length);
    co_return Status();
  }
  Task<Status> punch_hole(std::uint64_t offset, std::uint64_t length) override {
    CO_TRY_OK(writable());
    co_await files_.take_time();
    if (offset >= node_->written.size()) co_return Status();
    disk_.put(*node_, offset, Bytes(std::min<std::uint64_t>(length, node_->written.size() - offset)));
    co_return Status();
  }
  Result<std::uint64_t> size() override { return node_->written.size(); }

 private:
  void check_aligned(std::uint64_t offset, std::uint64_t length) const {
    CHECK(!options_.direct || (offset % SimDisk::kSector == 0 && length % SimDisk::kSector == 0));
  }
  Status writable() const {
    if (options_.write) return {};
    return fail(ErrorKind::io, "change " + path_ + ": it was opened read-only");
  }
  Status make_room(std::uint64_t size) {
    if (size <= node_->written.size() || disk_.used() - node_->written.size() + size <= disk_.capacity_)
      return {};
    disk_.count(DiskFault::full);
    return fail(ErrorKind::no_space, "write " + path_ + ": no space left on the simulated disk");
  }

  SimFileSystem& files_;
  SimDisk& disk_;
  const SimDisk::NodePtr node_;
  const std::string path_;
  const OpenOptions options_;
};

Task<void> SimFileSystem::take_time() {
  const auto most = static_cast<std::uint64_t>(disk_.weather_.delay_max.count());
  co_await runtime_.sleep_for(Duration(static_cast<Duration::rep>(disk_.random_.below(most + 1))));
}

Result<std::unique_ptr<File>> SimFileSystem::open(const std::string& path, OpenOptions options) {
  const auto found = disk_.names_.find(path);
  if (found != disk_.names_.end()) {
    if (options.create && options.exclusive) return fail(ErrorKind::exists, path + " exists");
    return std::make_unique<OpenFile>(*this, found->second, path, options);
  }
  for (std::string above = parent_of(path); !above.empty(); above = parent_of(above))
    if (disk_.names_.contains(above))
      return fail(ErrorKind::io, "open " + path + ": " + above + " is not a directory");
  if (const auto below = disk_.names_.lower_bound(path + "/");
      below != disk_.names_.end() && below->first.starts_with(path + "/"))
    return fail(ErrorKind::io, "open " + path + ": it is a directory");
  if (!options.create) return fail(ErrorKind::not_found, path + " does not exist");
  auto node = std::make_shared<SimDisk::Node>();
  disk_.change_names({{parent_of(path)}, {}, {{path, node}}});
  return std::make_unique<OpenFile>(*this, std::move(node), path, options);
}

Status SimFileSystem::create_directories(const std::string& path) {
  for (std::string at = path; !at.empty(); at = parent_of(at))
    if (disk_.names_.contains(at))
      return fail(ErrorKind::io, "make directory " + path + ": " + at + " is not a directory");
  return {};
}

Status SimFileSystem::rename(const std::string& from, const std::string& to) {
  SimDisk::NameChange change{{parent_of(from), parent_of(to)}, {}, {}};
  for (const auto& [path, node] : disk_.names_) {
    if (path != from && !path.starts_with(from + "/")) continue;
    change.removed.push_back(path);
    change.added[to + path.substr(from.size())] = node;
  }
  if (change.removed.empty()) return fail(ErrorKind::not_found, from + " does not exist");
  disk_.change_names(std::move(change));
  return {};
}

Status SimFileSystem::remove(const std::string& path) {
  if (!disk_.names_.contains(path)) return fail(ErrorKind::not_found, path + " does not exist");
  disk_.change_names({{parent_of(path)}, {path}, {}});
  return {};
}

Result<bool> SimFileSystem::exists(const std::string& path) {
  const auto found = disk_.names_.lower_bound(path);
  return found != disk_.names_.end() && (found->first == path || found->first.starts_with(path + "/"));
}

Result<std::vector<std::string>> SimFileSystem::list(const std::string& directory) {
  std::set<std::string> names;
  for (const auto& [path, node] : disk_.names_) {
    if (!path.starts_with(directory + "/")) continue;
    const std::string rest = path.substr(directory.size() + 1);
    names.insert(rest.substr(0, rest.find('/')));
  }
  return std::vector<std::string>(names.begin(), names.end());
}

Task<Status> SimFileSystem::sync_directory(const std::string& path) {
  co_await take_time();
  if (disk_.ignore_syncs_) co_return Status();
  for (auto change = disk_.pending_.begin(); change != disk_.pending_.end();) {
    if (change->directories.contains(path)) {
      SimDisk::apply(disk_.durable_names_, *change);
      change = disk_.pending_.erase(change);
    } else {
      ++change;
    }
  }
  co_return Status();
}

Result<DiskSpace> SimFileSystem::space(const std::string&) {
  const std::uint64_t total = std::min<std::uint64_t>(disk_.capacity_, std::uint64_t{1} << 40);
  const std::uint64_t used = disk_.used();
  return DiskSpace{total, total > used ? total - used : 0};
}

}  // namespace cumulus
