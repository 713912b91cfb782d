// TailKeeper: its door, and the task of each holder. The proposer is in tail_proposer.cc.
#include "objectstore/store/tail_keeper.h"

#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/store/holder_survey.h"
#include "objectstore/store/sealed_label.h"

namespace cumulus {
namespace {

constexpr Duration kDoubtInterval = std::chrono::seconds(5);
constexpr const char* kReadOnlyNow =
    "; this home is read-only now: what it had not stored on the miners can be read until the volume is "
    "closed here, and is set aside in its folder, not deleted, when it is opened again";

bool contains(const std::vector<MinerId>& ids, const MinerId& id) {
  return std::ranges::find(ids, id) != ids.end();
}

}  // namespace

TailKeeper::TailKeeper(Runtime& runtime, SliceTransport& transport, const KeyTree& keys, HomeFile& home,
                       Superblock known, std::vector<MinerEntry> miners, std::string writer, Options options,
                       Metrics& metrics, std::function<void(Error)> on_fenced)
    : runtime_(runtime),
      transport_(transport),
      keys_(keys),
      home_(home),
      options_(std::move(options)),
      writer_(std::move(writer)),
      on_fenced_(std::move(on_fenced)),
      proposals_(metrics.counter("cumulus_superblock_proposals_total")),
      base_(known),
      known_(known),
      accepted_(std::move(known)),
      miners_(std::move(miners)),
      wake_(runtime),
      changed_(runtime),
      tasks_(runtime) {
  intent_.tail = base_.tail;
  intent_.checkpoints = base_.checkpoints;
}

TailKeeper::~TailKeeper() = default;

void TailKeeper::stop_waiting() {
  ++interrupted_;
  changed_.notify_all();
}

Task<void> TailKeeper::close() {
  closing_ = true;
  wake_.notify_all();
  changed_.notify_all();
  co_await tasks_.join();
  if (accepted_.version != 0 && accepted_.ballot == ballot_ && home_.record().seen != accepted_)
    co_await remember();
}

void TailKeeper::begin(Ballot ballot, Adopt adopt) {
  CHECK(state_ == State::idle);
  state_ = State::promising;
  ballot_ = ballot;
  adopt_ = adopt;
  const WriterLabel label{writer_, runtime_.wall_now()};
  sealed_writer_ = seal_writer(keys_, runtime_.random(), label);
  tasks_.spawn(run());
}

void TailKeeper::start(Ballot ballot, Adopt adopt) { begin(ballot, adopt); }

Task<Status> TailKeeper::claim(Ballot ballot, Adopt adopt, Duration patience) {
  begin(ballot, adopt);
  const TimePoint deadline = runtime_.now() + patience;
  while (state_ != State::claimed && !fenced_ && !closing_) {
    const bool woken = co_await changed_.wait_until(deadline);
    if (!woken) break;
  }
  if (fenced_) co_return fail(*fenced_);
  if (closing_) co_return fail(ErrorKind::closed, "the volume is being closed");
  if (state_ != State::claimed) co_return fail(too_few_holders());
  co_return Status();
}

Task<Status> TailKeeper::wait_claimed() {
  while (state_ != State::claimed && !fenced_ && !closing_) co_await changed_.wait();
  if (fenced_) co_return fail(*fenced_);
  if (closing_) co_return fail(ErrorKind::closed, "the volume is being closed");
  co_return Status();
}

Task<Status> TailKeeper::known_at_home() {
  const HomeKnows knows = [this](const Superblock& seen) { return seen.ballot == ballot_; };
  co_return co_await wait_for_home(knows);
}

Task<Status> TailKeeper::wait_for_home(const HomeKnows& knows) {
  const auto known = [this, &knows] {
    const auto& seen = home_.record().seen;
    return seen && knows(*seen);
  };
  while (!known() && !remember_error_ && !fenced_ && !closing_) co_await changed_.wait();
  if (known()) co_return Status();
  if (fenced_) co_return fail(*fenced_);
  if (closing_) co_return fail(ErrorKind::closed, "the volume is being closed");
  co_return fail(*remember_error_);
}

Tail TailKeeper::remote_tail() const {
  if (accepted_.ballot == ballot_) return accepted_.tail;
  const auto& seen = home_.record().seen;
  return seen ? seen->tail : Tail{};
}

void TailKeeper::update(const std::function<void(Intent&)>& change) {
  const Intent before = intent_;
  change(intent_);
  if (intent_ == before) return;
  urgent_revision_ = ++wanted_revision_;
  wake_.notify_all();
}

void TailKeeper::advance(const Tail& tail) {
  if (tail.through.sequence <= intent_.tail.through.sequence) return;
  intent_.tail = tail;
  ++wanted_revision_;
  wake_.notify_all();
}

void TailKeeper::doubt() {
  if (state_ != State::claimed || (doubted_at_ && runtime_.now() < *doubted_at_ + kDoubtInterval)) return;
  doubted_at_ = runtime_.now();
  urgent_revision_ = ++wanted_revision_;
  wake_.notify_all();
}

Task<Status> TailKeeper::cut_back(Tail tail, Duration patience) {
  CHECK(claimed());
  update([&](Intent& intent) {
    intent.tail = tail;
    for (CheckpointRef& checkpoint : intent.checkpoints)
      if (checkpoint.position > tail.position) checkpoint = {};
  });
  CO_TRY_OK(co_await settled(patience));
  // A home that still knew the longer one would take it for the truth while the miners are away.
  const HomeKnows knows = [this](const Superblock& seen) { return seen.tail == accepted_.tail; };
  co_return co_await wait_for_home(knows);
}

TailKeeper::Awaited::Awaited(TailKeeper& keeper, LogPosition position)
    : keeper_(keeper), entry_(keeper.awaited_.insert(position)) {
  keeper_.wake_.notify_all();
}

TailKeeper::Awaited::~Awaited() { keeper_.awaited_.erase(entry_); }

Task<Status> TailKeeper::set_miners(std::vector<MinerEntry> miners, Duration patience) {
  if (miners.empty()) co_return fail(ErrorKind::invalid, "a volume needs at least one miner");
  if (const auto readable = decode_miners(encode_miners(miners)); readable != miners)
    co_return fail(ErrorKind::invalid,
                   "a miner's address, domain or weight is beyond what the superblock can hold");
  Bytes sealed = seal_miners(keys_, runtime_.random(), miners);
  if (sealed.size() > kSealedMinersMax)
    co_return fail(ErrorKind::invalid,
                   format("a list of {} miners does not fit in the superblock", miners.size()));
  miners_ = std::move(miners);
  miners_changed_ = true;
  sealed_miners_ = std::move(sealed);
  wanted_holders_ = choose_holders(miners_, base_.m, holders_record().holders);
  urgent_revision_ = ++wanted_revision_;
  wake_.notify_all();
  co_return co_await settled(patience);
}

Task<Status> TailKeeper::close_cleanly(Duration patience) {
  update([](Intent& intent) { intent.closed_cleanly = true; });
  co_return co_await settled(patience);
}

Task<Status> TailKeeper::settled(Duration patience) {
  const std::uint64_t revision = wanted_revision_;
  urgent_revision_ = revision;
  wake_.notify_all();
  const TimePoint deadline = runtime_.now() + patience;
  const std::uint64_t interrupted = interrupted_;
  while (!fenced_ && !closing_ && interrupted == interrupted_ &&
         (state_ != State::claimed || accepted_revision_ < revision || !has_wanted_holders(accepted_))) {
    const bool woken = co_await changed_.wait_until(deadline);
    if (!woken) co_return fail(too_few_holders());
  }
  if (fenced_) co_return fail(*fenced_);
  if (closing_ || interrupted != interrupted_)
    co_return fail(ErrorKind::closed, "the volume is being closed");
  co_return Status();
}

Error TailKeeper::too_few_holders() const {
  const std::string failing = failing_holders();
  return {ErrorKind::unavailable, "too few miners that keep the superblock answered: " +
                                      (failing.empty() ? "no answer in time" : failing)};
}

std::string TailKeeper::obstacle() const {
  const bool accepted = current_ && accepted_ == *current_ && accepted_revision_ == wanted_revision_;
  if (fenced_ || accepted || failing_holders().empty()) return {};
  return too_few_holders().message();
}

std::string TailKeeper::failing_holders() const {
  std::string text;
  for (const auto& [id, link] : links_) {
    if (link.error.empty() || !is_holder(id)) continue;
    if (!text.empty()) text += "; ";
    text += id.brief() + ": " + link.error;
  }
  return text;
}

// --- one task for each holder: it promises first, then accepts whatever is current ---

bool TailKeeper::is_holder(const MinerId& miner) const {
  const Superblock& record = holders_record();
  return contains(record.holders, miner) || contains(record.next_holders, miner);
}

bool TailKeeper::has_work(const MinerId& holder) const {
  const Link& link = links_.at(holder);
  if (state_ == State::promising) return claim_ && !link.promised;
  return current_ && link.acked < current_->version;
}

void TailKeeper::ensure_links() {
  const Superblock& record = holders_record();
  for (const auto* set : {&record.holders, &record.next_holders}) {
    for (const MinerId& holder : *set) {
      Link& link = links_[holder];
      if (std::exchange(link.running, true)) continue;
      tasks_.spawn(serve_holder(holder));
    }
  }
}

Task<void> TailKeeper::serve_holder(MinerId holder) {
  Duration pause = options_.retry_min;
  while (!closing_ && !fenced_ && is_holder(holder)) {
    if (!has_work(holder)) {
      co_await wake_.wait();
      continue;
    }
    bool done = false;
    if (state_ == State::promising)
      done = co_await ask_promise(holder);
    else
      done = co_await ask_accept(holder);
    if (done) {
      pause = options_.retry_min;
      continue;
    }
    // Half of the pause is drawn, so that holders that failed together are not asked together again.
    const auto half = static_cast<std::uint64_t>(pause.count() / 2);
    const TimePoint until = runtime_.now() + Duration(half + runtime_.random().below(half + 1));
    while (!closing_ && !fenced_ && runtime_.now() < until) co_await wake_.wait_until(until);
    pause = std::min(pause * 2, options_.retry_max);
  }
  links_[holder].running = false;
}

Task<bool> TailKeeper::ask_promise(MinerId holder) {
  const TimePoint deadline = runtime_.now() + options_.request_deadline;
  auto answer = co_await transport_.promise(holder, *claim_, deadline);
  if (state_ != State::promising) co_return true;
  Link& link = links_[holder];
  if (!answer) {
    link.error = answer.error().message();
    co_return false;
  }
  link.error.clear();
  const HolderState& state = answer->state;
  if (!answer->accepted) {
    note_refusal(holder, state, nullptr);
    co_return links_[holder].promised;
  }
  if (!state.promised || state.promised->ballot != ballot_ || state.promised->volume != base_.volume) {
    link.error = "its answer contradicts itself";
    co_return false;
  }
  link.promised = true;
  if (state.accepted && state.accepted->volume == base_.volume && state.accepted->newer_than(known_)) {
    known_ = *state.accepted;
    ensure_links();
  }
  wake_.notify_all();
  co_return true;
}

Task<bool> TailKeeper::ask_accept(MinerId holder) {
  const Superblock record = *current_;
  const TimePoint deadline = runtime_.now() + options_.request_deadline;
  auto answer = co_await transport_.accept(holder, record, deadline);
  Link& link = links_[holder];
  if (!answer) {
    link.error = answer.error().message();
    co_return false;
  }
  link.error.clear();
  if (answer->accepted) {
    note_acked(holder, record.version);
    co_return true;
  }
  note_refusal(holder, answer->state, &record);
  co_return link.acked >= record.version;
}

void TailKeeper::note_acked(const MinerId& holder, std::uint64_t version) {
  Link& link = links_[holder];
  link.acked = std::max(link.acked, version);
  if (fenced_ || accepted_ == *current_) return;
  if (!quorum_of(*current_, [&](const MinerId& id) {
        const auto found = links_.find(id);
        return found != links_.end() && found->second.acked >= current_->version;
      }))
    return;
  accepted_ = *current_;
  accepted_revision_ = proposed_revision_;
  if (state_ == State::adopting) {
    state_ = State::claimed;
    log_info("volume {}: this home is the writer, epoch {}, opening {}", base_.volume.brief(), ballot_.epoch,
             ballot_.open_number);
  }
  changed_.notify_all();
  wake_.notify_all();
}

void TailKeeper::note_refusal(const MinerId& holder, const HolderState& state, const Superblock* proposed) {
  const bool ours = state.accepted && state.accepted->volume == base_.volume;
  if ((state.promised && state.promised->volume != base_.volume) || (state.accepted && !ours)) {
    links_[holder].error = "it shows another volume's state";
    return;
  }
  if (base_.version == 0 && state_ == State::promising && ours)
    return fence(Error(ErrorKind::exists, "the volume exists already on these miners"));
  if (ours && state.accepted->destroyed) return note_destroyed(holder, *state.accepted, proposed);
  if (state.highest_ballot() > ballot_) {
    fence(reason_of(state));
    return;
  }
  if (proposed == nullptr || !ours || state.accepted->version < proposed->version) {
    links_[holder].error = "it refuses without a reason";
    return;
  }
  if (state.accepted->ballot == ballot_) {
    fence(Error(ErrorKind::fenced,
                std::string("another copy of this very machine writes the volume (a cloned or resumed "
                            "virtual machine?)") +
                    kReadOnlyNow));
    return;
  }
  // A record of an earlier opening that reached no quorum: ours must have a higher version.
  version_floor_ = std::max(version_floor_, state.accepted->version);
  wake_.notify_all();
}

// A holder that has taken the mark takes nothing more, from nobody: for who wants the volume destroyed that
// is as good as its promise, and as its acceptance of any other mark.
void TailKeeper::note_destroyed(const MinerId& holder, const Superblock& mark, const Superblock* proposed) {
  if (adopt_ != Adopt::destroyed && !(proposed != nullptr && proposed->destroyed && mark.ballot == ballot_))
    return fence(Error(ErrorKind::fenced, "the volume was destroyed"));
  if (proposed == nullptr) {
    links_[holder].promised = true;
    intent_.destroyed = true;
    if (mark.newer_than(known_)) {
      known_ = mark;
      ensure_links();
    }
  } else if (proposed->destroyed) {
    note_acked(holder, proposed->version);
  } else {
    // It was not heard before: the record goes out again, with the mark.
    links_[holder].error = "it has taken the destroyed mark";
    intent_.destroyed = true;
    version_floor_ = std::max(version_floor_, proposed->version + 1);
  }
  wake_.notify_all();
}

// --- the end ---

Error TailKeeper::reason_of(const HolderState& state) const {
  if (state.accepted && state.accepted->ballot > ballot_)
    return {ErrorKind::fenced,
            "the volume was opened for writing by " + describe_writer(keys_, *state.accepted) + kReadOnlyNow};
  const Ballot higher = state.highest_ballot();
  return {ErrorKind::fenced,
          format("another home claims the volume (epoch {}, opening {})", higher.epoch, higher.open_number) +
              kReadOnlyNow};
}

void TailKeeper::fence(Error reason) {
  if (fenced_) return;
  log_warn("volume {}: {}", base_.volume.brief(), reason.message());
  state_ = State::fenced;
  fenced_ = reason;
  wake_.notify_all();
  changed_.notify_all();
  if (on_fenced_) on_fenced_(std::move(reason));
}

}  // namespace cumulus
