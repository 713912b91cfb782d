// FsHistory: the story of a file system on a machine that dies again and again (crash_history.h). Calls go
// one at a time to the file system and to the model, and must have the same outcome; every death ends in a
// comparison of what is left with the states that the model went through.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/model/crash_history.h"
#include "tests/model/fs_model.h"
#include "tests/model/fs_walk.h"

namespace cumulus {

// What is broken on purpose, to show that the checkers see it.
enum class FsCanary : std::uint8_t { none, fsync_forgotten, link_uncounted, orphan_forgotten };

enum class FsCount : std::uint8_t {
  operations = static_cast<std::uint8_t>(CrashCount::count),
  refused,
  in_flight_kept,
  in_flight_lost,
  operations_lost,
  durable_at_once,
  orphans_swept,
  snapshots_compared,
  rollbacks,
  calls_of_storms
};

class FsHistory final : public CrashHistory {
 public:
  FsHistory(std::uint64_t seed, FsCanary canary, bool tell);

 private:
  struct Mounted : Machine {
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

  Machine* new_machine() const override { return new Mounted; }
  std::unique_ptr<PosixFileSystem>& mounted() { return static_cast<Mounted*>(machine_)->files; }

  // --- the story ---
  void create() override;
  void act() override;
  Task<Status> attach() override;
  Task<Status> mount(FileSystemOptions options);
  void compare() override;
  Task<Status> detach() override;
  void all_is_durable() override { floor_ = states_.size() - 1; }
  void may_be_lost() override;
  void end() override;  // in a storm
  FsWalk walk_all();
  void settle_on(const FsWalk& found);
  void compare_snapshots();
  void check_records(const std::string& snapshot = "");
  Task<Status> plant_canary();
  void adopt(std::size_t state, const FsWalk& found);

  // --- calls ---
  void operate();
  bool prepare(FsOperation& operation);
  Task<void> execute(FsOperation operation, std::shared_ptr<Answer> answer);
  std::optional<FsError> forget_some(const FsResult<NodeId>& lost_name);
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

  const FsCanary canary_;
  std::uint64_t write_most_ = 200'000;
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
};

}  // namespace cumulus
