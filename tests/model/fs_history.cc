#include "tests/model/fs_history.h"

#include <algorithm>

#include "fs/modes.h"
#include "fs/records.h"
#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/io/sync.h"
#include "tests/model/fs_storm.h"

namespace cumulus {
namespace {

// SEMANTICS.md: what a power cut may take, and time for the disk to do its work.
constexpr Duration kPowerCutMay = std::chrono::milliseconds(1500);

CrashHistoryPlan plan(bool tell) {
  CrashHistoryPlan plan;
  plan.lives = 30;
  plan.first_groups = 3;
  plan.actions_least = 10;
  plan.actions_most = 150;
  plan.more_actions = 400;
  plan.one_opening_killed_of = 4;
  plan.opening_steps = 3'000;
  plan.names_of_own_counts = {"operations",           "refused",
                              "unfinished call kept", "unfinished call lost",
                              "calls lost",           "durable at once",
                              "orphans of a crash",   "snapshots compared",
                              "rolled back",          "calls of many at once"};
  plan.tell = tell;
  return plan;
}

}  // namespace

FsHistory::FsHistory(std::uint64_t seed, FsCanary canary, bool tell)
    : CrashHistory(seed, plan(tell)), canary_(canary) {
  if (smallest_groups_) write_most_ = 2'000;
}

// What is older than the moment that may be lost has to be there.
void FsHistory::may_be_lost() {
  const auto last_before = [this](Duration moment) {
    std::size_t at = floor_;
    while (at + 1 < reached_.size() && reached_[at + 1] <= world_->now() - moment) ++at;
    return at;
  };
  if (!died_) {
    kill_floor_ = last_before(kKillMay);
    floor_ = last_before(kPowerCutMay);
  }
  if (life_.death != Death::kill) kill_floor_ = floor_;
}

void FsHistory::create() {
  start_machine();
  DatasetOptions kind;
  kind.type = DatasetType::file_system;
  kind.chunk_log2 = static_cast<std::uint8_t>(random_.between(16, 18));
  kind.cell_log2 = static_cast<std::uint8_t>(random_.between(10, 14));
  const auto body = [](FsHistory& self, DatasetOptions options) -> Task<Status> {
    CO_TRY_OK(co_await self.create_volume());
    Volume& volume = *self.machine_->volume;
    CO_TRY(self.dataset_, co_await volume.create_dataset("main", options));
    CO_TRY_OK(co_await PosixFileSystem::make_empty(*self.machine_->process, volume, self.dataset_, 0, 0));
    CO_TRY_OK(co_await volume.flush());
    const FileSystemOptions mounted;
    co_return co_await self.mount(mounted);
  };
  run_status(body(*this, kind), "create");
  states_.emplace_back();
  reached_.push_back(world_->now());
  real_[FsModel::kRoot] = kRootNode;
}

void FsHistory::act() {
  const std::uint64_t what = below(100);
  if (what < 70) {
    operate();
  } else if (what < 75) {
    fsync();
  } else if (what < 79) {
    open_some();
  } else if (what < 84) {
    release_some();
  } else if (what < 89) {
    read_some();
  } else if (what < 92) {
    seek_some();
  } else if (what < 94) {
    compare_all();
  } else if (what < 98) {
    sleep(std::chrono::milliseconds(below(2'500)));
  } else if (random_.once_in(2)) {
    if (run_status(machine_->volume->flush(Durability::remote, {}), "sync")) all_is_durable();
  } else {
    run_status(machine_->volume->drop_cache(), "drop_cache");
  }
}

Task<Status> FsHistory::mount(FileSystemOptions options) {
  Runtime& runtime = *machine_->process;
  CO_TRY(mounted(), co_await PosixFileSystem::open(runtime, *machine_->volume, dataset_, "", options));
  co_return Status();
}

Task<Status> FsHistory::attach() {
  FileSystemOptions options;
  options.access_times = static_cast<AccessTimes>(below(3));
  options.synchronous = synchronous_ = random_.once_in(6);
  co_return co_await mount(options);
}

Task<Status> FsHistory::detach() {
  const FsStatus closed = co_await mounted()->close();
  if (!closed) co_return fail(ErrorKind::io, closed.error().message);
  mounted().reset();
  co_return Status();
}

FsWalk FsHistory::walk_all() {
  const auto found = std::make_shared<FsWalk>();
  const auto body = [](FsHistory& self, std::shared_ptr<FsWalk> into) -> Task<void> {
    *into = co_await walk(*self.mounted(), 1 + self.below(40));
  };
  if (run(body(*this, found), "walk") && !found->trouble.empty()) fail_story("a walk: " + found->trouble);
  return *found;
}

void FsHistory::compare() {
  const FsWalk found = walk_all();
  if (!over()) settle_on(found);
  if (!over()) compare_snapshots();
  if (!over()) check_records();
}

// The newest state that fits.
void FsHistory::settle_on(const FsWalk& found) {
  const std::size_t kept = states_.size();
  if (in_flight_) states_.push_back(std::move(*in_flight_));
  in_flight_.reset();
  std::set<std::string> snapshots;
  for (const SnapshotInfo& one : machine_->volume->find_dataset(dataset_)->snapshots)
    snapshots.insert(one.name);
  std::string first_difference;
  const std::size_t floor = std::max(floor_, kill_floor_);
  for (std::size_t at = states_.size(); at-- > floor;) {
    std::string differs = difference(FsModel::picture(states_[at].nodes()), found.picture);
    for (const auto& [name, nodes] : states_[at].snapshots())
      if (differs.empty() && !snapshots.contains(name)) differs = "snapshot " + name + " is missing";
    if (differs.empty() && snapshots.size() != states_[at].snapshots().size())
      differs = "there is a snapshot that should not be there";
    if (!differs.empty()) {
      if (first_difference.empty()) first_difference = differs;
      continue;
    }
    if (states_.size() > kept) count(at == kept ? FsCount::in_flight_kept : FsCount::in_flight_lost);
    if (at + 1 < kept) count(FsCount::operations_lost, kept - 1 - at);
    tell(format("alive again: {} of {} calls, {} had to be there", at, kept - 1, floor));
    return adopt(at, found);
  }
  fail_story(format(
      "what is left is at no point of the history from call {} to {}; from the last one it differs in {}",
      floor_, states_.size() - 1, first_difference));
}

void FsHistory::adopt(std::size_t state, const FsWalk& found) {
  FsModel chosen = states_[state];
  for (const auto& [id, node] : chosen.nodes())
    if (node->nlink == 0) count(FsCount::orphans_swept);
  chosen.drop_nameless();
  real_.clear();
  for (const auto& [path, id] : FsModel::paths(chosen.nodes())) real_[id] = found.nodes.at(path);
  states_.clear();
  states_.push_back(std::move(chosen));
  reached_ = {world_->now()};
  floor_ = kill_floor_ = 0;
  opened_.clear();
}

void FsHistory::compare_snapshots() {
  const auto body = [](FsHistory& self, std::string name, std::shared_ptr<FsWalk> into) -> Task<void> {
    Runtime& runtime = *self.machine_->process;
    Volume& volume = *self.machine_->volume;
    const FileSystemOptions mounted;
    auto files = co_await PosixFileSystem::open(runtime, volume, self.dataset_, name, mounted);
    if (!files) co_return self.fail_story("mount snapshot " + name + ": " + files.error().message());
    *into = co_await walk(**files, 1000);
    static_cast<void>(co_await (*files)->close());
  };
  for (const auto& [name, nodes] : now().snapshots()) {
    const auto found = std::make_shared<FsWalk>();
    if (!run(body(*this, name, found), "walk through a snapshot")) return;
    const std::string differs =
        found->trouble.empty() ? difference(FsModel::picture(nodes), found->picture) : found->trouble;
    if (!differs.empty()) return fail_story("snapshot " + name + ": " + differs);
    count(FsCount::snapshots_compared);
  }
}

// With the file system closed, so that nothing is on its way: sweeping orphans is part of closing.
void FsHistory::check_records(const std::string& snapshot) {
  if (canary_ != FsCanary::none) run_status(plant_canary(), "plant");
  const auto body = [](FsHistory& self, std::string name, std::shared_ptr<FsCheck> into) -> Task<Status> {
    CO_TRY_OK(co_await self.detach());
    *into = co_await check_file_system(*self.machine_->volume, self.dataset_, name);
    FileSystemOptions options;
    options.synchronous = self.synchronous_;
    co_return co_await self.mount(options);
  };
  const auto found = std::make_shared<FsCheck>();
  if (!run_status(body(*this, snapshot, found), "check")) return;
  if (found->orphans != 0 && snapshot.empty())
    found->problems.push_back(format("{} orphans were not swept", found->orphans));
  std::string all;
  for (const std::string& problem : found->problems) all += problem + "; ";
  if (!all.empty()) fail_story("the records " + snapshot + " contradict each other: " + all);
}

// Nobody knows what is left then, but it fits together, whether they all came to their end or the power was
// cut; and so does a snapshot that was made meanwhile.
void FsHistory::end() {
  const auto body = [](FsHistory& self, std::shared_ptr<FsStorm> storm) -> Task<void> {
    Runtime& runtime = *self.machine_->process;
    TaskGroup both(runtime);
    both.spawn(storm->blow(6, 60));
    co_await runtime.sleep_for(std::chrono::microseconds(self.below(20'000)));
    std::vector<Volume::SnapshotTarget> targets{{self.dataset_, "storm"}};
    const Status made = co_await self.machine_->volume->create_snapshots(std::move(targets));
    co_await both.join();
    if (!made) self.fail_story("a snapshot in a storm: " + made.error().message());
  };
  const auto storm = std::make_shared<FsStorm>(*mounted(), *machine_->process);
  storm->directories = storm->nodes = {kRootNode};
  for (const auto& [id, node] : now().nodes()) {
    if (is_directory(node->mode)) storm->directories.push_back(real(id));
    if (is_file(node->mode)) storm->nodes.push_back(real(id));
  }
  if (random_.once_in(2)) life_.steps = 1 + below(6'000);
  life_.death = Death::power;
  tell("a storm");
  const bool ended = run(body(*this, storm), "storm");
  if (!storm->failure.empty()) fail_story(storm->failure);
  count(FsCount::calls_of_storms, storm->calls);
  life_ = {};
  if (ended && !over()) check_records();
  if (over()) return;
  life_.death = Death::power;
  die();
  if (!open_somehow()) return;
  static_cast<void>(walk_all());
  if (!over()) check_records();
  if (!over()) check_records("storm");
}

// A record that nobody would write.
Task<Status> FsHistory::plant_canary() {
  Volume& volume = *machine_->volume;
  Transaction wrong;
  if (canary_ == FsCanary::link_uncounted) {
    CO_TRY(const auto stat, co_await volume.stat(volume.find_dataset(dataset_)->head, 1));
    Inode root = Inode::decode(stat->header).value();
    ++root.nlink;
    const ObjectRef object{dataset_, 1};
    wrong.set_header(object, root.encode());
  } else if (canary_ == FsCanary::orphan_forgotten) {
    Inode file;
    file.mode = kFileKind | 0644;
    const ObjectRef object{dataset_, volume.allocate_object(dataset_).value()};
    wrong.create(object, file.encode());
  } else {
    co_return Status();
  }
  CO_TRY_OK(co_await volume.commit(std::move(wrong)));
  co_return Status();
}

}  // namespace cumulus
