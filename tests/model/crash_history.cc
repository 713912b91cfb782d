#include "tests/model/crash_history.h"

#include <array>
#include <cstdio>

#include "objectstore/base/format.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kStepBudget = 3'000'000;
constexpr std::size_t kStoryMost = 50;
constexpr const char* kDirectory = "/home/volume";

SecretKey master_key(std::uint64_t seed) {
  std::array<std::uint8_t, 32> bytes{};
  for (std::size_t i = 0; i < sizeof seed; ++i) bytes[i] = static_cast<std::uint8_t>(seed >> (8 * i));
  return SecretKey(bytes);
}

}  // namespace

CrashHistory::CrashHistory(std::uint64_t seed, CrashHistoryPlan plan)
    : world_(std::make_unique<SimWorld>(seed)),
      random_(seed * 31 + 7),
      plan_(std::move(plan)),
      keys_(master_key(seed)),
      disk_(random_.u64()) {
  network_ = std::make_unique<SimNetwork>(world_->start_process("network"), 6, 1ull << 30);
  volume_options_.cache_bytes = random_.between(24, 48) << 16;
  smallest_groups_ = random_.once_in(2);
  volume_options_.group_bytes =
      smallest_groups_ ? 256 : static_cast<std::uint32_t>(random_.between(4, 64)) << 10;
  volume_options_.seal_bytes_min = 32u << 10;
  const std::vector<const char*>& own = plan_.names_of_own_counts;
  std::vector<const char*> names = {"power cuts",           "kills",
                                    "at a group's border",  "in the middle of calls",
                                    "killed while opening", "closed"};
  names.insert(names.end(), own.begin(), own.end());
  for (const char* name : names) counts_.push_back({name, 0});
}

void CrashHistory::tell(std::string what) {
  what = format("{:9.3f} ", std::chrono::duration<double>(world_->now().time_since_epoch()).count()) + what;
  if (plan_.tell) std::printf("%s\n", what.c_str());
  story_.push_back(std::move(what));
  if (story_.size() > kStoryMost) story_.erase(story_.begin());
}

void CrashHistory::fail_story(const std::string& what) {
  if (over()) return;
  tell("WRONG: " + what);
  failure_ = what;
}

// --- the machine ---

void CrashHistory::start_machine() {
  machine_ = new_machine();
  static std::vector<Machine*> all;  // reachable, like everything that a kill leaves
  all.push_back(machine_);
  machine_->process = &world_->start_process("daemon");
  machine_->disk = std::make_unique<SimFileSystem>(*machine_->process, disk_);
  machine_->transport = std::make_unique<FakeTransport>(*machine_->process, *network_, 0, keys_.volume_id());
  machine_->written = &machine_->metrics.counter("cumulus_log_bytes_total");
  killed_ = false;
}

