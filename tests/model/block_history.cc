#include "tests/model/block_history.h"

#include <algorithm>

#include "blockdev/images.h"
#include "objectstore/base/format.h"

namespace cumulus {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kStepBudget = 3'000'000;
constexpr std::size_t kStoryMost = 50;
constexpr const char* kDirectory = "/home/volume";
// SEMANTICS.md: what a kill may take, and time for the disk to do its work.
constexpr Duration kKillMay = 150ms;

SecretKey master_key(std::uint64_t seed) {
  std::array<std::uint8_t, 32> bytes{};
  for (std::size_t i = 0; i < sizeof seed; ++i) bytes[i] = static_cast<std::uint8_t>(seed >> (8 * i));
  return SecretKey(bytes);
}

const char* name_of(unsigned death) {
  constexpr std::array<const char*, 3> names = {"killed", "power cut", "home lost"};
  return names[death];
}

}  // namespace

BlockHistory::BlockHistory(std::uint64_t seed, BlockHistoryOptions options)
    : options_(options),
      world_(std::make_unique<SimWorld>(seed)),
      random_(seed * 31 + 7),
      keys_(master_key(seed)),
      disk_(random_.u64()) {
  network_ = std::make_unique<SimNetwork>(world_->start_process("network"), 6, 1ull << 30);
  volume_options_.cache_bytes = random_.between(24, 48) << 16;
  // Every other volume's groups hold one transaction each: a border behind every one.
  volume_options_.group_bytes =
      random_.once_in(2) ? 256 : static_cast<std::uint32_t>(random_.between(4, 64)) << 10;
  volume_options_.seal_bytes_min = 32u << 10;
  if (random_.once_in(3)) volume_options_.flush_means = Durability::remote;
}

void BlockHistory::Floor::raise(const Floor& other) {
  if (other.step > step)
    *this = other;
  else if (other.step == step)
    must |= other.must;
}

void BlockHistory::tell(std::string what) {
  what = format("{:9.3f} ", std::chrono::duration<double>(world_->now().time_since_epoch()).count()) + what;
  if (options_.tell) std::printf("%s\n", what.c_str());
  story_.push_back(std::move(what));
  if (story_.size() > kStoryMost) story_.erase(story_.begin());
}

void BlockHistory::fail_story(const std::string& what) {
  if (over()) return;
  tell("WRONG: " + what);
  failure_ = what;
}

// --- the machine ---

void BlockHistory::start_machine() {
  auto* machine = new Machine;
  static std::vector<Machine*> all;  // reachable, like everything that a kill leaves
  all.push_back(machine);
  machine->process = &world_->start_process("daemon");
  machine->disk = std::make_unique<SimFileSystem>(*machine->process, disk_);
  machine->transport = std::make_unique<FakeTransport>(*machine->process, *network_, 0, keys_.volume_id());
  machine->transport->set_miners(network_->entries());
  machine->written = &machine->metrics.counter("cumulus_log_bytes_total");
  machine_ = machine;
  killed_ = false;
}

