// BlockHistory: the story of disks on a machine that dies again and again (crash_history.h). Requests go a
// few at a time, each on a connection of its own, to the disks and to the model; every death ends in a
// comparison of all disks and snapshots with the states that the model can have gone through: a prefix of
// what was accepted, and nothing missing that a FLUSH or FUA was answered for.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "blockdev/block_device.h"
#include "tests/model/block_model.h"
#include "tests/model/crash_history.h"

namespace cumulus {

// What is broken on purpose, to show that the comparison sees it.
enum class BlockCanary : std::uint8_t { none, flush_forgotten, fua_forgotten };

enum class BlockCount : std::uint8_t {
  requests = static_cast<std::uint8_t>(CrashCount::count),
  flushes,
  fua,
  snapshots,
  clones,
  resizes,
  rollbacks,
  flattened,
  removed,
  refused,
  homes_lost,
  unanswered_kept,
  requests_lost
};

class BlockHistory final : public CrashHistory {
 public:
  BlockHistory(std::uint64_t seed, BlockCanary canary, bool tell);

 private:
  using Devices = std::multimap<std::string, std::shared_ptr<BlockDevice>>;  // some opened long ago
  struct Attached : Machine {
    Devices devices;
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

  Machine* new_machine() const override { return new Attached; }
  Devices& devices() { return static_cast<Attached*>(machine_)->devices; }

  // --- the story ---
  void create() override;
  void live() override;
  void act() override;
  Task<Status> attach() override { co_return Status(); }
  void compare() override;
  Task<Status> detach() override;
  void all_is_durable() override { floor_.raise({steps_.size() - 1, steps_.back().all}); }
  void may_be_lost() override;
  void end() override;  // with a check of everything
  void settle_on(BlockModel found);
  void adopt(BlockModel found);
  void check_honesty();

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
  std::string any_image();
  BlockRequest draw_change();
  std::optional<BlockRequest> draw_care();
  BlockRequest draw_snapshot();

  const BlockCanary canary_;
  std::vector<State> states_;  // since the last death; the last one: all that was answered
  std::vector<Step> steps_;
  std::vector<SentPtr> sent_;  // the step under way
  Floor floor_;                // durable
  Floor kill_floor_;
  std::optional<Floor> remote_floor_;  // on the miners
  std::uint64_t next_name_ = 1;
};

}  // namespace cumulus
