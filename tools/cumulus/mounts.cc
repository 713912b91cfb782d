#include "tools/cumulus/mounts.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <unistd.h>

#include "fs/fuse/mount_point.h"
#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/find_snapshot.h"

namespace cumulus {
namespace {

// How long those who still use a mount are served after it was detached, when the daemon has to end.
constexpr Duration kFarewell = std::chrono::seconds(10);
constexpr Duration kDetachedMax = std::chrono::seconds(10);

// "2026-11-20[THH:MM[:SS]][Z]", UTC, as nanoseconds; the last instant that the text covers.
Result<WallTime> parse_time(const std::string& text) {
  std::tm time{};
  int used = 0;
  int seconds = -1;
  const int found =
      std::sscanf(text.c_str(), "%4d-%2d-%2d%n%*[T ]%2d:%2d%n:%2d%n", &time.tm_year, &time.tm_mon,
                  &time.tm_mday, &used, &time.tm_hour, &time.tm_min, &used, &seconds, &used);
  const std::string rest = text.substr(std::min(text.size(), static_cast<std::size_t>(used)));
  if (found < 3 || found == 4 || !(rest.empty() || rest == "Z"))
    return fail(ErrorKind::invalid,
                format("'{}' is not a time: give YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS, in UTC", text));
  time.tm_year -= 1900;
  time.tm_mon -= 1;
  std::int64_t covers = 1;
  if (found == 3) covers = 24 * 3600;
  if (found == 5) covers = 60;
  if (seconds >= 0) time.tm_sec = seconds;
  const std::int64_t begins = ::timegm(&time);
  if (begins < 0) return fail(ErrorKind::invalid, format("'{}' is before 1970", text));
  return static_cast<WallTime>(begins + covers) * 1'000'000'000 - 1;
}

// The snapshot that is ordered, or nullptr for the head.
Result<const SnapshotInfo*> snapshot_of(const DatasetInfo& info, const MountOptions& options) {
  if (options.snapshot.empty() && options.at.empty()) return nullptr;
  const SnapshotInfo* found = nullptr;
  if (!options.at.empty()) {
    TRY(const WallTime at, parse_time(options.at));
    for (const SnapshotInfo& one : info.snapshots) {
      if (one.created_at <= at) found = &one;
    }
    if (found == nullptr)
      return fail(ErrorKind::not_found,
                  format("'{}' has no snapshot that is not after {}", info.name, options.at));
    return found;
  }
  found = find_snapshot(info, options.snapshot);
  if (found == nullptr)
    return fail(ErrorKind::not_found, format("'{}' has no snapshot '{}'", info.name, options.snapshot));
  return found;
}

}  // namespace

Result<MountOrder> MountOrder::from_json(const Json& request) {
  MountOrder order;
  order.file_system = request.value("file_system", "");
  order.directory = request.value("directory", "");
  if (order.file_system.empty() || !order.directory.starts_with('/'))
    return fail(ErrorKind::invalid, "a mount needs a file system and an absolute mount point");
  TRY(order.options, MountOptions::parse(request.value("options", "")));
  return order;
}

class Mounts::Mount final : public Resident {
 public:
  Mount(Mounts& mounts, Volume& store, MountOrder order, DatasetId dataset)
      : mounts_(mounts), store_(store), order_(std::move(order)), dataset_(dataset) {}

  std::string kind() const override { return "mount"; }
  Json describe() const override {
    Json about = {{"kind", "mount"},
                  {"where", order_.directory},
                  {"source", mounts_.volume_ + "/" + order_.file_system},
                  {"options", order_.options.to_words()},
                  {"read_only", order_.options.read_only},
                  {"daemon_pid", ::getpid()}};
    if (session_)
      about["requests"] = {{"all", session_->requests()},
                           {"lookup", session_->requests_of(fuse_kernel::kLookup)},
                           {"getattr", session_->requests_of(fuse_kernel::kGetattr)},
                           {"read", session_->requests_of(fuse_kernel::kRead)},
                           {"write", session_->requests_of(fuse_kernel::kWrite)}};
    return about;
  }
  bool holds(DatasetId dataset) const override { return dataset == dataset_ && !of_snapshot(); }
  Task<Status> write_out() override {
    if (order_.options.read_only || !session_ || ending_) co_return Status();
    co_return co_await session_->write_out();
  }
  Task<void> stop() override;

