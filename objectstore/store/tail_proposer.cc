// TailKeeper: the proposer. One task decides what the next record says and when it goes out; the holders' own
// tasks carry it (tail_keeper.cc).
#include <algorithm>

#include "objectstore/base/log.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/crypto/sign.h"
#include "objectstore/store/holder_survey.h"
#include "objectstore/store/sealed_label.h"
#include "objectstore/store/tail_keeper.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kVersionsReserved = 1000;
// The newest accepted record is written to the home file at least this often while it changes; a lost second
// means only that a rollback of the miners within it would go unnoticed by this machine.
constexpr Duration kRememberInterval = std::chrono::seconds(1);

bool same_set(std::vector<MinerId> a, std::vector<MinerId> b) {
  std::ranges::sort(a);
  std::ranges::sort(b);
  return a == b;
}

}  // namespace

Task<void> TailKeeper::run() {
  HomeRecord next = home_.record();
  next.ballot = std::max(next.ballot, ballot_);
  for (const HomeRecord::Authored& mine : next.authored)
    version_floor_ = std::max(version_floor_, mine.ceiling);
  co_await save_home(std::move(next));
  BallotClaim claim;
  claim.volume = base_.volume;
  claim.ballot = ballot_;
  sign_claim(claim, keys_.signing_key());
  claim_ = claim;
  ensure_links();
  while (!closing_ && !fenced_) {
    if (state_ == State::promising && promised_by_quorum()) adopt_known();
    if (fenced_) break;
    if (proposal_due()) {
      co_await propose();
      continue;
    }
    if (remember_due()) {
      co_await remember();
      continue;
    }
    const bool unsaved = state_ == State::claimed && home_.record().seen != accepted_;
    TimePoint until = unsaved ? remembered_at_ + kRememberInterval : TimePoint::max();
    if (current_ && proposed_revision_ < wanted_revision_ && accepted_ == *current_)
      until = std::min(until, proposed_at_ + options_.pace);
    co_await wake_.wait_until(until);
  }
}

// A full or failing disk is waited for: nothing may be proposed that the home file does not know.
Task<void> TailKeeper::save_home(HomeRecord next) {
  Duration pause = options_.retry_min;
  while (!closing_ && !fenced_) {
    const Status saved = co_await home_.save(next);
    if (saved) co_return;
    log_error("volume {}: {}; the superblock cannot be renewed until it can be written", base_.volume.brief(),
              saved.error().message());
    const TimePoint until = runtime_.now() + pause;
    while (!closing_ && !fenced_ && runtime_.now() < until) co_await wake_.wait_until(until);
    pause = std::min(pause * 2, options_.retry_max);
  }
}

bool TailKeeper::remember_due() const {
  if (state_ != State::claimed) return false;
  const auto& seen = home_.record().seen;
  if (seen == accepted_) return false;
  const bool changes_hands = !seen || seen->ballot != accepted_.ballot || accepted_.closed_cleanly ||
                             accepted_.destroyed || seen->holders != accepted_.holders ||
                             seen->sealed_miners != accepted_.sealed_miners ||
                             seen->tail.position > accepted_.tail.position;
  return (changes_hands && !remember_error_) || runtime_.now() >= remembered_at_ + kRememberInterval;
}

Task<void> TailKeeper::remember() {
  HomeRecord next = home_.record();
  next.note_accepted(accepted_);
  remembered_at_ = runtime_.now();
  const Status saved = co_await home_.save(std::move(next));
  remember_error_.reset();
  if (!saved) {
    remember_error_ = saved.error();
    log_warn("volume {}: {}", base_.volume.brief(), saved.error().message());
  }
  changed_.notify_all();
}

bool TailKeeper::promised_by_quorum() const {
  return claim_ && quorum_of(known_, [&](const MinerId& id) {
           const auto found = links_.find(id);
           return found != links_.end() && found->second.promised;
         });
}

Status TailKeeper::may_adopt(const Superblock& newest) const {
  if (newest.destroyed && adopt_ == Adopt::destroyed) return {};
  if (newest.destroyed) return fail(ErrorKind::fenced, "the volume was destroyed");
  if (base_.version == 0 && newest.version != 0)
    return fail(ErrorKind::exists, "the volume exists already on these miners");
  if (newest.version == 0 || adopt_ == Adopt::any || home_.record().wrote(newest)) return {};
  if ((adopt_ == Adopt::own_or_closed || adopt_ == Adopt::destroyed) && newest.closed_cleanly) return {};
  return fail(ErrorKind::fenced, "the volume is in use by " + describe_writer(keys_, newest) +
                                     "; close it there, or take it over with --steal");
}

