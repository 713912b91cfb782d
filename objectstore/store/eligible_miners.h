// EligibleMiners: which miners may take a new slice now. Learns from statuses and from
// failed requests: a miner that said no_space, denied or failed is left out for a while, then gets another
// chance. It never asks a miner twice for the same slice; that is its caller's loop. Reactor thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "objectstore/base/ids.h"
#include "objectstore/io/sync.h"
#include "objectstore/placement/placement.h"
#include "objectstore/slice_transport.h"

namespace cumulus {

class EligibleMiners {
 public:
  EligibleMiners(Runtime& runtime, SliceTransport& transport) : runtime_(runtime), transport_(transport) {}

  // Those that may take a slice now, without `refused`: what placement chooses from.
  std::vector<Candidate> candidates(const std::vector<MinerId>& refused = {}) const;
  bool eligible(const MinerId& miner) const;

  void note_failure(const MinerId& miner, ErrorKind kind);
  void note_success(const MinerId& miner);
  // Asks every miner for its status and excludes the full, draining and read-only ones. Bounded by
  // `deadline`.
  Task<void> refresh(TimePoint deadline);
  // Why it may not take a slice now, for a person; empty when it may.
  std::string why_not(const MinerId& miner) const;
  // It is to be emptied: its operator says so (by its last status), or the owner's list gives it no weight.
  bool draining(const MinerId& miner) const;
  // Everybody gets another chance at once: before refresh(), when a person asked.
  void forget() { standing_.clear(); }
  // Is any miner left out or silent, so that it is worth asking again soon?
  bool any_missing() const;

 private:
  struct Standing {
    TimePoint excluded_until;
    std::uint32_t failures = 0;  // in a row
    bool refused = false;        // the last of them was for want of room
    bool full = false;           // by its status: full, draining or read-only
    bool draining = false;
    bool silent = false;  // did not answer the last status
  };

  Runtime& runtime_;
  SliceTransport& transport_;
  std::map<MinerId, Standing> standing_;
};

}  // namespace cumulus
