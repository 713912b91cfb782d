// BlockHistory: one seed's story of disks on a machine that dies again and again. Requests go a few at a
// time, each on a connection of its own, to the disks and to the model; every death ends in a comparison of
// all disks and snapshots with the states that the model can have gone through: a prefix of what was
// accepted, and nothing missing that a FLUSH or FUA was answered for. Virtual time, one thread; everything
// follows from the seed. Never destroyed: a kill runs no destructors (tests/fakes/sim_runtime.h).
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "blockdev/block_device.h"
#include "objectstore/crypto/key_tree.h"
#include "tests/fakes/map_engine.h"
#include "tests/fakes/sim_disk.h"
#include "tests/fakes/sim_network.h"
#include "tests/fakes/sim_runtime.h"
#include "tests/model/block_model.h"

namespace cumulus {

// What is broken on purpose, to show that the comparison sees it.
enum class BlockCanary : std::uint8_t { none, flush_forgotten, fua_forgotten };

struct BlockHistoryOptions {
  std::uint64_t lives = 16;
  BlockCanary canary = BlockCanary::none;
  bool tell = false;
};

enum class BlockCount : std::uint8_t {
  requests,
  flushes,
  fua,
  snapshots,
  clones,
  resizes,
  rollbacks,
  flattened,
  removed,
  refused,
  power_cuts,
  kills,
  homes_lost,
  closed,
  at_group,
  in_the_middle,
  unanswered_kept,
  requests_lost,
  killed_opening,
  count
};
inline constexpr std::array<const char*, static_cast<std::size_t>(BlockCount::count)> kBlockCountNames = {
    "requests",
    "flushes",
    "writes with FUA",
    "snapshots",
    "clones",
    "resizes",
    "rollbacks",
    "flattened",
    "images and snapshots removed",
    "refused: a clone stands on it",
    "power cuts",
    "kills",
    "homes lost",
    "closed",
    "at a group's border",
    "in the middle of requests",
    "unanswered requests kept",
    "requests lost",
    "killed while opening"};
using BlockCounts = std::array<std::uint64_t, static_cast<std::size_t>(BlockCount::count)>;

class BlockHistory {
 public:
  BlockHistory(std::uint64_t seed, BlockHistoryOptions options);
  // What went wrong, with the end of the story; empty: nothing.
  std::string run();
  const BlockCounts& counts() const { return counts_; }

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
    std::multimap<std::string, std::shared_ptr<BlockDevice>> devices;  // some opened long ago
  };
  enum class Death : std::uint8_t { kill, power, home_lost };
  struct Life {                // when this one ends by force
    std::uint64_t groups = 0;  // written until then
    std::uint64_t steps = 0;
    std::uint64_t steps_after_group = 0;
    Death death = Death::kill;
  };
  // What the disks can have been. A step is what was sent at once; of the requests of its step, a state
  // includes some.
  struct State {
    BlockModel model;
    std::size_t step = 0;
    unsigned includes = 0;
  };
  struct Step {
    TimePoint reached;
    unsigned all = 0;
  };
  struct Floor {
    std::size_t step = 0;
    unsigned must = 0;  // of the step's requests
    bool allows(const State& state) const {
      return state.step > step || (state.step == step && (state.includes & must) == must);
    }
    void raise(const Floor& other);
  };
  // A request that was sent; the answer is there or is not.
  struct Sent {
    BlockRequest request;
    bool durable = false;
    bool refused = false;
    std::string trouble;
  };
  using SentPtr = std::shared_ptr<Sent>;
  using Order = std::vector<std::size_t>;  // places in sent_
  // What a disk or a snapshot said after the answers.
  struct Probe {
    std::string image;
    std::string snapshot;
    std::uint64_t offset = 0;
    Bytes bytes;
  };

  // --- the machine ---
  void start_machine();
  VolumeParts parts();
  bool run(Task<void> task, const std::string& what);  // false: it was killed, or the story is over
  void die();
  bool over() const { return !failure_.empty(); }
  void fail_story(const std::string& what);
  void tell(std::string what);
  void count(BlockCount what, std::uint64_t amount = 1) { counts_[static_cast<std::size_t>(what)] += amount; }

  // --- the story ---
  void create();
  void live();
  void act();
  void close_cleanly();
  bool open_somehow();
  bool open_again(bool from_miners);
  void revive();
  void settle_on(BlockModel found);
  void adopt(BlockModel found);
  bool run_status(Task<Status> task, const std::string& what);
  void check_honesty();
  void care();

  // --- requests ---
  void send(std::vector<BlockRequest> requests);
  Task<void> carry_out(SentPtr sent);
  Task<void> change(SentPtr sent);
  Task<Status> care_for(const BlockRequest& request);
  Task<Status> flatten(const std::string& image);
  Task<Status> resize(const BlockRequest& request);
  Task<Result<std::shared_ptr<BlockDevice>>> device(std::string image);
  void take_answers();
  void count_request(const Sent& sent);
  bool probe(std::vector<Probe>& probes);
  std::vector<Order> orders(bool whole) const;
  void add_states(const std::vector<Order>& orders);
  BlockModel after(const Order& order) const;
  Task<Status> read_all(std::shared_ptr<BlockModel> into);
  Task<Status> look_at(std::string image, std::string snapshot, std::shared_ptr<const Bytes> bytes);
  DatasetId id_of(const std::string& image) const { return machine_->volume->find_dataset(image)->id; }

  // --- draws ---
  const BlockModel& now() const { return states_.back().model; }
  std::uint64_t below(std::uint64_t most) { return random_.below(most); }
  std::string any_image();
  BlockRequest draw_change();
  std::optional<BlockRequest> draw_care();
  BlockRequest draw_snapshot();

  const BlockHistoryOptions options_;
  std::unique_ptr<SimWorld> world_;
  SeededRandom random_;
  KeyTree keys_;
  SimDisk disk_;
  std::shared_ptr<MapEngineDisk> engine_ = std::make_shared<MapEngineDisk>();
  std::unique_ptr<SimNetwork> network_;
  VolumeOptions volume_options_;
  Machine* machine_ = nullptr;
  Life life_;
  bool killed_ = false;
  bool died_ = false;  // and is not alive again

  std::vector<State> states_;  // since the last death; the last one: all that was answered
  std::vector<Step> steps_;
  std::vector<SentPtr> sent_;  // the step under way
  Floor floor_;                // durable
  Floor kill_floor_;
  std::optional<Floor> remote_floor_;  // on the miners
  std::uint64_t next_name_ = 1;

  std::string failure_;
  std::vector<std::string> story_;
  BlockCounts counts_{};
};

}  // namespace cumulus
