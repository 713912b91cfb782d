#include "tests/sim/cluster.h"

#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "tests/sim/canary_cells.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kMinerCapacity = std::uint64_t{1} << 30;
constexpr std::uint64_t kStepBudget = 6'000'000;
constexpr Duration kPatience = std::chrono::seconds(90);
constexpr Duration kPatienceHealed = std::chrono::minutes(30);
constexpr const char* kDirectory = "/home/volume";

SecretKey master_key(std::uint64_t seed) {
  std::array<std::uint8_t, 32> bytes{};
  for (std::size_t i = 0; i < sizeof seed; ++i) bytes[i] = static_cast<std::uint8_t>(seed >> (8 * i));
  return SecretKey(bytes);
}

// Every salt and every nonce is the same.
class StuckRandom final : public Random {
 public:
  void fill(MutableByteView into) override { std::ranges::fill(into, std::uint8_t{0x5A}); }
};

}  // namespace

Cluster::Cluster(std::uint64_t seed, Canary canary)
    : world_(std::make_unique<SimWorld>(seed)),
      random_(seed * 31 + 7),
      canary_(canary),
      keys_(master_key(seed)) {
  shape_ = {static_cast<std::uint8_t>(random_.between(1, 4)),
            static_cast<std::uint8_t>(random_.between(0, 3)), 16};
  const std::size_t miners = random_.between(6, 8);
  network_process_ = &world_->start_process("network");
  network_ = std::make_unique<SimNetwork>(*network_process_, miners, kMinerCapacity);
  troubles_.resize(miners);
  for (std::size_t i = 0; i < homes_.size(); ++i) {
    homes_[i].name = format("home{}", i);
    homes_[i].client = i;
    homes_[i].disk = std::make_unique<SimDisk>(random_.u64());
    homes_[i].disk->ignore_syncs(canary == Canary::syncs_ignored);
  }
  while (bad_.size() < std::max<std::size_t>(shape_.m, 1)) bad_.insert(random_.below(miners));
  const QuorumShape quorum = this->quorum();
  for (const std::size_t miner : bad_)
    if (stale_.size() < std::min<std::size_t>(quorum.may_lie(), shape_.m) && random_.once_in(2))
      stale_.insert(miner);
  if (canary == Canary::cell_not_verified) believe_any_cell();
  if (canary == Canary::old_ballot_accepted)
    for (std::size_t i = 0; i < miners; ++i) network_->miner(i).canary_hold_anything();
}

VolumeOptions Cluster::options() {
  VolumeOptions options;
  options.cache_bytes = random_.between(16, 48) << 16;
  options.outage_wait = std::chrono::seconds(random_.between(1, 6));
  options.group_bytes = static_cast<std::uint32_t>(random_.between(4, 32)) << 10;
  options.seal_bytes_min = 32u << 10;
  options.request_deadline = std::chrono::seconds(random_.between(1, 5));
  options.pushes_in_flight_max = static_cast<std::uint32_t>(random_.between(1, 4));
  return options;
}

Machine& Cluster::start(Home& home) {
  CHECK(home.machine == nullptr);
  auto* machine = new Machine;
  static std::vector<Machine*> all;  // reachable, like everything that a kill leaves
  all.push_back(machine);
  machines_.push_back(machine);
  machine->process = &world_->start_process(home.name);
  if (canary_ == Canary::nonce_repeated) {
    machine->canary_random = std::make_unique<StuckRandom>();
    machine->process->use_random(machine->canary_random.get());
  }
  machine->files = std::make_unique<SimFileSystem>(*machine->process, *home.disk);
  machine->transport =
      std::make_unique<FakeTransport>(*machine->process, *network_, home.client, keys_.volume_id());
  home.machine = machine;
  return *machine;
}

VolumeParts Cluster::parts(Home& home) {
  Machine& machine = *home.machine;
  const auto open_engine = [this, &home, &machine](const std::string&, std::function<Status()> barrier,
                                                   bool fresh) -> Task<Result<std::unique_ptr<Engine>>> {
    if (fresh && home.engine->position != 0) ++indexes_rebuilt_;
    if (fresh) home.engine = std::make_shared<MapEngineDisk>();
    MapEngineOptions options;
    options.barrier = std::move(barrier);
    options.seed = world_->random().u64();
    options.canary_no_barrier = canary_ == Canary::no_barrier;
    co_return std::make_unique<MapEngine>(*machine.process, home.engine, std::move(options));
  };
  return {*machine.process, *machine.files, *machine.transport, keys_,
          machine.metrics,  kDirectory,     open_engine,        "simulated@" + home.name};
}

void Cluster::kill(Home& home, bool power) {
  if (home.machine != nullptr) world_->kill(*home.machine->process);
  home.machine = nullptr;
  kill_in_ = 0;
  if (power)
    home.disk->power_cut();
  else
    home.disk->process_died();
  // The engine of the dead process must not reach what the next one uses.
  home.engine = std::make_shared<MapEngineDisk>(*home.engine);
}

void Cluster::replace(Home& home) {
  kill(home, false);
  home.disk->restore({});
  home.engine = std::make_shared<MapEngineDisk>();
  home.rotten = false;
}

Cluster::Image Cluster::copy(Home& home) { return {home.disk->image_after_power_cut(), *home.engine}; }

void Cluster::restore(Home& home, const Image& image) {
  kill(home, false);
  home.disk->restore(image.files);
  home.engine = std::make_shared<MapEngineDisk>(image.engine);
}

