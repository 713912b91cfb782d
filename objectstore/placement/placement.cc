#include "objectstore/placement/placement.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "objectstore/base/format.h"

namespace cumulus {
namespace {

// SplitMix64's finaliser (Steele, Lea, Flood 2014): the inputs are digests and keys, it only has to mix them.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

std::uint64_t word(ByteView bytes) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

// -weight / ln(u), u uniform in (0, 1): the largest wins in proportion to weight.
double score(const VolumeId& volume, const SegmentId& segment, const Candidate& candidate) {
  std::uint64_t hash = mix(word(volume.view()) ^ static_cast<std::uint64_t>(segment.kind));
  hash = mix(hash ^ segment.epoch);
  hash = mix(hash ^ segment.sequence);
  hash = mix(hash ^ word(candidate.id.view()));
  const double u = (static_cast<double>(hash >> 11) + 0.5) / 9007199254740992.0;
  return -std::max(candidate.weight, 1e-9) / std::log(u);
}

}  // namespace

Result<Placement> place(const VolumeId& volume, const SegmentId& segment, std::uint8_t m,
                        std::vector<MinerId> placed, std::span<const Candidate> candidates) {
  std::map<MinerId, std::size_t> on_miner;
  std::map<std::string, std::size_t> in_domain;
  for (const MinerId& miner : placed) {
    if (miner == MinerId{}) continue;
    ++on_miner[miner];
    for (const Candidate& candidate : candidates)
      if (candidate.id == miner) ++in_domain[candidate.domain];
  }
  std::vector<std::pair<double, const Candidate*>> ranked;
  for (const Candidate& candidate : candidates)
    ranked.emplace_back(score(volume, segment, candidate), &candidate);
  std::ranges::sort(ranked, [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second->id < b.second->id;
  });

  const std::size_t most = std::max<std::size_t>(m, 1);
  Placement placement{std::move(placed), false};
  for (MinerId& slot : placement.miners) {
    if (slot != MinerId{}) continue;
    // The emptiest miner first, then the emptiest domain, then the rank.
    const Candidate* best = nullptr;
    std::pair<std::size_t, std::size_t> best_load;
    for (const auto& [rank, candidate] : ranked) {
      const std::size_t here = on_miner[candidate->id];
      if (here >= most) continue;
      const std::pair<std::size_t, std::size_t> load{here, in_domain[candidate->domain]};
      if (best != nullptr && load >= best_load) continue;
      best = candidate;
      best_load = load;
    }
    if (best == nullptr) {
      const std::size_t needed = (placement.miners.size() + most - 1) / most;
      return fail(ErrorKind::no_space,
                  format("{} miners can take slices; {} slices with at most {} on one need {}",
                         candidates.size(), placement.miners.size(), most, needed));
    }
    slot = best->id;
    ++on_miner[best->id];
    ++in_domain[best->domain];
  }
  for (const auto& [miner, count] : on_miner) placement.crowded = placement.crowded || count > 1;
  return placement;
}

}  // namespace cumulus