void TailKeeper::adopt_known() {
  if (const Status allowed = may_adopt(known_); !allowed) return fence(allowed.error());
  if (home_.record().rolled_back(known_))
    return fence(Error(ErrorKind::corrupt,
                       "the miners show a state older than this machine has seen: they were rolled "
                       "back, or restored from an old copy"));
  if (known_.tail.position > intent_.tail.position) {
    if (options_.belongs) {
      if (const Status belongs = options_.belongs(known_.tail); !belongs) return fence(belongs.error());
    }
    intent_.tail = known_.tail;
  }
  if (known_.checkpoints[0].position > intent_.checkpoints[0].position)
    intent_.checkpoints = known_.checkpoints;
  if (!miners_changed_ && known_.version != 0) {
    if (auto listed = open_miners(keys_, known_.sealed_miners)) miners_ = *std::move(listed);
  }
  intent_.destroyed = intent_.destroyed || known_.destroyed;
  wanted_holders_ = choose_holders(miners_, known_.m, known_.holders);
  version_floor_ = std::max(version_floor_, known_.version);
  state_ = State::adopting;
  wake_.notify_all();
}

bool TailKeeper::has_wanted_holders(const Superblock& record) const {
  if (!record.next_holders.empty()) return false;
  return wanted_holders_.empty() || same_set(record.holders, wanted_holders_);
}

bool TailKeeper::proposal_due() const {
  if (state_ != State::adopting && state_ != State::claimed) return false;
  if (!current_ || version_floor_ > current_->version) return true;
  if (accepted_ != *current_) return joins_unwanted();  // else one record in flight
  if (!has_wanted_holders(accepted_)) return true;
  return proposed_revision_ < wanted_revision_ &&
         (is_urgent() || runtime_.now() >= proposed_at_ + options_.pace);
}

// The record in flight moves the volume to holders that are no longer wanted, and may wait for them for ever.
// Another may take its place: a quorum of the holders that it comes from is asked for by both, so that
// whoever finds the one finds the other, and this home follows none of them before it is accepted.
bool TailKeeper::joins_unwanted() const {
  return state_ == State::claimed && accepted_ != *current_ && accepted_.next_holders.empty() &&
         !current_->next_holders.empty() && !same_set(current_->next_holders, wanted_holders_);
}

bool TailKeeper::is_urgent() const {
  if (proposed_revision_ < urgent_revision_) return true;
  const auto next = awaited_.upper_bound(accepted_.tail.position);
  return next != awaited_.end() && *next <= intent_.tail.position;
}

Task<void> TailKeeper::propose() {
  const auto reserved = [&] {
    const auto& authored = home_.record().authored;
    return !authored.empty() && authored.back().ballot == ballot_ ? authored.back().ceiling : 0;
  };
  while (version_floor_ + 1 > reserved()) {
    HomeRecord next = home_.record();
    next.reserve(ballot_, version_floor_ + kVersionsReserved);
    co_await save_home(std::move(next));
    if (closing_ || fenced_) co_return;
  }
  current_ = compose();
  ++version_floor_;
  proposed_revision_ = wanted_revision_;
  proposed_at_ = runtime_.now();
  proposals_.add();
  ensure_links();
  wake_.notify_all();
}

Superblock TailKeeper::compose() {
  const Superblock& last = holders_record();
  Superblock next = last;
  next.ballot = ballot_;
  next.version = version_floor_ + 1;
  next.previous = last.version == 0 ? Digest{} : last.digest();
  if (joins_unwanted()) next.next_holders.clear();
  if (state_ == State::claimed && (accepted_ == last || joins_unwanted())) {
    // A joint record that both quorums accepted is followed by the new set alone; a change begins with a
    // joint one.
    if (!next.next_holders.empty()) {
      next.holders = last.next_holders;
      next.next_holders.clear();
      ++next.holder_generation;
    } else if (!wanted_holders_.empty() && !same_set(last.holders, wanted_holders_)) {
      next.next_holders = wanted_holders_;
    }
  }
  next.tail = intent_.tail;
  next.checkpoints = intent_.checkpoints;
  next.closed_cleanly = intent_.closed_cleanly;
  next.destroyed = intent_.destroyed;
  next.written_at = runtime_.wall_now();
  if (sealed_miners_.empty()) sealed_miners_ = seal_miners(keys_, runtime_.random(), miners_);
  next.sealed_miners = sealed_miners_;
  next.sealed_writer = sealed_writer_;
  sign_superblock(next, keys_.signing_key());
  return next;
}

}  // namespace cumulus
