#include "tests/fakes/volatile_disk.h"

#include <algorithm>

#include "objectstore/base/check.h"

namespace cumulus {
namespace {
std::unexpected<Error> io_error(const char* what) { return fail(ErrorKind::io, what); }
}  // namespace

class VolatileDisk::OpenFile final : public File {
 public:
  OpenFile(VolatileDisk& disk, std::shared_ptr<Node> node, bool direct)
      : disk_(disk), node_(std::move(node)), direct_(direct) {}

  Task<Result<std::size_t>> read_at(std::uint64_t offset, MutableByteView into) override {
    check_aligned(offset, into.size());
    CO_TRY_OK(co_await disk_.begin_operation());
    if (disk_.reads_fail_) co_return io_error("simulated read error");
    if (offset >= node_->written.size()) co_return std::size_t{0};
    const std::size_t length = std::min<std::uint64_t>(into.size(), node_->written.size() - offset);
    std::copy_n(node_->written.begin() + static_cast<std::ptrdiff_t>(offset), length, into.begin());
    co_return length;
  }
  Task<Status> write_at(std::uint64_t offset, ByteView data) override {
    check_aligned(offset, data.size());
    const Status begun = co_await disk_.begin_operation();
    const bool failed = begun && disk_.chance(disk_.write_failures_);
    // A write that fails, or that the death of the disk interrupts, leaves some of its sectors.
    const std::size_t some = disk_.random_() % (data.size() + 1) / kSector * kSector;
    const std::size_t length = begun && !failed ? data.size() : some;
    if (begun || !interrupted_) put(offset, data.first(length));
    interrupted_ = interrupted_ || !begun;
    if (failed) ++disk_.failures_;
    if (failed) co_return io_error("simulated write error");
    co_return begun;
  }
  Task<Status> datasync() override {
    CO_TRY_OK(co_await disk_.begin_operation());
    co_return disk_.sync_node(*node_);
  }
  Status datasync_blocking() override {
    if (disk_.dead_) return io_error("the disk is gone");
    return disk_.sync_node(*node_);
  }
  Task<Status> allocate(std::uint64_t length) override {
    CO_TRY_OK(co_await disk_.begin_operation());
    if (disk_.used() + length > disk_.capacity_) co_return fail(ErrorKind::no_space, "simulated disk full");
    node_->written.resize(length);
    co_return Status();
  }
  Task<Status> truncate(std::uint64_t length) override {
    CO_TRY_OK(co_await disk_.begin_operation());
    node_->written.resize(length);
    co_return Status();
  }
  Task<Status> punch_hole(std::uint64_t, std::uint64_t) override { co_return Status(); }
  Result<std::uint64_t> size() override { return node_->written.size(); }

 private:
  void check_aligned(std::uint64_t offset, std::uint64_t length) const {
    CHECK(!direct_ || (offset % kSector == 0 && length % kSector == 0));
  }
  void put(std::uint64_t offset, ByteView data) {
    if (node_->written.size() < offset + data.size()) node_->written.resize(offset + data.size());
    std::ranges::copy(data, node_->written.begin() + static_cast<std::ptrdiff_t>(offset));
    for (std::uint64_t at = offset / kSector * kSector; at < offset + data.size(); at += kSector)
      node_->unsynced[at] = true;
  }

