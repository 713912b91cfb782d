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

using namespace std::chrono_literals;

constexpr std::uint64_t kStepBudget = 3'000'000;
constexpr std::size_t kStoryMost = 50;
constexpr const char* kDirectory = "/home/volume";
// SEMANTICS.md: what a kill and a power cut may take, and time for the disk to do its work.
constexpr Duration kKillMay = 150ms;
constexpr Duration kPowerCutMay = 1500ms;

SecretKey master_key(std::uint64_t seed) {
  std::array<std::uint8_t, 32> bytes{};
  for (std::size_t i = 0; i < sizeof seed; ++i) bytes[i] = static_cast<std::uint8_t>(seed >> (8 * i));
  return SecretKey(bytes);
}

}  // namespace

FsHistory::FsHistory(std::uint64_t seed, FsHistoryOptions options)
    : options_(options),
      world_(std::make_unique<SimWorld>(seed)),
      random_(seed * 31 + 7),
      keys_(master_key(seed)),
      disk_(random_.u64()) {
  network_ = std::make_unique<SimNetwork>(world_->start_process("network"), 6, 1ull << 30);
  volume_options_.cache_bytes = random_.between(24, 48) << 16;
  // Every other disk's groups hold one transaction each: a border behind every one.
  const bool smallest = random_.once_in(2);
  volume_options_.group_bytes = smallest ? 256 : static_cast<std::uint32_t>(random_.between(4, 64)) << 10;
  if (smallest) write_most_ = 2'000;
  volume_options_.seal_bytes_min = 32u << 10;
}

void FsHistory::tell(std::string what) {
  what = format("{:9.3f} ", std::chrono::duration<double>(world_->now().time_since_epoch()).count()) + what;
  if (options_.tell) std::printf("%s\n", what.c_str());
  story_.push_back(std::move(what));
  if (story_.size() > kStoryMost) story_.erase(story_.begin());
}

void FsHistory::fail_story(const std::string& what) {
  if (over()) return;
  tell("WRONG: " + what);
  failure_ = what;
}

// --- the machine ---

FsHistory::Machine& FsHistory::start_machine() {
  auto* machine = new Machine;
  static std::vector<Machine*> all;  // reachable, like everything that a kill leaves
  all.push_back(machine);
  machine->process = &world_->start_process("daemon");
  machine->disk = std::make_unique<SimFileSystem>(*machine->process, disk_);
  machine->transport = std::make_unique<FakeTransport>(*machine->process, *network_, 0, keys_.volume_id());
  machine->written = &machine->metrics.counter("cumulus_log_bytes_total");
  machine_ = machine;
  killed_ = false;
  return *machine;
}

VolumeParts FsHistory::parts() {
  const auto open_engine = [this, machine = machine_](const std::string&, std::function<Status()> barrier,
                                                      bool fresh) -> Task<Result<std::unique_ptr<Engine>>> {
    if (fresh) engine_ = std::make_shared<MapEngineDisk>();
    MapEngineOptions options;
    options.barrier = std::move(barrier);
    options.seed = world_->random().u64();
    co_return std::make_unique<MapEngine>(*machine->process, engine_, std::move(options));
  };
  return {*machine_->process, *machine_->disk, *machine_->transport, keys_,
          machine_->metrics,  kDirectory,      open_engine,          "model@here"};
}

bool FsHistory::run(Task<void> task, const std::string& what) {
  const auto done = std::make_shared<bool>(false);
  machine_->process->spawn(std::move(task), [done] { *done = true; });
  for (std::uint64_t left = kStepBudget; !*done; --left) {
    if (left == 0 || !world_->step()) {
      fail_story("never ends: " + what);
      return false;
    }
    const std::uint64_t written = machine_->written->value();
    if (written != machine_->written_seen && life_.groups > 0 && --life_.groups == 0) {
      count(FsCount::at_group);
      life_.steps = 1 + life_.steps_after_group;
    }
    machine_->written_seen = written;
    if (life_.steps > 0 && --life_.steps == 0) {
      killed_ = true;
      if (!*done) count(FsCount::in_the_middle);
      return false;
    }
  }
  return !over();
}

// What is older than the moment that may be lost has to be there. Nobody syncs what a killed process wrote:
// the power may go while the next one opens.
void FsHistory::die() {
  const auto last_before = [this](Duration moment) {
    std::size_t at = floor_;
    while (at + 1 < reached_.size() && reached_[at + 1] <= world_->now() - moment) ++at;
    return at;
  };
  if (!died_) {
    kill_floor_ = last_before(kKillMay);
    floor_ = last_before(kPowerCutMay);
  }
  if (life_.power) kill_floor_ = floor_;
  died_ = true;
  world_->kill(*machine_->process);
  machine_ = nullptr;
  if (life_.power)
    disk_.power_cut();
  else
    disk_.process_died();
  count(life_.power ? FsCount::power_cuts : FsCount::kills);
  // The engine of the dead process must not reach what the next one uses.
  engine_ = std::make_shared<MapEngineDisk>(*engine_);
}