  bool of_snapshot() const { return !order_.options.snapshot.empty() || !order_.options.at.empty(); }
  const MountOrder& order() const { return order_; }
  DatasetId dataset() const { return dataset_; }
  Volume& store() { return store_; }
  // nullptr when it ends, or is read-only.
  std::shared_ptr<PosixFileSystem> files_for_writing() const {
    return ending_ || order_.options.read_only || of_snapshot() ? nullptr : files_;
  }
  FuseSession& session() { return *session_; }
  Task<Status> open(int device);
  // Serves to the end, then closes the file system and makes what it wrote Local.
  Task<void> serve();

 private:
  Mounts& mounts_;
  Volume& store_;
  MountOrder order_;
  DatasetId dataset_;
  std::shared_ptr<PosixFileSystem> files_;
  std::unique_ptr<FuseSession> session_;
  bool ending_ = false;
  bool ended_ = false;
};

Task<void> Mounts::Mount::stop() {
  Mounts& mounts = mounts_;
  const std::string directory = order_.directory;
  const auto self = mounts.find(directory);  // lives on until this is done
  Status unmounted = co_await mounts.lane_.run([&directory] { return unmount_fuse(directory, false); });
  if (!unmounted && unmounted.error().kind() == ErrorKind::exists) {
    log_warn("{}: it is in use, so it is detached", directory);
    unmounted = co_await mounts.lane_.run([&directory] { return unmount_fuse(directory, true); });
  }
  if (!unmounted) log_warn("{}", unmounted.error().message());
  const TimePoint until = mounts.runtime_.now() + kFarewell;
  while (!ended_ && mounts.runtime_.now() < until) co_await mounts.changed_.wait_until(until);
  if (!ended_) {
    log_warn("{}: programs still hold files of it; they get errors from now on", directory);
    session_->abort();
  }
  while (!ended_) co_await mounts.changed_.wait();
}

Mounts::Mounts(Runtime& runtime, Residents& residents, Home home, std::string volume)
    : runtime_(runtime),
      residents_(residents),
      home_(std::move(home)),
      volume_(std::move(volume)),
      lane_(runtime),
      changed_(runtime),
      tasks_(runtime) {}

Mounts::~Mounts() { CHECK(mounts_.empty()); }

std::shared_ptr<Mounts::Mount> Mounts::find(const std::string& directory) const {
  const auto found = std::find_if(mounts_.begin(), mounts_.end(),
                                  [&](const auto& one) { return one->order().directory == directory; });
  return found == mounts_.end() ? nullptr : *found;
}

Task<Status> Mounts::Mount::open(int device) {
  auto channel = make_device_channel(mounts_.runtime_, device);
  CO_TRY(const SnapshotInfo* snapshot, snapshot_of(*store_.find_dataset(dataset_), order_.options));
  FileSystemOptions options;
  options.read_only = order_.options.read_only;
  options.access_times = order_.options.access_times;
  options.list_snapshots = order_.options.list_snapshots;
  options.synchronous = order_.options.synchronous;
  options.kernel_keeps_times = order_.options.writeback;
  std::string name = snapshot == nullptr ? "" : snapshot->name;
  CO_TRY(auto files,
         co_await PosixFileSystem::open(mounts_.runtime_, store_, dataset_, std::move(name), options));
  files_ = std::move(files);
  FuseSession::Parts parts{mounts_.runtime_, mounts_.lane_, *files_};
  session_ = std::make_unique<FuseSession>(parts, std::move(channel), order_.options);
  co_return Status();
}

Task<void> Mounts::Mount::serve() {
  co_await session_->serve();
  ending_ = true;
  session_.reset();
  while (files_.use_count() > 1) co_await mounts_.wait_a_while();
  const FsStatus closed = co_await files_->close();
  if (!closed) log_error("closing the file system of {}: {}", order_.directory, closed.error().message);
  files_.reset();
  if (!order_.options.read_only) {
    const Status flushed = co_await store_.flush(Durability::local);
    if (!flushed) log_error("{} was unmounted: {}", order_.directory, flushed.error().message());
  }
  ended_ = true;
}

Task<Status> Mounts::check(Volume& store, MountOrder order) {
  const DatasetInfo* info = store.find_dataset(order.file_system);
  if (info == nullptr || info->type != DatasetType::file_system)
    co_return fail(ErrorKind::not_found,
                   format("there is no file system '{}' in volume '{}': 'cumulus fs create {}/{}' makes it",
                          order.file_system, volume_, volume_, order.file_system));
  CO_TRY(const SnapshotInfo* snapshot, snapshot_of(*info, order.options));
  static_cast<void>(snapshot);
  const TimePoint patience = runtime_.now() + kDetachedMax;
  for (;;) {
    const auto there = in_the_way_of(order, info->id);
    if (!there) co_return Status();
    const std::string& directory = there->order().directory;
    const auto entry = mount_at(directory);
    const bool detached = entry && !*entry;
    // It ends when the last program leaves it, which may be in a moment.
    if (detached && runtime_.now() < patience) {
      co_await wait_a_while();
      continue;
    }
    const std::string source = there->describe().value("source", "");
    if (detached)
      co_return fail(ErrorKind::exists, format("{} was detached from {}, and programs use it still: end them",
                                               source, directory));
    if (directory == order.directory)
      co_return fail(ErrorKind::exists, format("{} is mounted on {} already", source, directory));
    co_return fail(
        ErrorKind::exists,
        format("{} is mounted on {} already: a file system is mounted once; 'mount --bind {} DIR' shows it "
               "elsewhere too",
               source, directory, directory));
  }
}

// A mount at the same place, or a second one that writes to the same file system.
std::shared_ptr<Mounts::Mount> Mounts::in_the_way_of(const MountOrder& order, DatasetId dataset) const {
  if (auto there = find(order.directory)) return there;
  if (!order.options.snapshot.empty() || !order.options.at.empty() || order.options.read_only) return nullptr;
  for (const auto& one : mounts_)
    if (one->dataset() == dataset && !one->of_snapshot()) return one;
  return nullptr;
}

Task<Status> Mounts::serve(Volume& store, MountOrder order, int device) {
  Status allowed = co_await check(store, order);
  if (closing_) allowed = fail(ErrorKind::closed, "the volume's daemon is ending");
  if (!allowed) {
    ::close(device);
    co_return allowed;
  }
  const auto mount = std::make_shared<Mount>(*this, store, order, store.find_dataset(order.file_system)->id);
  mounts_.push_back(mount);  // from here on a second one is refused
  residents_.add(*mount);
  const Status opened = co_await mount->open(device);
  if (!opened) {
    forget(*mount);
    co_return opened;
  }
  tasks_.spawn(run(mount));
  const bool ready = co_await mount->session().ready();
  if (!ready)
    co_return fail(ErrorKind::closed,
                   format("{}: the kernel let the mount go before it was served", order.directory));
  remember();
  log_info("{}/{} is mounted on {}", volume_, order.file_system, order.directory);
  co_return Status();
}

Task<void> Mounts::run(std::shared_ptr<Mount> mount) {
  co_await mount->serve();
  log_info("{} is unmounted", mount->order().directory);
  forget(*mount);
  remember();
}

std::shared_ptr<PosixFileSystem> Mounts::files_of(DatasetId dataset) const {
  for (const auto& one : mounts_) {
    if (one->dataset() != dataset) continue;
    if (auto files = one->files_for_writing()) return files;
  }
  return nullptr;
}

void Mounts::forget(Mount& mount) {
  residents_.remove(mount);
  std::erase_if(mounts_, [&](const auto& one) { return one.get() == &mount; });
  changed_.notify_all();
}

void Mounts::remember() {
  Json list = Json::array();
  for (const auto& one : mounts_) {
    list.push_back({{"file_system", one->order().file_system},
                    {"directory", one->order().directory},
                    {"options", one->order().options.to_words()}});
  }
  const std::string text = list.dump(2, ' ', false, Json::error_handler_t::replace);
  const Status written = Home::write_file(home_.volume(volume_) + "/mounts.json", view_of(text));
  if (!written) log_warn("remembering what is mounted: {}", written.error().message());
}

Task<Status> Mounts::flush(Volume& store, std::string directory, Durability level, Progress progress) {
  const auto mount = find(directory);
  if (!mount)
    co_return fail(ErrorKind::not_found, "this volume's daemon has nothing mounted on " + directory);
  CO_TRY_OK(co_await mount->write_out());
  co_return co_await store.flush(level, std::move(progress));
}

Task<void> Mounts::wait_a_while() {
  static_cast<void>(co_await changed_.wait_until(runtime_.now() + std::chrono::milliseconds(200)));
}

Task<void> Mounts::close() {
  closing_ = true;
  while (!mounts_.empty()) co_await mounts_.back()->stop();
  co_await tasks_.join();
}

}  // namespace cumulus
