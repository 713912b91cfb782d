// Cluster: the machines of one simulated run: two homes, each with a disk and an index engine that outlive
// its processes, and a network of miners. It starts and ends processes, runs tasks in them in virtual time,
// and knows which faults are on. One thread; everything follows from the seed.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "objectstore/crypto/key_tree.h"
#include "objectstore/object_store.h"
#include "tests/fakes/map_engine.h"
#include "tests/fakes/sim_disk.h"
#include "tests/fakes/sim_network.h"
#include "tests/fakes/sim_runtime.h"
#include "tests/sim/tally.h"

namespace cumulus {

// What is broken on purpose, to show that the checkers see it.
enum class Canary : std::uint8_t {
  none,
  syncs_ignored,
  no_barrier,
  old_ballot_accepted,
  cell_not_verified,
  nonce_repeated
};

// One life of a home's daemon. Never destroyed: a kill runs no destructors (sim_runtime.h).
struct Machine {
  SimProcess* process = nullptr;
  std::unique_ptr<SimFileSystem> files;
  std::unique_ptr<FakeTransport> transport;
  std::unique_ptr<Random> canary_random;
  Metrics metrics;
  std::unique_ptr<Volume> volume;
};

struct Home {
  std::string name;
  std::size_t client = 0;
  std::unique_ptr<SimDisk> disk;
  std::shared_ptr<MapEngineDisk> engine = std::make_shared<MapEngineDisk>();
  VolumeOptions options;       // that its volume has, or had last
  Machine* machine = nullptr;  // while a process runs
  bool rotten = false;         // its disk was damaged since it was last known whole
};

// How a task ended.
enum class Ended : std::uint8_t { done, killed, stuck };

class Cluster {
 public:
  Cluster(std::uint64_t seed, Canary canary);

  SimWorld& world() { return *world_; }
  SimNetwork& network() { return *network_; }
  SeededRandom& random() { return random_; }
  const KeyTree& keys() const { return keys_; }
  Home& home(std::size_t at) { return homes_[at]; }
  const VolumeShape& shape() const { return shape_; }
  QuorumShape quorum() const {
    return QuorumShape::for_volume(static_cast<std::uint32_t>(network_->size()), shape_.m);
  }
  VolumeOptions options();

  // Every life so far.
  const std::vector<Machine*>& machines() const { return machines_; }
  // A new process in the home, without a volume yet.
  Machine& start(Home& home);
  VolumeParts parts(Home& home);
  // The process is gone at once; with `power` the disk loses what was not synced.
  void kill(Home& home, bool power);
  // Empties the home, as when the machine is replaced.
  void replace(Home& home);
  // What a copy of the whole home, taken now, would hold; and the home as of such a copy.
  struct Image {
    SimDisk::Image files;
    MapEngineDisk engine;
  };
  Image copy(Home& home);
  void restore(Home& home, const Image& image);

  // The home dies when this many more steps were made; 0: it does not.
  void kill_after(std::uint64_t steps) { kill_in_ = steps; }
  // Runs the task in the home's process. After 90 s of virtual time all faults are healed; much later it is
  // stuck.
  Ended run(Home& home, Task<void> task);

  // --- faults ---
  void worsen(Tally& tally);  // one random change for the worse, within what the volume must bear
  void ease();                // one random change for the better
  void heal();                // nothing is wrong any more (what is lost stays lost)
  void set_disk_weather(Home& home, Tally& tally);
  // Indexes that were there and were made anew from the log.
  std::uint64_t indexes_rebuilt() const { return indexes_rebuilt_; }
  bool network_healed() const { return healed_; }
  bool disk_troubled() const { return disk_troubled_; }
  // A life that begins under bad weather is troubled from its first step.
  void forget_disk_trouble() { disk_troubled_ = disk_weather_; }
  // Miners that may be at fault at all (at most m of them), and of those the ones that may lie about
  // freshness.
  const std::set<std::size_t>& bad_miners() const { return bad_; }
  const std::set<std::size_t>& stale_miners() const { return stale_; }
  // Can the home's client get good bytes from this miner now?
  bool serves(std::size_t miner, const Home& home) const;

 private:
  struct MinerTrouble {
    bool dead = false;
    bool silent = false;
    bool lying = false;
  };

  std::unique_ptr<SimWorld> world_;
  SeededRandom random_;
  Canary canary_;
  KeyTree keys_;
  VolumeShape shape_;
  SimProcess* network_process_ = nullptr;
  std::unique_ptr<SimNetwork> network_;
  std::array<Home, 2> homes_;
  std::vector<Machine*> machines_;
  std::set<std::size_t> bad_;
  std::set<std::size_t> stale_;
  std::vector<MinerTrouble> troubles_;
  std::set<std::pair<std::size_t, std::size_t>> cuts_;
  std::uint64_t indexes_rebuilt_ = 0;
  bool healed_ = true;
  bool disk_weather_ = false;   // now
  bool disk_troubled_ = false;  // now, or since it was forgotten
  std::uint64_t kill_in_ = 0;
};

}  // namespace cumulus
