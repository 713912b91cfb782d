// CrashHistory: one seed's story of a volume on a machine that dies again and again. What FsHistory and
// BlockHistory share: the machine, its deaths at the border of a log group and between them, opening again,
// and the telling. They say what is done to the volume, what it may have come to, and compare. Virtual time,
// one thread; everything follows from the seed. Never destroyed: a kill runs no destructors
// (tests/fakes/sim_runtime.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "objectstore/crypto/key_tree.h"
#include "objectstore/object_store.h"
#include "tests/fakes/map_engine.h"
#include "tests/fakes/sim_disk.h"
#include "tests/fakes/sim_network.h"
#include "tests/fakes/sim_runtime.h"

namespace cumulus {

// The first counts of every history; its own begin at `count`.
enum class CrashCount : std::uint8_t {
  power_cuts,
  kills,
  at_group,
  in_the_middle,
  killed_opening,
  closed,
  count
};

// How often a thing happened.
struct Counted {
  std::string what;
  std::uint64_t times = 0;
};

// How one kind of history runs.
struct CrashHistoryPlan {
  std::uint64_t lives = 1;
  std::uint64_t first_groups = 1;  // half of the lives end at one of so many
  std::uint64_t actions_least = 1;
  std::uint64_t actions_most = 1;
  std::uint64_t more_actions = 0;  // while what is to end a life has not come; then it is closed
  std::uint64_t one_opening_killed_of = 2;
  std::uint64_t opening_steps = 1;  // an opening is killed at one of so many
  std::vector<const char*> names_of_own_counts;
  bool tell = false;  // print the story as it goes
};

class CrashHistory {
 public:
  // What went wrong, with the end of the story; empty: nothing.
  std::string run();
  const std::vector<Counted>& counts() const { return counts_; }

 protected:
  enum class Death : std::uint8_t { kill, power, home_lost };
  // One life of the daemon; a history adds what it opens on the volume. Never destroyed.
  struct Machine {
    SimProcess* process = nullptr;
    std::unique_ptr<SimFileSystem> disk;
    std::unique_ptr<FakeTransport> transport;
    Metrics metrics;
    Counter* written = nullptr;  // bytes of the log: changes when a group has been written
    std::uint64_t written_seen = 0;
    std::unique_ptr<Volume> volume;
  };
  struct Life {                // when this one ends by force
    std::uint64_t groups = 0;  // written until then
    std::uint64_t steps = 0;
    std::uint64_t steps_after_group = 0;
    Death death = Death::kill;
  };
  // SEMANTICS.md: what a kill may take, and time for the disk to do its work.
  static constexpr Duration kKillMay = std::chrono::milliseconds(150);

  CrashHistory(std::uint64_t seed, CrashHistoryPlan plan);
  ~CrashHistory() = default;

  // --- what each kind of history says ---
  virtual Machine* new_machine() const = 0;  // stays the caller's, who never destroys it
  virtual void create() = 0;                 // the volume, and what is in it
  virtual void act() = 0;
  virtual Task<Status> attach() = 0;  // to the volume of machine_, which was just opened
  virtual void compare() = 0;         // what the volume holds with what it may
  virtual Task<Status> detach() = 0;  // ... before the volume is closed
  virtual void all_is_durable() = 0;
  virtual void
  may_be_lost() = 0;       // by life_.death; died_: by one more death, with nothing done since the last
  virtual void end() = 0;  // after the last life
  virtual void live();

  // --- the machine ---
  void start_machine();
  Task<Status> create_volume();
  bool run(Task<void> task, const std::string& what);  // false: it was killed, or the story is over
  bool run_status(Task<Status> task, const std::string& what);
  void sleep(Duration time);
  void die();
  bool open_somehow();  // false: the story is over

  // --- the story ---
  bool over() const { return !failure_.empty(); }
  void fail_story(const std::string& what);
  void tell(std::string what);
  template <class Count>
  void count(Count what, std::uint64_t amount = 1) {
    counts_.at(static_cast<std::size_t>(what)).times += amount;
  }
  std::uint64_t below(std::uint64_t most) { return random_.below(most); }

  std::unique_ptr<SimWorld> world_;
  SeededRandom random_;
  VolumeOptions volume_options_;
  bool smallest_groups_ = false;  // each holds one transaction: a border behind every one
  Machine* machine_ = nullptr;
  Life life_;
  bool killed_ = false;
  bool died_ = false;  // and is not alive again

 private:
  VolumeParts parts();
  void close_cleanly();
  Task<Status> open_again(bool from_miners);

  const CrashHistoryPlan plan_;
  KeyTree keys_;
  SimDisk disk_;
  std::shared_ptr<MapEngineDisk> engine_ = std::make_shared<MapEngineDisk>();
  std::unique_ptr<SimNetwork> network_;

  std::string failure_;
  std::vector<std::string> story_;
  std::vector<Counted> counts_;
};

}  // namespace cumulus