VolumeParts BlockHistory::parts() {
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

bool BlockHistory::run(Task<void> task, const std::string& what) {
  const auto done = std::make_shared<bool>(false);
  machine_->process->spawn(std::move(task), [done] { *done = true; });
  for (std::uint64_t left = kStepBudget; !*done; --left) {
    if (left == 0 || !world_->step()) {
      fail_story("never ends: " + what);
      return false;
    }
    const std::uint64_t written = machine_->written->value();
    if (written != machine_->written_seen && life_.groups > 0 && --life_.groups == 0) {
      count(BlockCount::at_group);
      life_.steps = 1 + life_.steps_after_group;
    }
    machine_->written_seen = written;
    if (life_.steps > 0 && --life_.steps == 0) {
      killed_ = true;
      if (!*done) count(BlockCount::in_the_middle);
      return false;
    }
  }
  return !over();
}

bool BlockHistory::run_status(Task<Status> task, const std::string& what) {
  const auto body = [](BlockHistory& self, Task<Status> work, std::string name) -> Task<void> {
    const Status done = co_await std::move(work);
    if (!done) self.fail_story(name + ": " + done.error().message());
  };
  return run(body(*this, std::move(task), what), what);
}

// Nobody syncs what a killed process wrote: the power may go while the next one opens.
void BlockHistory::die() {
  if (!died_) {
    kill_floor_ = floor_;
    for (std::size_t step = steps_.size(); step-- > 0;) {
      if (steps_[step].reached > world_->now() - kKillMay) continue;
      kill_floor_.raise({step, steps_[step].all});
      break;
    }
  }
  if (life_.death != Death::kill) kill_floor_ = floor_;
  died_ = true;
  world_->kill(*machine_->process);
  machine_ = nullptr;
  tell(name_of(static_cast<unsigned>(life_.death)));
  // The engine of the dead process must not reach what the next one uses.
  engine_ = std::make_shared<MapEngineDisk>(*engine_);
  switch (life_.death) {
    case Death::kill:
      disk_.process_died();
      return count(BlockCount::kills);
    case Death::power:
      disk_.power_cut();
      return count(BlockCount::power_cuts);
    case Death::home_lost:
      disk_.process_died();
      disk_.restore({});
      engine_ = std::make_shared<MapEngineDisk>();
      floor_ = kill_floor_ = *remote_floor_;
      return count(BlockCount::homes_lost);
  }
}

// --- the story ---

std::string BlockHistory::run() {
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
  if (!over()) care();
  if (!over()) return "";
  std::string text = failure_ + "\n";
  for (const std::string& line : story_) text += line + "\n";
  return text;
}

void BlockHistory::create() {
  start_machine();
  const auto body = [](BlockHistory& self, std::uint64_t size) -> Task<Status> {
    const VolumeShape shape{2, 1, 16};
    CO_TRY(self.machine_->volume, co_await Volume::create(self.parts(), shape, self.volume_options_));
    Volume& volume = *self.machine_->volume;
    CO_TRY_OK(co_await create_image(volume, "a", size, 1));
    CO_TRY_OK(co_await create_image(volume, "b", 70'001, 1));
    co_return co_await volume.flush(Durability::remote, {});
  };
  const std::uint64_t size = 50'000 + below(100'000);
  run_status(body(*this, size), "create");
  BlockModel model;
  model.images["a"].head = std::make_shared<const Bytes>(size);
  model.images["b"].head = std::make_shared<const Bytes>(70'001);
  adopt(std::move(model));
  remote_floor_ = floor_;
}

// Half of the lives end at the first groups, so that the borders lie close together.
void BlockHistory::live() {
  life_ = {};
  life_.death = random_.once_in(3) ? Death::kill : Death::power;
  const std::uint64_t way = below(8);
  if (way < 4)
    life_.groups = 1 + below(4);
  else if (way < 6)
    life_.groups = 1 + below(40);
  else if (way < 7)
    life_.steps = 1 + below(20'000);
  if (life_.groups != 0 && random_.once_in(2)) life_.steps_after_group = below(60);
  const std::uint64_t actions = random_.between(5, 60);
  for (std::uint64_t i = 0; i < actions && !over() && !killed_; ++i) act();
  // The others go on until they die, or are closed after all when nothing is written any more.
  for (int i = 0; i < 200 && way < 7 && !over() && !killed_; ++i) act();
  if (killed_ && remote_floor_ && random_.once_in(4)) life_.death = Death::home_lost;
}

void BlockHistory::act() {
  const std::uint64_t what = below(100);
  std::vector<BlockRequest> requests;
  if (what < 70) {
    for (std::uint64_t connections = 1 + below(3); connections > 0; --connections) {
      if (random_.once_in(5)) {
        BlockRequest flush;
        flush.kind = BlockRequest::Kind::flush;
        flush.images.push_back(any_image());
        requests.push_back(std::move(flush));
      } else {
        requests.push_back(draw_change());
      }
    }
    if (requests.size() < 3 && random_.once_in(12)) requests.push_back(draw_snapshot());
    return send(std::move(requests));
  }
  if (what < 88) {
    if (auto care = draw_care()) requests.push_back(std::move(*care));
    return send(std::move(requests));
  }
  if (what < 96) {
    const auto body = [](SimProcess& process, Duration time) -> Task<void> {
      co_await process.sleep_for(time);
    };
    run(body(*machine_->process, std::chrono::milliseconds(below(1'500))), "sleep");
    return;
  }
  const bool remote = random_.once_in(2);
  if (!remote) {
    run_status(machine_->volume->drop_cache(), "drop_cache");
  } else if (run_status(machine_->volume->flush(Durability::remote, {}), "sync")) {
    floor_.raise({steps_.size() - 1, steps_.back().all});
    remote_floor_ = floor_;
  }
}

void BlockHistory::close_cleanly() {
  tell("close");
  count(BlockCount::closed);
  life_ = {};
  machine_->devices.clear();
  if (!run_status(machine_->volume->close(), "close")) return;
  floor_.raise({steps_.size() - 1, steps_.back().all});
  life_.death = Death::power;  // what was closed is on the disk
  die();
}

// False when this opening was killed.
bool BlockHistory::open_again(bool from_miners) {
  const auto body = [](BlockHistory& self, bool recover) -> Task<Status> {
    Machine& at = *self.machine_;
    if (recover) {
      CO_TRY(at.volume,
             co_await Volume::recover(self.parts(), self.volume_options_, OpenMode::steal, false, {}));
    } else {
      CO_TRY(at.volume, co_await Volume::open(self.parts(), self.volume_options_, OpenMode::read_write));
    }
    co_return Status();
  };
  return run_status(body(*this, from_miners), "open again");
}

bool BlockHistory::open_somehow() {
  const bool from_miners = life_.death == Death::home_lost;
  for (const std::size_t i : {0, 1, 2}) {
    life_ = {};
    if (i < 2 && !from_miners && random_.once_in(3)) {
      life_.steps = 1 + below(400);
      life_.death = random_.once_in(2) ? Death::kill : Death::power;
    }
    start_machine();
    if (open_again(from_miners)) break;
    if (over()) return false;
    count(BlockCount::killed_opening);
    die();
  }
  life_ = {};
  return true;
}

void BlockHistory::revive() {
  if (!open_somehow()) return;
  const auto found = std::make_shared<BlockModel>();
  if (run_status(read_all(found), "read everything")) settle_on(std::move(*found));
  if (!over()) check_honesty();
}

// The newest state that fits.
void BlockHistory::settle_on(BlockModel found) {
  const std::size_t answered = states_.size();
  if (!sent_.empty()) add_states(orders(false));
  Floor floor = floor_;
  floor.raise(kill_floor_);
  std::string first_difference;
  for (std::size_t at = states_.size(); at-- > 0;) {
    if (!floor.allows(states_[at])) continue;
    const std::string differs = difference(states_[at].model, found);
    if (!differs.empty()) {
      if (first_difference.empty()) first_difference = differs;
      continue;
    }
    if (at >= answered) count(BlockCount::unanswered_kept);
    if (at + 1 < answered) count(BlockCount::requests_lost);
    tell(format("alive again: step {} of {}, {} had to be there", states_[at].step, steps_.size() - 1,
                floor.step));
    return adopt(std::move(found));
  }
  fail_story(
      format("what is left is at no point of the history from step {} to {}; the last one differs in {}",
             floor.step, states_.back().step, first_difference));
}

void BlockHistory::adopt(BlockModel found) {
  states_.clear();
  states_.push_back({std::move(found), 0, 0});
  steps_ = {{world_->now(), 0}};
  sent_.clear();
  floor_ = kill_floor_ = {};
  remote_floor_.reset();
  died_ = false;
}

// What is said about holes and changes, of one disk.
void BlockHistory::check_honesty() {
  const std::string image = any_image();
  for (const auto& [snapshot, bytes] : now().images.at(image).snapshots)
    if (!run_status(look_at(image, snapshot, bytes), "what changed")) return;
  run_status(look_at(image, "", now().images.at(image).head), "what is allocated");
}

void BlockHistory::care() {
  const auto body = [](BlockHistory& self) -> Task<Status> {
    Volume& volume = *self.machine_->volume;
    CO_TRY_OK(co_await volume.flush(Durability::remote, {}));
    CO_TRY(const CheckReport report, co_await volume.check(true, {}));
    for (const std::string& problem : report.problems) self.fail_story("check: " + problem);
    co_return Status();
  };
  run_status(body(*this), "check");
}

// --- draws ---

std::string BlockHistory::any_image() {
  auto at = now().images.begin();
  std::advance(at, static_cast<long>(below(now().images.size())));
  return at->first;
}

BlockRequest BlockHistory::draw_change() {
  BlockRequest request;
  request.images.push_back(any_image());
  request.durable = random_.once_in(6);
  const std::uint64_t size = now().head(request.images.front()).size();
  for (std::uint64_t parts = 1 + below(3); parts > 0; --parts) {
    BlockRequest::Part part;
    // Close to each other, so that requests of one step overlap.
    part.offset = random_.once_in(2) ? below(std::min<std::uint64_t>(size, 8192)) : below(size);
    part.length = std::min(size - part.offset, 1 + below(random_.once_in(6) ? 40'000 : 5'000));
    part.allocated = random_.once_in(2);
    if (!random_.once_in(4)) {
      const auto data = std::make_shared<Bytes>(part.length);
      random_.fill(*data);
      part.data = data;
    }
    request.parts.push_back(std::move(part));
  }
  return request;
}

BlockRequest BlockHistory::draw_snapshot() {
  BlockRequest request;
  request.kind = BlockRequest::Kind::snapshot;
  request.name = format("s{}", next_name_++);
  for (const auto& [name, image] : now().images)
    if (random_.once_in(2) && image.snapshots.size() < 3) request.images.push_back(name);
  if (request.images.empty()) request.images.push_back("a");
  return request;
}

std::optional<BlockRequest> BlockHistory::draw_care() {
  using enum BlockRequest::Kind;
  BlockRequest request;
  request.images.push_back(any_image());
  const std::string& image = request.images.front();
  const auto& snapshots = now().images.at(image).snapshots;
  request.kind = std::array{snapshot,        clone,           clone,        resize,       roll_back,
                            remove_snapshot, remove_snapshot, remove_image, remove_image, flatten}[below(10)];
  const bool of_snapshot =
      request.kind == clone || request.kind == roll_back || request.kind == remove_snapshot;
  if (of_snapshot) {
    if (snapshots.empty()) return {};
    auto at = snapshots.begin();
    std::advance(at, static_cast<long>(below(snapshots.size())));
    request.name = at->first;
  }
  if (request.kind == snapshot) return draw_snapshot();
  if (request.kind == clone) {
    if (now().images.size() > 4) return {};
    request.clone = format("c{}", next_name_++);
  }
  if (request.kind == resize) request.size = 1 + below(160'000);
  if (request.kind == remove_image && (image == "a" || image == "b")) return {};
  return request;
}

}  // namespace cumulus
