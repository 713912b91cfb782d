#include "tests/sim/simulation.h"

#include <algorithm>
#include <cstdio>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "tests/sim/log_lines.h"

namespace cumulus {
namespace {

constexpr std::size_t kStoryMost = 60;
constexpr std::uint64_t kOperationsMost = 10;  // times those asked for: then the seed is hopeless

template <class T>
using Answer = std::shared_ptr<std::optional<Result<T>>>;
template <class T>
Answer<T> make_answer() {
  return std::make_shared<std::optional<Result<T>>>();
}

template <class T>
Task<void> store(Task<Result<T>> task, Answer<T> answer) {
  answer->emplace(co_await std::move(task));
}

// With `flushed`, Local before anybody hears of it: killed in between, it may be there or not.
Task<void> execute(Volume& volume, std::shared_ptr<Operation> operation, Answer<Placement> answer,
                   std::shared_ptr<std::optional<Status>> flushed) {
  answer->emplace(co_await Workload::execute(volume, *operation));
  if (flushed && **answer) flushed->emplace(co_await volume.flush(Durability::local, {}));
}

Task<void> open_volume(VolumeParts parts, VolumeShape shape, VolumeOptions options, int opening,
                       OpenMode mode, Answer<std::unique_ptr<Volume>> answer) {
  if (opening == 0) answer->emplace(co_await Volume::create(std::move(parts), shape, options));
  if (opening == 1) answer->emplace(co_await Volume::open(std::move(parts), options, mode));
  if (opening == 2) answer->emplace(co_await Volume::recover(std::move(parts), options, mode, false, {}));
}

Task<void> sleep_for(SimProcess& process, Duration duration) { co_await process.sleep_for(duration); }

Task<void> compare_all(Volume& volume, std::shared_ptr<const StoreModel> model, SeededRandom& random,
                       std::shared_ptr<Comparison> into) {
  *into = co_await compare_volume(volume, *model, random);
}

Task<void> compare_one(Volume& volume, View view, ObjectId id, ModelObjectPtr expected, std::string where,
                       std::shared_ptr<Comparison> into) {
  *into = co_await compare_object(volume, std::move(view), id, expected.get(), std::move(where));
}

}  // namespace

Simulation::Simulation(SimulationOptions options)
    : options_(options),
      cluster_(options.seed, options.canary),
      random_(cluster_.random()),
      workload_(cluster_.random()),
      tally_(all_names()),
      set_aside_before_(log_lines_with(lines::kSetAside)),
      given_up_before_(log_lines_with(lines::kGivenUp)),
      freed_before_(log_lines_with(lines::kSegmentFreed)) {}

void Simulation::tell(std::string what) {
  what =
      format("{:9.3f} ", std::chrono::duration<double>(cluster_.world().now().time_since_epoch()).count()) +
      what;
  if (options_.tell) std::printf("%s\n", what.c_str());
  story_.push_back(std::move(what));
  if (story_.size() > kStoryMost) story_.erase(story_.begin());
}

void Simulation::fail_seed(std::string what) {
  tell("VIOLATION: " + what);
  if (!violation_) violation_ = std::move(what);
}

bool Simulation::run(Task<void> task, const std::string& what) {
  const Ended ended = cluster_.run(home(), std::move(task));
  if (ended == Ended::stuck) fail_seed("never ends: " + what + describe_stuck());
  if (ended == Ended::killed) life_over_ = true;
  return ended == Ended::done;
}

// What the volume says of itself when it stopped answering.
std::string Simulation::describe_stuck() {
  if (home().machine == nullptr || home().machine->volume == nullptr) return "";
  const auto answer = make_answer<VolumeStatus>();
  if (cluster_.run(home(), store(volume().status(false), answer)) != Ended::done || !**answer) return "";
  const VolumeStatus& status = ***answer;
  return format(" (accepted {}, written {}, durable {}, remote {}, {} bytes dirty, tail {}, cache {}, {})",
                status.accepted, status.written, status.durable, status.remote, status.dirty,
                status.tail.through.sequence, status.cache_bytes, status.read_only_reason);
}

bool Simulation::excused(const Error& error) {
  switch (error.kind()) {
    case ErrorKind::io:
    case ErrorKind::no_space:
      return cluster_.disk_troubled();
    case ErrorKind::unavailable:
      return !cluster_.network_healed() || !all_readable(cluster_, home(), true);
    case ErrorKind::corrupt:
      return home().rotten || !all_readable(cluster_, home(), false);
    default:
      return false;
  }
}

// --- the story ---

void Simulation::run() {
  tell(format("seed {}: {}+{}, {} miners, {} of them may fail", options_.seed, cluster_.shape().k,
              cluster_.shape().m, cluster_.network().size(), cluster_.bad_miners().size()));
  states_.emplace_back();
  first_life();
  while (!over() && operations_ < options_.operations * kOperationsMost &&
         (operations_ < options_.operations || crashes_ < options_.crashes ||
          segments_stored() < options_.segments)) {
    live();
    if (!over()) end_life();
  }
  if (!over()) last_check();
  if (!over()) check_extent();
  count_everything();
}

void Simulation::first_life() {
  cluster_.start(home());
  const Status made = open_once(home(), Opening::create, OpenMode::read_write);
  if (!made) fail_seed("the volume cannot be made: " + made.error().message());
}

void Simulation::live() {
  life_over_ = removes_segment_ = false;
  cluster_.forget_disk_trouble();
  const std::uint64_t actions = random_.between(30, 200);
  for (std::uint64_t i = 0; i < actions && !over() && !life_over_; ++i) act();
}

void Simulation::act() {
  const std::uint64_t what = random_.below(100);
  if (what < 66) {
    write_something();
  } else if (what < 78) {
    read_something();
  } else if (what < 84) {
    flush(Durability::local);
  } else if (what < 87) {
    flush(Durability::remote);
  } else if (what < 91) {
    look_after();
  } else if (what < 93) {
    run(sleep_for(*home().machine->process, std::chrono::milliseconds(random_.below(20'000))), "sleep");
  } else {
    change_faults();
  }
  invariants();
}

void Simulation::write_something() {
  const auto operation = std::make_shared<Operation>(workload_.plan(volume(), states_.back()));
  const auto answer = make_answer<Placement>();
  const auto flushed = random_.once_in(6) ? std::make_shared<std::optional<Status>>() : nullptr;
  in_flight_ = operation->after;
  tell(operation->what + (flushed ? ", flushed" : ""));
  ++operations_;
  if (!run(execute(volume(), operation, answer, flushed), operation->what)) return;
  if (const Result<Placement>& done = **answer; done) {
    states_.push_back(std::move(operation->after));
    done_.push_back({*done, cluster_.world().now(), operation->what});
    in_flight_.reset();
    if (flushed) note_flushed(**flushed, "flush", states_.size() - 1);
  } else if (excused(done.error())) {
    tell("refused: " + done.error().message());
    life_over_ = true;
  } else if (!gave_up()) {
    fail_seed(operation->what + " failed: " + done.error().message());
  }
}

// A log that a failing disk ended takes what it never wrote out of view: the model is ahead until the volume
// is opened again.
bool Simulation::gave_up() {
  if (!cluster_.disk_troubled()) return false;
  const auto answer = make_answer<VolumeStatus>();
  if (!run(store(volume().status(false), answer), "status") || !**answer) return false;
  if ((**answer)->read_only_reason.empty()) return false;
  tell("read-only: " + (**answer)->read_only_reason);
  life_over_ = true;
  return true;
}

void Simulation::read_something() {
  const StoreModel& now = states_.back();
  if (now.datasets.empty()) return;
  const auto dataset =
      std::next(now.datasets.begin(), static_cast<std::ptrdiff_t>(random_.below(now.datasets.size())));
  const DatasetInfo* info = volume().find_dataset(dataset->first);
  if (info == nullptr) {
    if (!gave_up()) fail_seed("dataset " + dataset->first + " is missing");
    return;
  }
  View view = info->head;
  const ModelObjects* objects = &dataset->second.head;
  std::string where = dataset->first;
  if (!info->snapshots.empty() && random_.once_in(3)) {
    const SnapshotInfo& snapshot = info->snapshots[random_.below(info->snapshots.size())];
    view = snapshot.view;
    objects = &dataset->second.snapshots.at(snapshot.name);
    where += "@" + snapshot.name;
  }
  if (objects->empty()) return;
  const auto object =
      std::next(objects->begin(), static_cast<std::ptrdiff_t>(random_.below(objects->size())));
  const auto found = std::make_shared<Comparison>();
  if (!run(compare_one(volume(), view, object->first, object->second, where, found), "read")) return;
  if (!found->difference.empty()) {
    if (!gave_up()) fail_seed("wrong: " + found->difference);
    return;
  }
  if (!found->unreadable) return;
  if (!excused(*found->unreadable)) return fail_seed("cannot be read: " + found->unreadable->message());
  tally_.add("read excused");
}

void Simulation::flush(Durability level) {
  const std::size_t floor = states_.size() - 1;
  const auto answer = std::make_shared<std::optional<Status>>();
  const auto body = [](Volume& at, Durability to, std::shared_ptr<std::optional<Status>> into) -> Task<void> {
    into->emplace(co_await at.flush(to, {}));
  };
  const std::string what = level == Durability::local ? "flush" : "sync";
  tell(what);
  if (!run(body(volume(), level, answer), what)) return;
  if (!note_flushed(**answer, what, floor) || level != Durability::remote) return;
  for (std::size_t i = remote_floor_; i < floor; ++i) states_[i] = {};
  remote_floor_ = floor;
  invariants();
  // Later records may be on their way: a quorum, less the holders that may lie, has one that covers it.
  LogPosition needed = 0;
  for (std::size_t i = 0; i < floor; ++i) needed = std::max(needed, done_[i].placement.low);
  if (!over() &&
      holders_covering(cluster_, needed) + cluster_.stale_miners().size() < cluster_.quorum().quorum)
    fail_seed("sync returned before the accepted tail covered what was written");
}

bool Simulation::note_flushed(const Status& status, const std::string& what, std::size_t floor) {
  if (status) {
    local_floor_ = std::max(local_floor_, floor);
    return true;
  }
  if (!excused(status.error())) {
    fail_seed(what + " failed: " + status.error().message());
  } else {
    tell(what + " refused: " + status.error().message());
    life_over_ = true;
  }
  return false;
}

void Simulation::look_after() {
  const auto answer = std::make_shared<std::optional<Status>>();
  const std::uint64_t kind = random_.below(5);
  const auto body = [](Volume& at, std::uint64_t which, VolumeOptions options,
                       std::shared_ptr<std::optional<Status>> into) -> Task<void> {
    Status status;
    if (which == 0) status = co_await at.drop_cache();
    if (which == 1) {
      const auto report = co_await at.check(true, {});
      if (!report) status = fail(report.error());
    }
    if (which == 2) {
      const auto report = co_await at.repair({}, {});
      if (!report) status = fail(report.error());
    }
    if (which == 3) {
      const auto report = co_await at.status(true);
      if (!report) status = fail(report.error());
    }
    if (which == 4) at.set_options(options);
    into->emplace(std::move(status));
  };
  constexpr const char* kNames[] = {"drop cache", "check", "repair", "status", "set options"};
  tell(kNames[kind]);
  VolumeOptions options = cluster_.options();
  options.pushes_in_flight_max = home().options.pushes_in_flight_max;  // an opening's alone
  if (kind == 4) home().options = options;
  if (!run(body(volume(), kind, options, answer), kNames[kind])) return;
  if (**answer) return;
  if (!excused((*answer)->error()))
    return fail_seed(format("{} failed: {}", kNames[kind], (*answer)->error().message()));
  if ((*answer)->error().kind() == ErrorKind::io) life_over_ = true;
}

void Simulation::change_faults() {
  const std::uint64_t what = random_.below(16);
  if (what < 8) {
    cluster_.worsen(tally_);
  } else if (what < 11) {
    cluster_.ease();
  } else if (what < 13) {
    cluster_.heal();
  } else if (what < 14) {
    cluster_.set_disk_weather(home(), tally_);
  } else if (what < 15) {
    copy_ = Copy{cluster_.copy(home()), states_.size() - 1};
    tell(format("copied the disk at {} operations", copy_->operations));
  } else if (options_.seed % 4 == 0) {
    rot_locally();
  }
}

void Simulation::rot_locally() {
  cluster_.heal();
  flush(Durability::remote);
  if (over() || life_over_) return;
  if (random_.once_in(2)) {
    removes_segment_ = true;  // between two lives: what is open would be written on, and lost
  } else if (home().disk->rot("/segments/")) {
    tell("local rot");
    tally_.add("local rot");
    home().rotten = true;
  }
}

// --- opening ---

Status Simulation::open_once(Home& at, Opening opening, OpenMode mode) {
  const auto answer = make_answer<std::unique_ptr<Volume>>();
  const int how = opening == Opening::create ? 0 : opening == Opening::open ? 1 : 2;
  const std::string what = how == 0 ? "create" : how == 1 ? "open" : "recover";
  tell(what + (mode == OpenMode::steal ? " --steal in " : " in ") + at.name);
  at.options = cluster_.options();
  const LocalCopies before = LocalCopies::of(cluster_, at);
  const std::uint64_t fetches = log_lines_with(lines::kFetchesDamaged);
  tally_.add("two copies of a segment opened", before.doubled(segments_stored()));
  if (!run(open_volume(cluster_.parts(at), cluster_.shape(), at.options, how, mode, answer), what)) {
    // Killed as it came up: the machine's end is the volume's.
    if (*answer && **answer) at.machine->volume = std::move(***answer);
    return fail(ErrorKind::closed, "killed");
  }
  if (!**answer) return fail((*answer)->error());
  at.machine->volume = std::move(***answer);
  if (opening == Opening::open) count_opening(before, fetches);
  return {};
}

// More slices of a segment are gone than its code allows: a violation, unless it was crowded.
void Simulation::end_beyond_repair(const std::string& what) {
  if (!crowded_ones_are_lost(cluster_)) return fail_seed(what);
  beyond_repair_ = true;
  tell("beyond repair: " + what);
}

void Simulation::open_and_check(Opening opening, OpenMode mode, std::size_t floor) {
  bool interrupt = random_.once_in(5);
  // One that failed may have recovered less and written notes of its own at the positions of what it cut off.
  bool opened_before = false;
  for (int attempt = 0; !over(); ++attempt, opened_before = true) {
    if (attempt == 8) return fail_seed("the volume cannot be opened");
    cluster_.start(home());
    if (interrupt) cluster_.kill_after(random_.between(1, 3000));
    const Status opened = open_once(home(), opening, mode);
    cluster_.kill_after(0);
    if (over()) return;
    if (opened) return check_recovered(floor, !opened_before);
    const Error& error = opened.error();
    tell("not opened: " + error.message());
    const bool power = random_.once_in(2);
    cluster_.kill(home(), power);
    if (interrupt && error.kind() == ErrorKind::closed) {
      tally_.add("crashed while opening");
      ++crashes_;
      interrupt = random_.once_in(3);
      if (power) floor = std::min(floor, local_floor_);
      // Its ballot may be the newest by now: the next attempt is the same home's.
      --attempt;
      continue;
    }
    tally_.add("opening tried again");
    if (error.message().find("it may hold the newest that was written here") != std::string::npos)
      tally_.add("refused: unreadable copy");
    if (error.kind() == ErrorKind::corrupt && home().rotten) {
      tally_.add("rotten home recovered");
      home_replaced_ = true;
      cluster_.heal();
      cluster_.replace(home());
      copy_.reset();
      opening = Opening::recover;
      mode = OpenMode::steal;
      floor = local_floor_ = remote_floor_;
      continue;
    }
    const bool about_miners = error.kind() == ErrorKind::unavailable || error.kind() == ErrorKind::corrupt;
    const bool lost = !all_readable(cluster_, home(), true) || crowded_ones_are_lost(cluster_);
    if (about_miners && lost && cluster_.network_healed()) return end_beyond_repair(error.message());
    const bool passing = error.kind() == ErrorKind::unavailable || error.kind() == ErrorKind::corrupt ||
                         error.kind() == ErrorKind::io || error.kind() == ErrorKind::no_space;
    if (!passing || (cluster_.network_healed() && !cluster_.disk_troubled()))
      return fail_seed("cannot be opened: " + error.message());
    cluster_.heal();
    cluster_.forget_disk_trouble();
  }
}

void Simulation::check_recovered(std::size_t floor, bool positions_hold) {
  const auto answer = make_answer<VolumeStatus>();
  if (!run(store(volume().status(false), answer), "status")) return;
  if (!**answer) return fail_seed("no status: " + (*answer)->error().message());
  const LogPosition recovered = (**answer)->recovered;
  recovered_ = recovered;
  // What must be there by its position, and what may be.
  std::size_t least = 0;
  std::size_t most = 0;
  while (least < done_.size() && done_[least].placement.high <= recovered) ++least;
  while (most < done_.size() && done_[most].placement.low <= recovered) ++most;
  tell(format("recovered to {}: {} to {} of {} operations, at least {} promised", recovered, least, most,
              done_.size(), floor));
  if (most < floor)
    return fail_seed(format("acknowledged operations are lost: {} of at least {} recovered ({})", most, floor,
                            done_[most].what));
  std::string first;
  const bool unknown = in_flight_.has_value() && most == done_.size();
  const std::size_t from = std::max(least, floor);
  std::vector<std::size_t> candidates;
  // Objects that a state does not know yet are not looked for: the one that may be there comes first.
  if (unknown) candidates.push_back(most + 1);
  for (std::size_t n = from; n <= most; ++n) candidates.push_back(n);
  // The longest of them first, too.
  for (std::size_t n = from; !positions_hold && n > floor; --n) candidates.push_back(n - 1);
  for (std::size_t at = 0; at < candidates.size(); ++at) {
    const std::size_t n = candidates[at];
    const bool with_unknown = n == done_.size() + 1;
    const auto model = std::make_shared<const StoreModel>(with_unknown ? *in_flight_ : states_[n]);
    const auto found = std::make_shared<Comparison>();
    const bool troubled = !cluster_.network_healed();  // it may heal meanwhile
    if (!run(compare_all(volume(), model, random_, found), "comparing")) return;
    if (found->unreadable && (troubled || !cluster_.network_healed())) {
      cluster_.heal();
      --at;
      continue;
    }
    if (found->unreadable && found->unreadable->kind() == ErrorKind::io && cluster_.disk_troubled()) {
      cluster_.heal();  // what has not reached the miners is on this disk alone
      cluster_.forget_disk_trouble();
      --at;
      continue;
    }
    if (found->unreadable) {
      if (home().rotten && found->unreadable->kind() == ErrorKind::corrupt) {
        tally_.add("rotten home recovered");
        home_replaced_ = true;
        cluster_.replace(home());
        copy_.reset();
        local_floor_ = remote_floor_;
        return open_and_check(Opening::recover, OpenMode::steal, remote_floor_);
      }
      return end_beyond_repair("cannot be read: " + found->unreadable->message());
    }
    if (!found->same()) {
      if (first.empty()) first = found->difference;
      continue;
    }
    if (in_flight_)
      tally_.add(with_unknown ? "operation outcome unknown, kept" : "operation outcome unknown, lost");
    if (n < done_.size()) tally_.add("unacknowledged operations lost", done_.size() - n);
    if (with_unknown) {
      states_.push_back(std::move(*in_flight_));
      done_.push_back({{recovered, recovered}, cluster_.world().now(), "outcome unknown"});
    } else {
      states_.resize(n + 1);
      done_.resize(n);
    }
    in_flight_.reset();
    local_floor_ = n;
    remote_floor_ = std::min(remote_floor_, n);
    if (copy_ && copy_->operations > n) copy_.reset();
    return;
  }
  fail_seed("the recovered state is no prefix of what was accepted: " + first);
}

// --- the end ---

void Simulation::repair_all() {
  const auto answer = make_answer<RepairReport>();
  // Everything: a run that was interrupted earlier would go on where it was, past what was lost since.
  if (!run(store(volume().repair({.restart = true}, {}), answer), "repair")) return;
  if (!**answer) return fail_seed("repair failed: " + (*answer)->error().message());
  for (const std::string& problem : (**answer)->problems) tell("repair says: " + problem);
  if ((**answer)->unrepairable != 0)
    return end_beyond_repair(format("{} segments were not repaired", (**answer)->unrepairable));
  tally_.add("repaired", (**answer)->rebuilt);
}

void Simulation::last_check() {
  life_over_ = false;
  cluster_.heal();
  tell("the last check");
  flush(Durability::remote);
  if (life_over_ && !over()) {
    end_by_crash(false);
    life_over_ = false;
    if (!over()) flush(Durability::remote);
  }
  if (over()) return;
  for (std::size_t i = 0; i < cluster_.network().size(); ++i) cluster_.network().miner(i).scrub();
  repair_all();
  if (over()) return;
  const auto dropped = std::make_shared<std::optional<Status>>();
  const auto body = [](Volume& at, std::shared_ptr<std::optional<Status>> into) -> Task<void> {
    into->emplace(co_await at.drop_cache());
  };
  if (!run(body(volume(), dropped), "drop cache")) return;
  const auto report = make_answer<CheckReport>();
  if (!run(store(volume().check(true, {}), report), "check")) return;
  if (!**report) return fail_seed("check failed: " + (*report)->error().message());
  for (const std::string& problem : (**report)->problems) tell("check says: " + problem);
  if (!(**report)->clean() && gave_up()) {
    end_by_crash(false);
    return over() ? void() : last_check();
  }
  if (!(**report)->clean())
    return fail_seed(format("check after repair: {} missing, {} wrong, {}", (**report)->slices_missing,
                            (**report)->slices_wrong,
                            (**report)->problems.empty() ? "" : (**report)->problems.front()));
  flush(Durability::remote);
  if (over()) return;
  if (holders_.newest())
    if (Violation found = check_tail(cluster_, *holders_.newest())) return fail_seed(*found);
  if (Violation found = nonces_.look(cluster_, home())) return fail_seed(*found);
  // Everything again on an empty machine, with as many miners dead as may be.
  cluster_.kill(home(), false);
  cluster_.replace(cluster_.home(1 - active_));
  active_ = 1 - active_;
  // Unless a late segment was crowded: miners that had just come back were not asked yet.
  const bool may_die = cluster_.shape().m > 0 && cluster_.stale_miners().empty() &&
                       cluster_.quorum().may_be_away() >= cluster_.bad_miners().size() &&
                       good_miners_suffice(cluster_);
  if (may_die)
    for (const std::size_t miner : cluster_.bad_miners()) cluster_.network().kill(miner);
  local_floor_ = remote_floor_;
  open_and_check(Opening::recover, OpenMode::steal, remote_floor_);
}

}  // namespace cumulus
