#include "tests/model/block_history.h"

#include <algorithm>

#include "blockdev/images.h"
#include "objectstore/base/format.h"

namespace cumulus {
namespace {

CrashHistoryPlan plan(bool tell) {
  CrashHistoryPlan plan;
  plan.lives = 16;
  plan.first_groups = 4;
  plan.actions_least = 5;
  plan.actions_most = 60;
  plan.more_actions = 200;
  plan.one_opening_killed_of = 3;
  plan.opening_steps = 400;
  plan.names_of_own_counts = {"requests",
                              "flushes",
                              "writes with FUA",
                              "snapshots",
                              "clones",
                              "resizes",
                              "rollbacks",
                              "flattened",
                              "images and snapshots removed",
                              "refused: a clone stands on it",
                              "homes lost",
                              "unanswered requests kept",
                              "requests lost"};
  plan.tell = tell;
  return plan;
}

}  // namespace

BlockHistory::BlockHistory(std::uint64_t seed, BlockCanary canary, bool tell)
    : CrashHistory(seed, plan(tell)), canary_(canary) {
  if (random_.once_in(3)) volume_options_.flush_means = Durability::remote;
}

void BlockHistory::Floor::raise(const Floor& other) {
  if (other.step > step)
    *this = other;
  else if (other.step == step)
    must |= other.must;
}

void BlockHistory::may_be_lost() {
  if (!died_) {
    kill_floor_ = floor_;
    for (std::size_t step = steps_.size(); step-- > 0;) {
      if (steps_[step].reached > world_->now() - kKillMay) continue;
      kill_floor_.raise({step, steps_[step].all});
      break;
    }
  }
  if (life_.death == Death::home_lost) {
    floor_ = *remote_floor_;
    count(BlockCount::homes_lost);
  }
  if (life_.death != Death::kill) kill_floor_ = floor_;
}

void BlockHistory::create() {
  start_machine();
  const auto body = [](BlockHistory& self, std::uint64_t size) -> Task<Status> {
    CO_TRY_OK(co_await self.create_volume());
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

void BlockHistory::live() {
  CrashHistory::live();
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
  if (what < 96) return sleep(std::chrono::milliseconds(below(1'500)));
  const bool remote = random_.once_in(2);
  if (!remote) {
    run_status(machine_->volume->drop_cache(), "drop_cache");
  } else if (run_status(machine_->volume->flush(Durability::remote, {}), "sync")) {
    all_is_durable();
    remote_floor_ = floor_;
  }
}

Task<Status> BlockHistory::detach() {
  devices().clear();
  co_return Status();
}

void BlockHistory::compare() {
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
}

// What is said about holes and changes, of one disk.
void BlockHistory::check_honesty() {
  const std::string image = any_image();
  for (const auto& [snapshot, bytes] : now().images.at(image).snapshots)
    if (!run_status(look_at(image, snapshot, bytes), "what changed")) return;
  run_status(look_at(image, "", now().images.at(image).head), "what is allocated");
}

void BlockHistory::end() {
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
