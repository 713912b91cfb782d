// Simulation: what is looked at after every step, what is counted, and how long a seed must be.
#include "objectstore/base/format.h"
#include "tests/sim/log_lines.h"
#include "tests/sim/simulation.h"

namespace cumulus {
namespace {

// The nonces of what a disk got are looked at every so many steps: what is there stays for longer.
constexpr std::uint64_t kNoncesEvery = 4;

// What the volume says of itself, without a step of the world: status(false) waits for nothing.
Result<VolumeStatus> status_at_once(Volume& volume) {
  std::optional<Result<VolumeStatus>> answer;
  const auto ask = [](Volume& at, std::optional<Result<VolumeStatus>>& into) -> Task<void> {
    into.emplace(co_await at.status(false));
  };
  run_at_once(ask(volume, answer));
  return std::move(*answer);
}

}  // namespace

Tally Simulation::all_names() {
  Tally names;
  for (const char* name : {"miner killed",
                           "miner silent",
                           "miner slow",
                           "miner full",
                           "miner refuses writes",
                           "miner lies",
                           "holder lies",
                           "miner rots",
                           "miner wiped",
                           "messages lost",
                           "partition",
                           "network down",
                           "disk errors",
                           "disk nearly full",
                           "killed",
                           "power cut",
                           "killed in the middle",
                           "crashed while opening",
                           "closed",
                           "moved after a clean close",
                           "machine lost",
                           "taken over",
                           "second home refused",
                           "old writer stopped",
                           "older copy restored",
                           "older copy refused",
                           "older copy opened",
                           "local rot",
                           "rotten home recovered",
                           "index rebuilt",
                           "opening tried again",
                           "read excused",
                           "repaired",
                           "operation outcome unknown, kept",
                           "operation outcome unknown, lost",
                           "unacknowledged operations lost",
                           "damaged segment read from miners",
                           "local segment removed",
                           "torn tail cut",
                           "unproven segment written again",
                           "segments pushed again",
                           "two copies of a segment opened",
                           "refused: unreadable copy",
                           "superseded home set aside",
                           "segment rescued to another file",
                           "log given up",
                           "cut off segment freed",
                           "read hedged",
                           "read decoded",
                           "wrong answer refused",
                           "local rot read around"})
    names.declare(name);
  for (std::size_t i = 0; i < static_cast<std::size_t>(DiskFault::count); ++i)
    names.declare(std::string(to_string(static_cast<DiskFault>(i))));
  for (std::size_t i = 0; i < static_cast<std::size_t>(SimFault::count); ++i)
    names.declare(std::string(to_string(static_cast<SimFault>(i))));
  return names;
}

// Of any record that an honest holder has, or that a quorum is known to have had: all that it names was
// acknowledged by miners. The records move on between two looks, so that no quorum may be seen with the last.
Tail Simulation::newest_known_tail() {
  Tail newest = holders_.newest() ? holders_.newest()->tail : Tail{};
  for (std::size_t miner = 0; miner < cluster_.network().size(); ++miner) {
    const HolderState* state = cluster_.network().miner(miner).holder_state(cluster_.keys().volume_id());
    if (state == nullptr || !state->accepted || cluster_.stale_miners().contains(miner)) continue;
    if (state->accepted->tail.position > newest.position) newest = state->accepted->tail;
  }
  return newest;
}

void Simulation::invariants() {
  if (over()) return;
  if (Violation found = holders_.look(cluster_)) return fail_seed(*found);
  const Tail accepted = holders_.newest() ? holders_.newest()->tail : Tail{};
  if (Violation found = stored_.look(cluster_, accepted)) return fail_seed(*found);
  const bool has_volume = home().machine != nullptr && home().machine->volume != nullptr;
  if (!has_volume) return;
  if (options_.each_step && !home().rotten)
    if (Violation found = index_.look(cluster_, home(), newest_known_tail())) return fail_seed(*found);
  if (++steps_ % kNoncesEvery == 0)
    if (Violation found = nonces_.look_at_changes(cluster_, home())) return fail_seed(*found);
  if (life_over_) return;  // killed in the middle of a repair, say: not between two steps
  const Result<VolumeStatus> status = status_at_once(volume());
  if (!status) return fail_seed("no status: " + status.error().message());
  if (Violation found = bounds_.look(cluster_, home(), *status, home().options)) return fail_seed(*found);
}

// --- what is counted ---

void Simulation::count_opening(const LocalCopies& before, std::uint64_t fetches_before) {
  const std::uint64_t fetches = log_lines_with(lines::kFetchesDamaged) - fetches_before;
  tally_.add("damaged segment read from miners", fetches);
  if (fetches == 0)
    tally_.add("unproven segment written again", before.moved(LocalCopies::of(cluster_, home())));
  const Result<VolumeStatus> status = status_at_once(volume());
  if (status && status->dirty != 0) tally_.add("segments pushed again");
}

void Simulation::count_life(const Machine& machine) {
  constexpr std::pair<const char*, const char*> kCounters[] = {
      {"cumulus_log_rescues_total", "segment rescued to another file"},
      {"cumulus_read_hedges_total", "read hedged"},
      {"cumulus_read_decodes_total", "read decoded"},
      {"cumulus_read_wrong_answers_total", "wrong answer refused"},
      {"cumulus_cache_rot_total", "local rot read around"}};
  const auto counters = machine.metrics.snapshot();
  for (const auto& [counter, name] : kCounters)
    if (const auto found = counters.find(counter); found != counters.end()) tally_.add(name, found->second);
}

void Simulation::count_everything() {
  for (std::size_t i = 0; i < static_cast<std::size_t>(DiskFault::count); ++i)
    for (std::size_t h = 0; h < 2; ++h)
      tally_.add(std::string(to_string(static_cast<DiskFault>(i))), cluster_.home(h).disk->faults()[i]);
  for (std::size_t i = 0; i < static_cast<std::size_t>(SimFault::count); ++i)
    tally_.add(std::string(to_string(static_cast<SimFault>(i))), cluster_.network().faults()[i]);
  for (const auto& machine : cluster_.machines()) count_life(*machine);
  tally_.add("index rebuilt", cluster_.indexes_rebuilt());
  tally_.add("superseded home set aside", log_lines_with(lines::kSetAside) - set_aside_before_);
  tally_.add("cut off segment freed", log_lines_with(lines::kSegmentFreed) - freed_before_);
  tally_.add("log given up", log_lines_with(lines::kGivenUp) - given_up_before_);
  tally_.add("operations", operations_);
  tally_.add("crashes", crashes_);
  tally_.add("segments stored", segments_stored());
  tally_.add("groups seen", nonces_.groups());
  tally_.add("looks at the durable index", index_.looks());
  tally_.add("looks at a stored segment", stored_.segments());
}

std::uint64_t Simulation::segments_stored() const {
  return holders_.newest() ? holders_.newest()->tail.through.sequence : 0;
}

void Simulation::check_extent() {
  if (operations_ < options_.operations || crashes_ < options_.crashes ||
      segments_stored() < options_.segments || cluster_.network().size() < options_.miners)
    fail_seed(format("the seed proves too little: {} operations, {} crashes, {} segments, {} miners",
                     operations_, crashes_, segments_stored(), cluster_.network().size()));
}

}  // namespace cumulus