// --- the story ---

std::string FsHistory::run() {
  create();
  for (std::uint64_t life = 0; life < options_.lives && !over(); ++life) {
    live();
    if (over()) break;
    if (killed_)
      die();
    else
      close_cleanly();
    if (!over()) revive();
  }
  if (!over()) end_in_a_storm();
  if (!over()) return "";
  std::string text = failure_ + "\n";
  for (const std::string& line : story_) text += line + "\n";
  return text;
}

void FsHistory::create() {
  start_machine();
  DatasetOptions kind;
  kind.type = DatasetType::file_system;
  kind.chunk_log2 = static_cast<std::uint8_t>(random_.between(16, 18));
  kind.cell_log2 = static_cast<std::uint8_t>(random_.between(10, 14));
  const auto body = [](FsHistory& self, DatasetOptions options) -> Task<void> {
    const VolumeShape shape{2, 1, 16};
    auto made = co_await Volume::create(self.parts(), shape, self.volume_options_);
    if (!made) co_return self.fail_story("create: " + made.error().message());
    self.machine_->volume = std::move(*made);
    Volume& volume = *self.machine_->volume;
    const auto dataset = co_await volume.create_dataset("main", options);
    if (!dataset) co_return self.fail_story("create the dataset: " + dataset.error().message());
    self.dataset_ = *dataset;
    Runtime& runtime = *self.machine_->process;
    const Status empty = co_await PosixFileSystem::make_empty(runtime, volume, *dataset, 0, 0);
    const Status flushed = co_await volume.flush();
    if (!empty || !flushed) co_return self.fail_story("make an empty file system");
    const FileSystemOptions mounted;
    auto files = co_await PosixFileSystem::open(runtime, volume, *dataset, "", mounted);
    if (!files) co_return self.fail_story("open: " + files.error().message());
    self.machine_->files = std::move(*files);
  };
  run(body(*this, kind), "create");
  states_.emplace_back();
  reached_.push_back(world_->now());
  real_[FsModel::kRoot] = kRootNode;
}

