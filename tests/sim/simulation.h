// Simulation: the story of one seed. A home's daemon lives several lives; in each it works under faults, and
// each ends by a kill, a power cut, a clean close, the loss of the machine, a takeover by the other home, or
// a return to an older copy of its disk. After every life the checkers compare what is left with the model.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/sim/checkers.h"
#include "tests/sim/cluster.h"
#include "tests/sim/local_log.h"
#include "tests/sim/step_checkers.h"
#include "tests/sim/workload.h"

namespace cumulus {

struct SimulationOptions {
  std::uint64_t seed = 1;
  Canary canary = Canary::none;
  std::uint64_t operations = 500;
  std::uint64_t crashes = 3;
  std::uint64_t segments = 4;  // sealed and stored
  std::uint64_t miners = 6;
  bool each_step = true;  // R1 after every step; else after crashes alone, as it shows then
  bool tell = false;      // the story on standard output, as it happens
};

class Simulation {
 public:
  explicit Simulation(SimulationOptions options);

  // Runs to the end or to the first violation.
  void run();
  const Violation& violation() const { return violation_; }
  // More was lost than it could bear, and nothing that was promised: it proves nothing.
  bool beyond_repair() const { return beyond_repair_; }
  const Tally& tally() const { return tally_; }
  // The last things that happened.
  const std::vector<std::string>& story() const { return story_; }
  // Every name that a long run must have counted.
  static Tally all_names();

 private:
  enum class Opening : std::uint8_t { create, open, recover };
  struct Done {
    Placement placement;
    TimePoint at{};
    std::string what;
  };

  // --- lives ---
  void first_life();
  void live();
  void end_life();
  void end_by_crash(bool power);
  void end_by_close();
  void end_by_loss();
  void end_by_takeover();
  void end_by_restore();
  void last_check();

  // --- within a life ---
  void act();
  void write_something();
  void read_something();
  void flush(Durability level);
  // The first `floor` operations are Local now, or it failed; false then.
  bool note_flushed(const Status& status, const std::string& what, std::size_t floor);
  void look_after();  // drop_cache, check, repair, status, options
  void change_faults();
  void rot_locally();
  void remove_locally();
  void repair_all();

  // --- opening and judging ---
  Home& home() { return cluster_.home(active_); }
  Volume& volume() { return *home().machine->volume; }
  Status open_once(Home& home, Opening opening, OpenMode mode);
  // Opens with patience: what faults excuse is tried again without them. Then the state is checked.
  void open_and_check(Opening opening, OpenMode mode, std::size_t floor);
  // At least the first `floor` operations are there; all up to the recovered position when positions hold.
  void check_recovered(std::size_t floor, bool positions_hold);
  void invariants();
  Tail newest_known_tail();
  bool excused(const Error& error);
  bool gave_up();
  void end_beyond_repair(const std::string& what);  // does a fault of this life explain it?
  // Runs in the active home; false when the life is over (killed) or the seed failed.
  bool run(Task<void> task, const std::string& what);
  void fail_seed(std::string what);
  std::string describe_stuck();
  void tell(std::string what);
  bool over() const { return violation_.has_value() || beyond_repair_; }
  std::size_t kill_floor() const;
  std::uint64_t segments_stored() const;
  // How often branches of an opening, of a life and of everything were taken.
  void count_opening(const LocalCopies& before, std::uint64_t fetches_before);
  void count_life(const Machine& machine);
  void count_everything();
  void check_extent();  // was this seed as long as a seed must be?

  SimulationOptions options_;
  Cluster cluster_;
  SeededRandom& random_;
  Workload workload_;
  NonceChecker nonces_;
  HolderChecker holders_;
  IndexChecker index_;
  TailChecker stored_;
  BoundsChecker bounds_;
  std::uint64_t steps_ = 0;
  Tally tally_;
  const std::uint64_t set_aside_before_;  // lines of earlier seeds
  const std::uint64_t given_up_before_;
  const std::uint64_t freed_before_;
  Violation violation_;
  bool home_replaced_ = false;  // its log had rotted: it was recovered from the miners
  bool beyond_repair_ = false;  // more miners failed than crowded segments survive: the story ends
  std::vector<std::string> story_;

  std::size_t active_ = 0;
  // states_[i] is the model after i operations; done_[i] is operation i + 1's.
  std::vector<StoreModel> states_;
  std::vector<Done> done_;
  std::optional<StoreModel> in_flight_;  // of an operation whose outcome is not known
  std::size_t local_floor_ = 0;          // operations that a power cut must keep
  std::size_t remote_floor_ = 0;         // ... and that the loss of the machine must keep
  std::uint64_t operations_ = 0;
  std::uint64_t crashes_ = 0;
  LogPosition recovered_ = 0;     // where the log of the last opened volume ended
  bool life_over_ = false;        // the daemon refuses to go on, with reason: end it
  bool removes_segment_ = false;  // when this life ends by a crash
  struct Copy {
    Cluster::Image image;
    std::size_t operations = 0;
  };
  std::optional<Copy> copy_;
};

}  // namespace cumulus