Ended Cluster::run(Home& home, Task<void> task) {
  const auto done = std::make_shared<bool>(false);
  home.machine->process->spawn(std::move(task), [done] { *done = true; });
  const TimePoint begin = world_->now();
  std::optional<TimePoint> healed_at;
  for (std::uint64_t left = kStepBudget; !*done; --left) {
    if (left == 0 || !world_->step()) return Ended::stuck;
    if (kill_in_ != 0 && --kill_in_ == 0) return Ended::killed;
    if (!healed_at && world_->now() - begin > kPatience) {
      heal();
      healed_at = world_->now();
    }
    if (healed_at && world_->now() - *healed_at > kPatienceHealed) return Ended::stuck;
  }
  return Ended::done;
}

// --- faults ---

void Cluster::worsen(Tally& tally) {
  healed_ = false;
  const std::size_t at = *std::next(bad_.begin(), static_cast<std::ptrdiff_t>(random_.below(bad_.size())));
  SimMiner& miner = network_->miner(at);
  MinerTrouble& trouble = troubles_[at];
  const bool may_damage = shape_.m > 0;
  switch (random_.below(12)) {
    case 0:
    case 1:
      tally.add("miner killed");
      network_->kill(at);
      trouble.dead = true;
      break;
    case 2:
      tally.add("miner silent");
      network_->set_silent(at, true);
      trouble.silent = true;
      break;
    case 3:
      tally.add("miner slow");
      network_->set_speed(at, std::chrono::milliseconds(random_.between(20, 3000)), std::chrono::seconds(1));
      break;
    case 4:
      tally.add("miner full");
      miner.set_capacity(miner.used() + random_.below(100'000));
      break;
    case 5:
      tally.add("miner refuses writes");
      miner.set_read_only(true);
      break;
    case 6: {
      if (!may_damage) break;
      tally.add("miner lies");
      SimMinerLies lies;
      lies.wrong_bytes = static_cast<unsigned>(random_.below(600));
      lies.wrong_bytes_with_proof = static_cast<unsigned>(random_.below(300));
      lies.other_slice = static_cast<unsigned>(random_.below(300));
      lies.put_forgotten = random_.once_in(2) ? static_cast<unsigned>(random_.below(300)) : 0;
      if (stale_.contains(at)) {
        tally.add("holder lies");
        lies.old_state = static_cast<unsigned>(random_.below(800));
      }
      miner.set_lies(lies);
      trouble.lying = true;
      break;
    }
    case 7:
      if (!may_damage) break;
      tally.add("miner rots");
      miner.rot(random_.between(1, 10));
      if (random_.once_in(2)) miner.scrub();
      break;
    case 8:
      if (!stale_.contains(at)) break;
      tally.add("miner wiped");
      miner.wipe();
      break;
    case 9: {
      tally.add("messages lost");
      SimWeather weather;
      weather.request_lost = static_cast<unsigned>(random_.below(150));
      weather.answer_lost = static_cast<unsigned>(random_.below(150));
      weather.duplicated = static_cast<unsigned>(random_.below(200));
      weather.slow_share = static_cast<unsigned>(random_.below(100));
      network_->set_weather(weather);
      break;
    }
    case 10: {
      tally.add("partition");
      const std::size_t client = random_.below(homes_.size());
      for (std::size_t i = 0; i < network_->size(); ++i) {
        if (!random_.once_in(2)) continue;
        network_->cut(client, i);
        cuts_.insert({client, i});
      }
      break;
    }
    case 11: {
      tally.add("network down");
      const std::size_t client = random_.below(homes_.size());
      network_->cut_all(client);
      for (std::size_t i = 0; i < network_->size(); ++i) cuts_.insert({client, i});
      break;
    }
  }
}

void Cluster::ease() {
  const std::size_t at = *std::next(bad_.begin(), static_cast<std::ptrdiff_t>(random_.below(bad_.size())));
  switch (random_.below(4)) {
    case 0:
    case 1:
      network_->set_silent(at, false);
      network_->start(at);
      network_->set_speed(at, std::chrono::microseconds(50), std::chrono::milliseconds(5));
      network_->miner(at).set_capacity(kMinerCapacity);
      network_->miner(at).set_read_only(false);
      network_->miner(at).set_lies({});
      troubles_[at] = {};
      break;
    case 2:
      network_->set_weather({});
      break;
    case 3:
      network_->mend_all();
      cuts_.clear();
      break;
  }
}

void Cluster::heal() {
  for (const std::size_t at : bad_) {
    network_->set_silent(at, false);
    network_->start(at);
    network_->set_speed(at, std::chrono::microseconds(50), std::chrono::milliseconds(5));
    network_->miner(at).set_capacity(kMinerCapacity);
    network_->miner(at).set_read_only(false);
    network_->miner(at).set_lies({});
    troubles_[at] = {};
  }
  network_->set_weather({});
  network_->mend_all();
  cuts_.clear();
  healed_ = true;
  for (Home& home : homes_) {
    home.disk->set_weather({});
    home.disk->set_capacity(~std::uint64_t{0});
  }
  disk_weather_ = false;
}

void Cluster::set_disk_weather(Home& home, Tally& tally) {
  DiskWeather weather;
  if (random_.once_in(3)) {
    tally.add("disk errors");
    weather.write_error = static_cast<unsigned>(random_.below(150));
    weather.sync_error = static_cast<unsigned>(random_.below(150));
    weather.read_error = static_cast<unsigned>(random_.below(100));
  } else {
    tally.add("disk nearly full");
    home.disk->set_capacity(home.disk->used() + random_.below(200'000));
  }
  disk_troubled_ = disk_weather_ = true;
  home.disk->set_weather(weather);
}

bool Cluster::serves(std::size_t miner, const Home& home) const {
  const MinerTrouble& trouble = troubles_[miner];
  return !trouble.dead && !trouble.silent && !trouble.lying && !cuts_.contains({home.client, miner});
}

}  // namespace cumulus
