#include "objectstore/store/eligible_miners.h"

#include <algorithm>

namespace cumulus {
namespace {

constexpr Duration kPauseMin = std::chrono::seconds(1);
constexpr Duration kPauseMax = std::chrono::seconds(30);
constexpr Duration kPauseFull = std::chrono::seconds(60);
// A miner with less room than this, or than a sixteenth of its disk, takes no new slices.
constexpr std::uint64_t kRoomMin = 128ull << 20;

Duration pause_after(ErrorKind kind, std::uint32_t failures) {
  if (kind == ErrorKind::no_space || kind == ErrorKind::denied || kind == ErrorKind::io ||
      kind == ErrorKind::fenced)
    return kPauseFull;
  return std::min(kPauseMin * (1u << std::min(failures, 5u)), kPauseMax);
}

bool is_full(const MinerStatus& status) {
  const bool disk_full =
      status.capacity != 0 && status.used + std::min(kRoomMin, status.capacity / 16) > status.capacity;
  const bool quota_full = status.volume_quota != 0 && status.volume_used >= status.volume_quota;
  return disk_full || quota_full || status.draining || status.read_only;
}

}  // namespace

bool EligibleMiners::eligible(const MinerId& miner) const {
  if (std::ranges::find(transport_.miners(), miner, &MinerEntry::id) == transport_.miners().end())
    return false;
  const auto found = standing_.find(miner);
  if (found == standing_.end()) return true;
  return !found->second.full && !found->second.silent && found->second.excluded_until <= runtime_.now();
}

std::string EligibleMiners::why_not(const MinerId& miner) const {
  if (eligible(miner)) return "";
  const auto found = standing_.find(miner);
  if (found == standing_.end()) return "not in the volume's miner list";
  if (found->second.silent) return "does not answer";
  if (found->second.draining) return "is draining";
  if (found->second.full) return "is full or its disk refuses writes";
  return found->second.refused ? "has refused a slice for want of room" : "failed a moment ago";
}

bool EligibleMiners::draining(const MinerId& miner) const {
  const auto entry = std::ranges::find(transport_.miners(), miner, &MinerEntry::id);
  if (entry != transport_.miners().end() && entry->weight <= 0) return true;
  const auto found = standing_.find(miner);
  return found != standing_.end() && found->second.draining;
}

std::vector<Candidate> EligibleMiners::candidates(const std::vector<MinerId>& refused) const {
  std::vector<Candidate> able;
  for (const MinerEntry& entry : transport_.miners())
    if (entry.weight > 0 && eligible(entry.id) && std::ranges::find(refused, entry.id) == refused.end())
      able.push_back({entry.id, entry.domain, entry.weight});
  return able;
}

void EligibleMiners::note_failure(const MinerId& miner, ErrorKind kind) {
  Standing& standing = standing_[miner];
  standing.excluded_until = runtime_.now() + pause_after(kind, standing.failures);
  standing.refused = kind == ErrorKind::no_space;
  ++standing.failures;
}

void EligibleMiners::note_success(const MinerId& miner) {
  if (const auto found = standing_.find(miner); found != standing_.end()) {
    found->second.failures = 0;
    found->second.excluded_until = {};
  }
}

bool EligibleMiners::any_missing() const {
  return std::ranges::any_of(standing_, [this](const auto& entry) {
    return entry.second.silent || entry.second.full || entry.second.excluded_until > runtime_.now();
  });
}

Task<void> EligibleMiners::refresh(TimePoint deadline) {
  const std::vector<MinerEntry> miners = transport_.miners();
  std::erase_if(standing_, [&](const auto& entry) {
    return std::ranges::find(miners, entry.first, &MinerEntry::id) == miners.end();
  });
  TaskGroup asks(runtime_);
  for (const MinerEntry& entry : miners) {
    asks.spawn([this, id = entry.id, deadline]() -> Task<void> {
      const auto status = co_await transport_.status(id, deadline);
      Standing& standing = standing_[id];
      // Back from an outage: no need to sit out the rest of the pause.
      if (status && standing.silent) standing = {};
      standing.silent = !status;
      if (status) standing.full = is_full(*status);
      if (status) standing.draining = status->draining;
    });
  }
  co_await asks.join();
}

}  // namespace cumulus