  VolatileDisk& disk_;
  const std::shared_ptr<Node> node_;
  const bool direct_;
  bool interrupted_ = false;
};

Task<Status> VolatileDisk::begin_operation() {
  if (dead_) co_return io_error("the disk is gone");
  ++operations_;
  const auto delay = std::chrono::microseconds(random_() % 4);
  if (delay.count() == 0)
    co_await runtime_.sleep_until(TimePoint{});
  else
    co_await runtime_.sleep_for(delay * 20);
  if (dead_) co_return io_error("the disk is gone");
  if (operations_left_ != ~std::uint64_t{0} && operations_left_-- == 0) dead_ = true;
  if (dead_) co_return io_error("the disk is gone");
  co_return Status();
}

Status VolatileDisk::sync_node(Node& node) {
  if (ignore_syncs_) return {};
  node.durable.resize(node.written.size());
  if (chance(sync_failures_)) {
    // The pages are marked clean and their content is lost: some had reached the disk.
    for (const auto& [at, dirty] : node.unsynced)
      if (random_() % 2 == 0)
        std::copy_n(node.written.begin() + static_cast<std::ptrdiff_t>(at), kSector,
                    node.durable.begin() + static_cast<std::ptrdiff_t>(at));
    node.unsynced.clear();
    ++failures_;
    return io_error("simulated sync error");
  }
  for (const auto& [at, dirty] : node.unsynced) {
    const std::uint64_t length = std::min<std::uint64_t>(kSector, node.written.size() - at);
    std::copy_n(node.written.begin() + static_cast<std::ptrdiff_t>(at), length,
                node.durable.begin() + static_cast<std::ptrdiff_t>(at));
  }
  node.unsynced.clear();
  return {};
}

void VolatileDisk::revive(bool power_was_cut) {
  dead_ = false;
  operations_left_ = ~std::uint64_t{0};
  write_failures_ = sync_failures_ = 0;
  if (!power_was_cut) return;
  std::erase_if(nodes_, [&](const auto& entry) { return !entry.second->name_durable && random_() % 2 == 0; });
  for (auto& [path, node] : nodes_) {
    node->durable.resize(node->written.size());
    for (const auto& [at, dirty] : node->unsynced)
      if (random_() % 2 == 0)
        std::copy_n(node->written.begin() + static_cast<std::ptrdiff_t>(at),
                    std::min<std::uint64_t>(kSector, node->written.size() - at),
                    node->durable.begin() + static_cast<std::ptrdiff_t>(at));
    node->unsynced.clear();
    node->written = node->durable;
    node->name_durable = true;
  }
}

void VolatileDisk::rot(const std::string& path, std::uint64_t offset) {
  Node& node = *nodes_.at(path);
  CHECK(offset < node.written.size());
  node.written[offset] ^= 0x10;
  if (offset < node.durable.size()) node.durable[offset] ^= 0x10;
}

Bytes VolatileDisk::content(const std::string& path) const { return nodes_.at(path)->written; }

Result<std::unique_ptr<File>> VolatileDisk::open(const std::string& path, OpenOptions options) {
  if (dead_) return io_error("the disk is gone");
  auto& node = nodes_[path];
  if (node && options.exclusive) return fail(ErrorKind::exists, path + " exists");
  if (!node && !options.create) {
    nodes_.erase(path);
    return fail(ErrorKind::not_found, path + " does not exist");
  }
  if (!node) node = std::make_shared<Node>();
  return std::make_unique<OpenFile>(*this, node, options.direct);
}

Status VolatileDisk::rename(const std::string& from, const std::string& to) {
  if (dead_) return io_error("the disk is gone");
  const auto found = nodes_.find(from);
  if (found == nodes_.end()) return fail(ErrorKind::not_found, from + " does not exist");
  nodes_[to] = found->second;
  nodes_.erase(from);
  return {};
}

std::uint64_t VolatileDisk::used() const {
  std::uint64_t used = 0;
  for (const auto& [path, node] : nodes_) used += node->written.size();
  return used;
}

Result<DiskSpace> VolatileDisk::space(const std::string&) {
  return DiskSpace{capacity_, capacity_ - std::min(capacity_, used())};
}

Status VolatileDisk::remove(const std::string& path) {
  if (dead_) return io_error("the disk is gone");
  nodes_.erase(path);
  return {};
}

Result<std::vector<std::string>> VolatileDisk::list(const std::string& directory) {
  if (dead_) return io_error("the disk is gone");
  std::vector<std::string> names;
  for (const auto& [path, node] : nodes_)
    if (path.starts_with(directory + "/")) names.push_back(path.substr(directory.size() + 1));
  return names;
}

Task<Status> VolatileDisk::sync_directory(const std::string& directory) {
  CO_TRY_OK(co_await begin_operation());
  for (auto& [path, node] : nodes_)
    if (path.starts_with(directory + "/")) node->name_durable = true;
  co_return Status();
}

}  // namespace cumulus
