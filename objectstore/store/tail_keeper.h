// TailKeeper: keeps the superblock at a quorum of its holders (R2). It claims the volume for this opening,
// and from then on proposes the state that the volume wants (tail, checkpoints, miners, marks), coalesced,
// one record at a time, until a quorum has accepted it. "Stored", sync, fencing and recovery all mean what
// accepted() says.
//
// What it must never do: propose anything before a quorum promised its ballot and the newest record found was
// adopted; use a ballot or a version that is not in the home file; go on after a higher ballot was seen.
// Reactor thread.
//
// state     | means                                              | leaves by
// idle      | nothing was asked of holders yet                    | claim(), start()
// promising | asking holders to promise our ballot, in the background | a quorum promised -> adopting
// adopting  | the newest record re-proposed under our ballot      | a quorum accepted -> claimed
// claimed   | this opening is the writer                          | a higher ballot -> fenced
// fenced    | another home is the writer, or the volume is destroyed | never
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "objectstore/base/metrics.h"
#include "objectstore/io/sync.h"
#include "objectstore/slice_transport.h"
#include "objectstore/store/home_file.h"
#include "objectstore/superblock.h"

namespace cumulus {

class KeyTree;

// Whose newest record may be continued.
enum class Adopt : std::uint8_t {
  own,            // only what this home wrote (a restart)
  own_or_closed,  // ... or what another home closed cleanly
  any,            // steal
  destroyed,      // as own_or_closed, or a destroyed one: to end it. Holders that took the mark count as yes
};

class TailKeeper {
 public:
  // What the volume wants the record to say.
  struct Intent {
    Tail tail;
    std::array<CheckpointRef, 2> checkpoints{};
    bool closed_cleanly = false;
    bool destroyed = false;
    bool operator==(const Intent&) const = default;
  };
  struct Options {
    Duration request_deadline = std::chrono::seconds(5);
    Duration retry_min = std::chrono::milliseconds(200);
    Duration retry_max = std::chrono::seconds(15);
    // A tail that nobody waits for is proposed this long after the last record at the earliest: each costs
    // every holder a signature check and a synced file.
    Duration pace = std::chrono::milliseconds(200);
    // Whether a tail that was accepted before this opening, as a holder shows it while the volume is claimed,
    // is of the log that this opening goes on with; its error fences. Empty: any is.
    std::function<Status(const Tail&)> belongs;
  };

  // `known` is the newest record that the volume knows; version 0: a new volume's first one, never proposed
  // (its holders, k, m, segment_log2, volume are set; claim() then fails with `exists` when holders have
  // one). The neighbours outlive the keeper. `writer` is "user@host". `on_fenced` is called once, on the
  // reactor.
  TailKeeper(Runtime& runtime, SliceTransport& transport, const KeyTree& keys, HomeFile& home,
             Superblock known, std::vector<MinerEntry> miners, std::string writer, Options options,
             Metrics& metrics, std::function<void(Error)> on_fenced);
  ~TailKeeper();

  // Claims in the foreground: when it returns well, a quorum has accepted a record under `ballot` that
  // repeats the newest one, and accepted() is it. fenced: somebody else's (the message names who and since
  // when), or destroyed; unavailable: too few holders answered in `patience` (claiming goes on: close() or
  // wait_claimed()); exists.
  Task<Status> claim(Ballot ballot, Adopt adopt, Duration patience);
  // The same in the background, for a home that works offline.
  void start(Ballot ballot, Adopt adopt);
  // Returns when claimed; fenced or closed otherwise.
  Task<Status> wait_claimed();

  bool claimed() const { return state_ == State::claimed; }
  const std::optional<Error>& fenced() const { return fenced_; }
  // The newest record that a quorum is known to have accepted (before claiming: `known`).
  const Superblock& accepted() const { return accepted_; }
  // The tail that a quorum is known to hold: what "Remote" means. Not the newest record found before
  // claiming: it may lie on one holder only, left by a proposal that nobody finished.
  Tail remote_tail() const;
  const Ballot& ballot() const { return ballot_; }
  // The miner list that the record carries, or will.
  const std::vector<MinerEntry>& miners() const { return miners_; }

  // Why what is wanted is not accepted yet: the holders that failed, each with its reason; empty: it is, or
  // none has.
  std::string obstacle() const;

  // Changes what is wanted; proposed soon after claiming, together with whatever else changed meanwhile.
  void update(const std::function<void(Intent&)>& change);
  // The tail that is accepted or will be proposed next.
  const Tail& wanted_tail() const { return intent_.tail; }
  // The destroyed mark is accepted or will be proposed next.
  bool wants_destroyed() const { return intent_.destroyed; }
  // The same as update() for a tail alone, paced unless somebody awaits() a position that it covers.
  void advance(const Tail& tail);
  // The only way a tail goes back (or to another history): what is not before it is given up, by the owner's
  // own decision. Returns when a quorum has accepted that. Once claimed. unavailable after `patience`;
  // fenced; closed.
  Task<Status> cut_back(Tail tail, Duration patience);
  // While the returned guard lives, a tail that covers `position` is proposed at once. The keeper outlives
  // it.
  class Awaited {
   public:
    Awaited(TailKeeper& keeper, LogPosition position);
    ~Awaited();
    Awaited(const Awaited&) = delete;
    Awaited& operator=(const Awaited&) = delete;