// Half of the lives end at the first groups, so that the borders lie close together.
void FsHistory::live() {
  life_ = {};
  life_.power = !random_.once_in(3);
  const std::uint64_t way = below(8);
  if (way < 4)
    life_.groups = 1 + below(3);
  else if (way < 6)
    life_.groups = 1 + below(40);
  else if (way < 7)
    life_.steps = 1 + below(20'000);
  if (life_.groups != 0 && random_.once_in(2)) life_.steps_after_group = below(60);
  const std::uint64_t actions = random_.between(10, 150);
  for (std::uint64_t i = 0; i < actions && !over() && !killed_; ++i) act();
  // The others go on until they die, or are closed after all when nothing is written any more.
  for (int i = 0; i < 400 && way < 7 && !over() && !killed_; ++i) act();
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
    const auto body = [](SimProcess& process, Duration time) -> Task<void> {
      co_await process.sleep_for(time);
    };
    run(body(*machine_->process, std::chrono::milliseconds(below(2'500))), "sleep");
  } else {
    const bool remote = random_.once_in(2);
    const std::size_t floor = states_.size() - 1;
    const auto body = [](FsHistory& self, bool sync) -> Task<void> {
      Volume& volume = *self.machine_->volume;
      const Status done = sync ? co_await volume.flush(Durability::remote, {}) : co_await volume.drop_cache();
      if (!done) self.fail_story("sync or drop_cache: " + done.error().message());
    };
    if (run(body(*this, remote), "sync") && remote) floor_ = floor;
  }
}

void FsHistory::close_cleanly() {
  tell("close");
  count(FsCount::closed);
  const auto body = [](FsHistory& self) -> Task<void> {
    Machine& machine = *self.machine_;
    const FsStatus files = co_await machine.files->close();
    if (!files) self.fail_story("close the file system: " + files.error().message);
    machine.files.reset();
    const Status volume = co_await machine.volume->close();
    if (!volume) self.fail_story("close the volume: " + volume.error().message());
  };
  life_ = {};
  if (!run(body(*this), "close")) return;
  floor_ = states_.size() - 1;
  life_.power = true;  // what was closed is on the disk
  die();
}

// The volume and the file system; false when this opening was killed.
bool FsHistory::open_again(Machine& machine) {
  const auto body = [](FsHistory& self, Machine& at) -> Task<void> {
    auto opened = co_await Volume::open(self.parts(), self.volume_options_, OpenMode::read_write);
    if (!opened) co_return self.fail_story("open again: " + opened.error().message());
    at.volume = std::move(*opened);
    FileSystemOptions mounted;
    mounted.access_times = static_cast<AccessTimes>(self.below(3));
    mounted.synchronous = self.synchronous_ = self.random_.once_in(6);
    Runtime& runtime = *at.process;
    auto files = co_await PosixFileSystem::open(runtime, *at.volume, self.dataset_, "", mounted);
    if (!files) co_return self.fail_story("mount again: " + files.error().message());
    at.files = std::move(*files);
  };
  return run(body(*this, machine), "open again");
}

bool FsHistory::open_somehow() {
  for (const std::size_t i : {0, 1, 2}) {
    life_ = {};
    if (i < 2 && random_.once_in(4)) {
      life_.steps = 1 + below(3'000);
      life_.power = random_.once_in(2);
    }
    Machine& machine = start_machine();
    if (open_again(machine)) break;
    if (over()) return false;
    count(FsCount::killed_opening);
    tell("killed while opening");
    die();
  }
  life_ = {};
  return true;
}

FsWalk FsHistory::walk_all() {
  const auto found = std::make_shared<FsWalk>();
  const auto body = [](FsHistory& self, std::shared_ptr<FsWalk> into) -> Task<void> {
    *into = co_await walk(*self.machine_->files, 1 + self.below(40));
  };
  if (run(body(*this, found), "walk") && !found->trouble.empty()) fail_story("a walk: " + found->trouble);
  return *found;
}

void FsHistory::revive() {
  if (!open_somehow()) return;
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
  died_ = false;
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
  if (options_.canary != FsCanary::none) plant_canary();
  const auto body = [](FsHistory& self, std::string name, std::shared_ptr<FsCheck> into) -> Task<void> {
    Machine& machine = *self.machine_;
    const FsStatus closed = co_await machine.files->close();
    if (!closed) co_return self.fail_story("close: " + closed.error().message);
    *into = co_await check_file_system(*machine.volume, self.dataset_, name);
    FileSystemOptions mounted;
    mounted.synchronous = self.synchronous_;
    Runtime& runtime = *machine.process;
    auto files = co_await PosixFileSystem::open(runtime, *machine.volume, self.dataset_, "", mounted);
    if (!files) co_return self.fail_story("mount after the check: " + files.error().message());
    machine.files = std::move(*files);
  };
  const auto found = std::make_shared<FsCheck>();
  if (!run(body(*this, snapshot, found), "check")) return;
  if (found->orphans != 0 && snapshot.empty())
    found->problems.push_back(format("{} orphans were not swept", found->orphans));
  std::string all;
  for (const std::string& problem : found->problems) all += problem + "; ";
  if (!all.empty()) fail_story("the records " + snapshot + " contradict each other: " + all);
}

// Nobody knows what is left then, but it fits together, whether they all came to their end or the power was
// cut; and so does a snapshot that was made meanwhile.
void FsHistory::end_in_a_storm() {
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
  const auto storm = std::make_shared<FsStorm>(*machine_->files, *machine_->process);
  storm->directories = storm->nodes = {kRootNode};
  for (const auto& [id, node] : now().nodes()) {
    if (is_directory(node->mode)) storm->directories.push_back(real(id));
    if (is_file(node->mode)) storm->nodes.push_back(real(id));
  }
  if (random_.once_in(2)) life_.steps = 1 + below(6'000);
  life_.power = true;
  tell("a storm");
  const bool ended = run(body(*this, storm), "storm");
  if (!storm->failure.empty()) fail_story(storm->failure);
  count(FsCount::calls_of_storms, storm->calls);
  life_ = {};
  if (ended && !over()) check_records();
  if (over()) return;
  life_.power = true;
  die();
  if (!open_somehow()) return;
  static_cast<void>(walk_all());
  if (!over()) check_records();
  if (!over()) check_records("storm");
}

// A record that nobody would write.
void FsHistory::plant_canary() {
  const auto body = [](FsHistory& self) -> Task<void> {
    Volume& volume = *self.machine_->volume;
    Transaction wrong;
    if (self.options_.canary == FsCanary::link_uncounted) {
      const auto stat = co_await volume.stat(volume.find_dataset(self.dataset_)->head, 1);
      Inode root = Inode::decode((*stat)->header).value();
      ++root.nlink;
      const ObjectRef object{self.dataset_, 1};
      wrong.set_header(object, root.encode());
    } else if (self.options_.canary == FsCanary::orphan_forgotten) {
      Inode file;
      file.mode = kFileKind | 0644;
      const ObjectRef object{self.dataset_, volume.allocate_object(self.dataset_).value()};
      wrong.create(object, file.encode());
    } else {
      co_return;
    }
    static_cast<void>(co_await volume.commit(std::move(wrong)));
  };
  run(body(*this), "plant");
}

}  // namespace cumulus