VolumeParts CrashHistory::parts() {
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

Task<Status> CrashHistory::create_volume() {
  const VolumeShape shape{2, 1, 16};
  VolumeParts here = parts();
  CO_TRY(machine_->volume, co_await Volume::create(std::move(here), shape, volume_options_));
  co_return Status();
}

bool CrashHistory::run(Task<void> task, const std::string& what) {
  const auto done = std::make_shared<bool>(false);
  machine_->process->spawn(std::move(task), [done] { *done = true; });
  for (std::uint64_t left = kStepBudget; !*done; --left) {
    if (left == 0 || !world_->step()) {
      fail_story("never ends: " + what);
      return false;
    }
    const std::uint64_t written = machine_->written->value();
    if (written != machine_->written_seen && life_.groups > 0 && --life_.groups == 0) {
      count(CrashCount::at_group);
      life_.steps = 1 + life_.steps_after_group;
    }
    machine_->written_seen = written;
    if (life_.steps > 0 && --life_.steps == 0) {
      killed_ = true;
      if (!*done) count(CrashCount::in_the_middle);
      return false;
    }
  }
  return !over();
}

bool CrashHistory::run_status(Task<Status> task, const std::string& what) {
  const auto body = [](CrashHistory& self, Task<Status> work, std::string name) -> Task<void> {
    const Status done = co_await std::move(work);
    if (!done) self.fail_story(name + ": " + done.error().message());
  };
  return run(body(*this, std::move(task), what), what);
}

void CrashHistory::sleep(Duration time) {
  const auto body = [](SimProcess& process, Duration moment) -> Task<void> {
    co_await process.sleep_for(moment);
  };
  run(body(*machine_->process, time), "sleep");
}

// Nobody syncs what a killed process wrote: the power may go while the next one opens.
void CrashHistory::die() {
  may_be_lost();
  died_ = true;
  world_->kill(*machine_->process);
  machine_ = nullptr;
  // The engine of the dead process must not reach what the next one uses.
  engine_ = std::make_shared<MapEngineDisk>(*engine_);
  switch (life_.death) {
    case Death::kill:
      tell("killed");
      disk_.process_died();
      return count(CrashCount::kills);
    case Death::power:
      tell("power cut");
      disk_.power_cut();
      return count(CrashCount::power_cuts);
    case Death::home_lost:
      tell("home lost");
      disk_.process_died();
      disk_.restore({});
      engine_ = std::make_shared<MapEngineDisk>();
  }
}

// --- the story ---

std::string CrashHistory::run() {
  create();
  for (std::uint64_t life = 0; life < plan_.lives && !over(); ++life) {
    live();
    if (over()) break;
    if (killed_)
      die();
    else
      close_cleanly();
    if (over() || !open_somehow()) break;
    compare();
    died_ = false;
  }
  if (!over()) end();
  if (!over()) return "";
  std::string text = failure_ + "\n";
  for (const std::string& line : story_) text += line + "\n";
  return text;
}

// Half of the lives end at the first groups, so that the borders lie close together.
void CrashHistory::live() {
  life_ = {};
  life_.death = random_.once_in(3) ? Death::kill : Death::power;
  const std::uint64_t way = below(8);
  if (way < 4)
    life_.groups = 1 + below(plan_.first_groups);
  else if (way < 6)
    life_.groups = 1 + below(40);
  else if (way < 7)
    life_.steps = 1 + below(20'000);
  if (life_.groups != 0 && random_.once_in(2)) life_.steps_after_group = below(60);
  const std::uint64_t actions = random_.between(plan_.actions_least, plan_.actions_most);
  for (std::uint64_t i = 0; i < actions && !over() && !killed_; ++i) act();
  // The others go on until they die, or are closed after all when nothing is written any more.
  for (std::uint64_t i = 0; i < plan_.more_actions && way < 7 && !over() && !killed_; ++i) act();
}

void CrashHistory::close_cleanly() {
  tell("close");
  count(CrashCount::closed);
  life_ = {};
  const auto body = [](CrashHistory& self) -> Task<Status> {
    CO_TRY_OK(co_await self.detach());
    co_return co_await self.machine_->volume->close();
  };
  if (!run_status(body(*this), "close")) return;
  all_is_durable();
  life_.death = Death::power;  // what was closed is on the disk
  die();
}

Task<Status> CrashHistory::open_again(bool from_miners) {
  VolumeParts here = parts();
  if (from_miners) {
    CO_TRY(machine_->volume,
           co_await Volume::recover(std::move(here), volume_options_, OpenMode::steal, false, {}));
  } else {
    CO_TRY(machine_->volume, co_await Volume::open(std::move(here), volume_options_, OpenMode::read_write));
  }
  co_return co_await attach();
}

bool CrashHistory::open_somehow() {
  const bool from_miners = life_.death == Death::home_lost;
  for (const std::size_t i : {0, 1, 2}) {
    life_ = {};
    if (i < 2 && !from_miners && random_.once_in(plan_.one_opening_killed_of)) {
      life_.steps = 1 + below(plan_.opening_steps);
      life_.death = random_.once_in(2) ? Death::kill : Death::power;
    }
    start_machine();
    if (run_status(open_again(from_miners), "open again")) break;
    if (over()) return false;
    count(CrashCount::killed_opening);
    tell("killed while opening");
    die();
  }
  life_ = {};
  return true;
}

}  // namespace cumulus