   private:
    TailKeeper& keeper_;
    std::multiset<LogPosition>::iterator entry_;
  };
  // Returns when all that was wanted at the call is accepted. unavailable after `patience`; fenced; closed.
  Task<Status> settled(Duration patience);
  // Once the home file says that this home is the writer: until then a crash would leave a log that nobody
  // knows to be the volume's. After claim(). Errors: the disk's.
  Task<Status> known_at_home();
  // A new miner list; the holder set follows by a joint change. Returns when it is accepted; unavailable
  // after `patience` (it goes on being proposed). The transport must know the old holders and the new ones
  // until then. invalid: empty, or too long for the superblock.
  Task<Status> set_miners(std::vector<MinerEntry> miners, Duration patience = std::chrono::seconds(30));
  // Marks the record closed cleanly, so that another home may open the volume without stealing it. For the
  // end.
  Task<Status> close_cleanly(Duration patience);
  // A miner says that the volume is not this home's any more. That is one miner's word: the holders are
  // asked, by proposing again what is wanted, at most every five seconds.
  void doubt();
  // Notified after every change of accepted(), claimed() and fenced(), and on close().
  Signal& changed() { return changed_; }

  // Calls that wait for holders now end with `closed`; what they wanted goes on being proposed.
  void stop_waiting();
  // Stops. Marks nothing: update() closed_cleanly and settled() before. Calls that wait end with `closed`.
  Task<void> close();

 private:
  enum class State : std::uint8_t { idle, promising, adopting, claimed, fenced };
  struct Link {  // one holder
    bool promised = false;
    std::uint64_t acked = 0;  // version accepted under our ballot
    bool running = false;     // its task exists
    std::string error;        // why it did not answer the last request; empty: it did
  };

  using HomeKnows = std::function<bool(const Superblock& seen)>;
  Task<Status> wait_for_home(const HomeKnows& knows);
  void begin(Ballot ballot, Adopt adopt);
  const Superblock& holders_record() const { return current_ ? *current_ : known_; }
  bool is_holder(const MinerId& miner) const;
  bool has_work(const MinerId& holder) const;
  void ensure_links();
  Task<void> serve_holder(MinerId holder);
  Task<bool> ask_promise(MinerId holder);
  Task<bool> ask_accept(MinerId holder);
  void note_refusal(const MinerId& holder, const HolderState& state, const Superblock* proposed);
  void note_destroyed(const MinerId& holder, const Superblock& mark, const Superblock* proposed);
  void note_acked(const MinerId& holder, std::uint64_t version);

  Task<void> run();
  Task<void> save_home(HomeRecord next);
  Task<void> remember();
  bool remember_due() const;
  bool promised_by_quorum() const;
  void adopt_known();
  Status may_adopt(const Superblock& newest) const;
  bool has_wanted_holders(const Superblock& record) const;
  bool proposal_due() const;
  bool joins_unwanted() const;
  bool is_urgent() const;
  Task<void> propose();
  Superblock compose();
  void fence(Error reason);
  Error reason_of(const HolderState& state) const;
  std::string failing_holders() const;
  Error too_few_holders() const;

  Runtime& runtime_;
  SliceTransport& transport_;
  const KeyTree& keys_;
  HomeFile& home_;
  Options options_;
  std::string writer_;
  std::function<void(Error)> on_fenced_;
  Counter& proposals_;

  State state_ = State::idle;
  std::optional<Error> fenced_;
  bool closing_ = false;
  std::uint64_t interrupted_ = 0;  // times that stop_waiting() was called
  Ballot ballot_;
  Adopt adopt_ = Adopt::own;
  std::optional<BallotClaim> claim_;  // once the ballot is in the home file

  Superblock base_;                    // what the constructor was given
  Superblock known_;                   // the newest record found anywhere, until one of ours is proposed
  std::optional<Superblock> current_;  // proposed under our ballot, last
  Superblock accepted_;                // by a quorum
  Intent intent_;
  std::vector<MinerEntry> miners_;
  bool miners_changed_ = false;  // by set_miners(): the record's list does not replace ours
  std::vector<MinerId> wanted_holders_;
  Bytes sealed_miners_;
  Bytes sealed_writer_;
  std::uint64_t wanted_revision_ = 1;  // grows with every change of what is wanted
  std::uint64_t urgent_revision_ = 1;  // up to here nothing is paced
  std::multiset<LogPosition> awaited_;
  TimePoint proposed_at_;
  std::uint64_t proposed_revision_ = 0;  // what `current_` says
  std::uint64_t accepted_revision_ = 0;
  std::uint64_t version_floor_ = 0;  // the next version is above it
  TimePoint remembered_at_;
  std::optional<TimePoint> doubted_at_;
  std::optional<Error> remember_error_;  // of the last attempt

  std::map<MinerId, Link> links_;
  Signal wake_;     // holders' tasks and the proposer
  Signal changed_;  // callers
  TaskGroup tasks_;
};

}  // namespace cumulus
