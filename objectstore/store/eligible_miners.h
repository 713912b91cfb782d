// EligibleMiners: which miners may take a new slice now, and which one should. Learns from statuses and from
// failed requests: a miner that said no_space, denied or failed is left out for a while, then gets another
// chance. It never asks a miner twice for the same slice; that is its caller's loop. Reactor thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "objectstore/base/ids.h"
#include "objectstore/io/sync.h"
#include "objectstore/slice_transport.h"

namespace cumulus {

class EligibleMiners {
 public:
  EligibleMiners(Runtime& runtime, SliceTransport& transport) : runtime_(runtime), transport_(transport) {}

  // The miner for one more slice of `segment`. `holding` lists the miners of its other slices (one entry a
  // slice), `refused` those that failed for this slice. At most `per_miner_max` slices on one; a fresh
  // failure domain first, then a fresh miner, then doubled up, each by weighted rendezvous. nullopt: nobody
  // may take it now.
  std::optional<MinerId> choose(const SegmentId& segment, const std::vector<MinerId>& holding,
                                const std::vector<MinerId>& refused, std::uint32_t per_miner_max) const;
  std::size_t count() const;
  bool eligible(const MinerId& miner) const;
  // When the next excluded miner gets another chance; TimePoint::max(): none is excluded.
  TimePoint next_chance() const;

  void note_failure(const MinerId& miner, ErrorKind kind);
  void note_success(const MinerId& miner);
  // Asks every miner for its status and excludes the full, draining and read-only ones. Bounded by
  // `deadline`.
  Task<void> refresh(TimePoint deadline);

 private:
  struct Standing {
    TimePoint excluded_until{};
    std::uint32_t failures = 0;  // in a row
    bool full = false;           // by its status: full, draining or read-only
    std::uint64_t free = 0;      // by its status; 0: unknown
  };

  Runtime& runtime_;
  SliceTransport& transport_;
  std::map<MinerId, Standing> standing_;
};

}  // namespace cumulus
