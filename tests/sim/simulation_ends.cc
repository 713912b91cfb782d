// Simulation: how a life ends: killed, cut off, closed, lost, taken over, restored from an older copy.
#include <algorithm>
#include <cstdio>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "tests/sim/simulation.h"

namespace cumulus {
namespace {

constexpr Duration kWrittenAfter = std::chrono::milliseconds(100);  // SEMANTICS: what a killed daemon keeps

// A commit and its way to the miners, in a home that was taken over.
Task<Status> write_and_sync(Volume& volume, ObjectRef object) {
  Transaction transaction;
  transaction.create(object, Bytes{1});
  CO_TRY_OK(co_await volume.commit(std::move(transaction)));
  co_return co_await volume.flush(Durability::remote, {});
}

}  // namespace

// --- how lives end ---

void Simulation::end_life() {
  if (random_.once_in(2))
    if (Violation found = nonces_.look(cluster_, home())) return fail_seed(*found);
  const std::uint64_t how = random_.below(100);
  if (life_over_ || how < 55) {
    end_by_crash(random_.once_in(2));
  } else if (how < 70) {
    end_by_close();
  } else if (how < 80) {
    end_by_loss();
  } else if (how < 90) {
    end_by_takeover();
  } else {
    end_by_restore();
  }
}

std::size_t Simulation::kill_floor() const {
  std::size_t floor = local_floor_;
  while (floor < done_.size() &&
         done_[floor].at + kWrittenAfter < const_cast<Simulation*>(this)->cluster_.world().now())
    ++floor;
  return floor;
}

void Simulation::end_by_crash(bool power) {
  if (!life_over_) {
    // In the middle of whatever it does next.
    cluster_.kill_after(random_.between(1, 4000));
    for (int i = 0; i < 40 && !over() && !life_over_; ++i) act();
    if (over()) return;
    tally_.add("killed in the middle");
  }
  // What waits for room on the disk, or for miners to make room, is not written yet.
  const bool answers = !cluster_.disk_troubled() && cluster_.network_healed();
  const std::size_t floor = power || !answers ? local_floor_ : kill_floor();
  ++crashes_;
  tally_.add(power ? "power cut" : "killed");
  tell(power ? "power cut" : "kill -9");
  if (Violation found = nonces_.look(cluster_, home())) return fail_seed(*found);
  const LogPosition index_at = home().engine->position;
  const NewestSegment newest = NewestSegment::of(cluster_, home());
  cluster_.kill(home(), power);
  if (newest.torn(cluster_, home())) tally_.add("torn tail cut");
  if (removes_segment_) remove_locally();
  home_replaced_ = false;
  open_and_check(Opening::open, OpenMode::read_write, floor);
  // R1: what the index made durable, the log on the disk had. Rot takes the log away afterwards.
  if (!over() && !home().rotten && !home_replaced_ && index_at > recovered_)
    fail_seed(format("the durable index is at {}, past the recovered log at {}", index_at, recovered_));
}

void Simulation::remove_locally() {
  const std::string path = newest_stored(cluster_, home(), segments_stored());
  if (path.empty() || !home().disk->lose(path)) return;
  tell("local segment removed: " + path);
  tally_.add("local segment removed");
  home().rotten = true;
}

void Simulation::end_by_close() {
  const auto answer = std::make_shared<std::optional<Status>>();
  const auto body = [](Volume& at, std::shared_ptr<std::optional<Status>> into) -> Task<void> {
    into->emplace(co_await at.close());
  };
  if (random_.once_in(2)) flush(Durability::remote);
  if (over() || life_over_) return end_by_crash(false);
  tell("close");
  if (!run(body(volume(), answer), "close")) return;
  if (!**answer && !excused((*answer)->error()))
    return fail_seed("close failed: " + (*answer)->error().message());
  if (!**answer) return end_by_crash(false);
  tally_.add("closed");
  invariants();
  const std::size_t all = states_.size() - 1;
  local_floor_ = all;
  cluster_.kill(home(), random_.once_in(2));
  if (!random_.once_in(3) || !holders_.newest() || !holders_.newest()->closed_cleanly)
    return open_and_check(Opening::open, OpenMode::read_write, all);
  // Closed cleanly: another home may take over without force, and finds everything.
  cluster_.heal();
  active_ = 1 - active_;
  tell("moved to " + home().name);
  tally_.add("moved after a clean close");
  const bool known = !home().disk->files().empty();
  open_and_check(known ? Opening::open : Opening::recover, OpenMode::read_write, all);
}

void Simulation::end_by_loss() {
  tell("machine lost");
  tally_.add("machine lost");
  ++crashes_;
  cluster_.replace(home());
  copy_.reset();
  local_floor_ = remote_floor_;
  open_and_check(Opening::recover, OpenMode::steal, remote_floor_);
}

void Simulation::end_by_takeover() {
  const std::size_t old = active_;
  const std::size_t other = 1 - active_;
  cluster_.heal();
  if (cluster_.home(other).machine != nullptr) cluster_.kill(cluster_.home(other), false);
  const bool known = !cluster_.home(other).disk->files().empty();
  const Opening opening = known ? Opening::open : Opening::recover;
  active_ = other;
  cluster_.start(home());
  const Status refused = open_once(home(), opening, OpenMode::read_write);
  if (over()) return;
  if (refused) return fail_seed("a second home was opened beside the first");
  if (refused.error().kind() != ErrorKind::fenced && !excused(refused.error()))
    return fail_seed("a second home was refused for a wrong reason: " + refused.error().message());
  if (refused.error().kind() == ErrorKind::fenced) tally_.add("second home refused");
  cluster_.kill(home(), false);
  tell("taken over by " + home().name);
  tally_.add("taken over");
  local_floor_ = remote_floor_;
  in_flight_.reset();
  open_and_check(opening, OpenMode::steal, remote_floor_);
  if (over()) return;
  // The first home can no longer make anything Remote.
  active_ = old;
  const DatasetInfo* info =
      volume().datasets().empty() ? nullptr : volume().find_dataset(volume().datasets().front().id);
  if (info != nullptr) {
    const auto id = volume().allocate_object(info->id);
    const auto answer = std::make_shared<std::optional<Status>>();
    const auto body = [](Volume& at, ObjectRef object,
                         std::shared_ptr<std::optional<Status>> into) -> Task<void> {
      into->emplace(co_await write_and_sync(at, object));
    };
    if (!id) return fail_seed("no object id: " + id.error().message());
    if (!run(body(volume(), {info->id, *id}, answer), "sync of a fenced home")) return;
    if (**answer) return fail_seed("a fenced home made something Remote");
    tally_.add("old writer stopped");
  }
  invariants();
  cluster_.kill(home(), false);
  active_ = other;
}

void Simulation::end_by_restore() {
  if (!copy_) return end_by_crash(true);
  tell("older copy of the disk restored");
  tally_.add("older copy restored");
  ++crashes_;
  cluster_.heal();
  cluster_.restore(home(), copy_->image);
  copy_.reset();
  local_floor_ = remote_floor_;
  cluster_.start(home());
  const Status opened = open_once(home(), Opening::open, OpenMode::read_write);
  if (over()) return;
  if (opened) {
    tally_.add("older copy opened");
    return check_recovered(remote_floor_, true);
  }
  tell("refused: " + opened.error().message());
  if (opened.error().kind() != ErrorKind::fenced && opened.error().kind() != ErrorKind::not_found &&
      !excused(opened.error()))
    return fail_seed("an older copy was refused for a wrong reason: " + opened.error().message());
  tally_.add("older copy refused");
  cluster_.kill(home(), false);
  const bool known = opened.error().kind() != ErrorKind::not_found;
  open_and_check(known ? Opening::open : Opening::recover, OpenMode::steal, remote_floor_);
}

}  // namespace cumulus
