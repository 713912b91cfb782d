// FsHistory: one seed's story of a file system on a machine that dies again and again. Calls go one at a time
// to the file system and to the model, and must have the same outcome; every death ends in a comparison of
// what is left with the states that the model went through. Virtual time, one thread; everything follows from
// the seed. Never destroyed: a kill runs no destructors (tests/fakes/sim_runtime.h).
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "objectstore/crypto/key_tree.h"
#include "tests/fakes/map_engine.h"
#include "tests/fakes/sim_disk.h"
#include "tests/fakes/sim_network.h"
#include "tests/fakes/sim_runtime.h"
#include "tests/model/fs_model.h"
#include "tests/model/fs_walk.h"

namespace cumulus {

// What is broken on purpose, to show that the checkers see it.
enum class FsCanary : std::uint8_t { none, fsync_forgotten, link_uncounted, orphan_forgotten };

struct FsHistoryOptions {
  std::uint64_t lives = 30;
  FsCanary canary = FsCanary::none;
  bool tell = false;
};

enum class FsCount : std::uint8_t {
  operations,
  refused,
  power_cuts,
  kills,
  at_group,
  in_the_middle,
  in_flight_kept,
  in_flight_lost,
  operations_lost,
  killed_opening,
  closed,
  durable_at_once,
  orphans_swept,
  snapshots_compared,
  rollbacks,
  calls_of_storms,
  count
};
inline constexpr std::array<const char*, static_cast<std::size_t>(FsCount::count)> kFsHistoryCountNames = {
    "operations",
    "refused",
    "power cuts",
    "kills",
    "at a group's border",
    "in the middle of a call",
    "unfinished call kept",
    "unfinished call lost",
    "calls lost",
    "killed while opening",
    "closed",
    "durable at once",
    "orphans of a crash",
    "snapshots compared",
    "rolled back",
    "calls of many at once"};
using FsHistoryCounts = std::array<std::uint64_t, static_cast<std::size_t>(FsCount::count)>;

class FsHistory {
 public:
  FsHistory(std::uint64_t seed, FsHistoryOptions options);
  // What went wrong, with the end of the story; empty: nothing.
  std::string run();
  const FsHistoryCounts& counts() const { return counts_; }

 private:
  // One life of the daemon. Never destroyed.
  struct Machine {
    SimProcess* process = nullptr;
    std::unique_ptr<SimFileSystem> disk;
    std::unique_ptr<FakeTransport> transport;
    Metrics metrics;
    Counter* written = nullptr;  // bytes of the log: changes when a group has been written
    std::uint64_t written_seen = 0;
    std::unique_ptr<Volume> volume;
    std::unique_ptr<PosixFileSystem> files;
  };
  struct OpenFile {
    ModelId node = 0;
    HandleId handle = 0;
    bool sync = false;
  };
  struct Answer {
    std::optional<FsError> error;
    NodeId node = 0;
    HandleId handle = 0;
  };
  struct Life {                // when this one ends by force
    std::uint64_t groups = 0;  // written until then
    std::uint64_t steps = 0;
    std::uint64_t steps_after_group = 0;
    bool power = false;
  };

  // --- the machine ---
  Machine& start_machine();
  VolumeParts parts();
  bool run(Task<void> task, const std::string& what);  // false: it was killed, or the story is over
  void die();
  bool over() const { return !failure_.empty(); }
  void fail_story(const std::string& what);
  void tell(std::string what);
  void count(FsCount what, std::uint64_t amount = 1) { counts_[static_cast<std::size_t>(what)] += amount; }

  // --- the story ---
  void create();
  void live();
  void act();
  void close_cleanly();
  void revive();
  bool open_somehow();
  FsWalk walk_all();
  bool open_again(Machine& machine);
  void settle_on(const FsWalk& found);
  void compare_snapshots();
  void check_records(const std::string& snapshot = "");
  void end_in_a_storm();
  void plant_canary();
  void adopt(std::size_t state, const FsWalk& found);

  // --- calls ---
  void operate();
  bool prepare(FsOperation& operation);
  Task<void> execute(FsOperation operation, std::shared_ptr<Answer> answer);
  Task<void> execute_on_names(FsOperation operation, std::shared_ptr<Answer> answer);
  Task<void> execute_on_data(FsOperation operation, std::shared_ptr<Answer> answer);
  Task<void> execute_on_snapshots(FsOperation operation, std::shared_ptr<Answer> answer);
  void judge(const FsOperation& operation, const Answer& answer, const FsModel::Errors& errors, FsModel next);
  void fsync();
  void open_some();
  void release_some();
  void read_some();
  void seek_some();
  void compare_all();
  OpenFile* handle_of(ModelId node);
  bool open_node(ModelId id);  // false when it was cut off
  NodeId real(ModelId node) const { return real_.at(node); }

  // --- draws ---
  const FsModel& now() const { return states_.back(); }
  std::uint64_t below(std::uint64_t most) { return random_.below(most); }
  ModelId any_directory();
  std::optional<ModelId> any_file();
  ModelId any_node();
  std::string any_name(ModelId directory, bool likely_there);
  FsOperation draw();
  void draw_node(FsOperation& operation);
  void draw_name(FsOperation& operation);
  void draw_attributes(FsOperation& operation);
  void draw_data(FsOperation& operation);
  void draw_snapshot(FsOperation& operation);
  std::shared_ptr<const Bytes> some_bytes(std::uint64_t most);

  const FsHistoryOptions options_;
  std::unique_ptr<SimWorld> world_;
  SeededRandom random_;
  KeyTree keys_;
  SimDisk disk_;
  std::shared_ptr<MapEngineDisk> engine_ = std::make_shared<MapEngineDisk>();
  std::unique_ptr<SimNetwork> network_;
  VolumeOptions volume_options_;
  std::uint64_t write_most_ = 200'000;
  Machine* machine_ = nullptr;
  Life life_;
  bool killed_ = false;
  bool died_ = false;         // and is not alive again
  bool synchronous_ = false;  // mounted so
  DatasetId dataset_ = 0;

  std::vector<FsModel> states_;       // after each call since the last death
  std::vector<TimePoint> reached_;    // when the call returned
  std::size_t floor_ = 0;             // of states_: durable
  std::size_t kill_floor_ = 0;        // of states_: not lost while the power stays on
  std::optional<FsModel> in_flight_;  // if the call that was cut off happened
  std::map<ModelId, NodeId> real_;
  std::vector<OpenFile> opened_;
  ModelId next_id_ = FsModel::kRoot + 1;
  std::uint64_t next_snapshot_ = 1;

  std::string failure_;
  std::vector<std::string> story_;
  FsHistoryCounts counts_{};
};

}  // namespace cumulus
