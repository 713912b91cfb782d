#include "objectstore/placement/placement.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string_view>

#include "objectstore/base/format.h"

namespace cumulus {
namespace {

// Also what is taken for a weight that is no number.
constexpr double kWeightMin = 1e-9;

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
  const double u = (static_cast<double>(hash >> 12) + 0.5) / 4503599627370496.0;  // 2^52: exact, never 1
  const double weight = candidate.weight > kWeightMin ? candidate.weight : kWeightMin;
  return -weight / std::log(u);
}

struct Ranked {
  double score = 0;
  const Candidate* candidate = nullptr;
  std::size_t domain = 0;  // its number
  std::size_t slices = 0;  // of this segment, on this miner
};

}  // namespace

Result<Placement> place(const VolumeId& volume, const SegmentId& segment, std::uint8_t m,
                        std::vector<MinerId> placed, std::span<const Candidate> candidates) {
  // Miners and domains are numbered once; the choice itself then only counts.
  std::map<MinerId, std::size_t> taken;
  for (const MinerId& miner : placed)
    if (miner != MinerId{}) ++taken[miner];
  std::map<std::string_view, std::size_t> domain_numbers;
  std::vector<Ranked> ranked;
  ranked.reserve(candidates.size());
  for (const Candidate& candidate : candidates) {
    const auto on_it = taken.find(candidate.id);
    ranked.push_back({score(volume, segment, candidate), &candidate,
                      domain_numbers.try_emplace(candidate.domain, domain_numbers.size()).first->second,
                      on_it == taken.end() ? 0 : on_it->second});
  }
  std::ranges::sort(ranked, [](const Ranked& a, const Ranked& b) {
    return a.score != b.score ? a.score > b.score : a.candidate->id < b.candidate->id;
  });
  std::vector<std::size_t> in_domain(domain_numbers.size());
  for (const Ranked& miner : ranked) in_domain[miner.domain] += miner.slices;

  const std::size_t most = std::max<std::size_t>(m, 1);
  Placement placement{std::move(placed), false};
  for (const auto& [miner, count] : taken) placement.crowded = placement.crowded || count > 1;
  for (MinerId& slot : placement.miners) {
    if (slot != MinerId{}) continue;
    // The emptiest miner first, then the emptiest domain, then the rank.
    Ranked* best = nullptr;
    for (Ranked& miner : ranked) {
      if (miner.slices >= most) continue;
      if (best == nullptr ||
          std::pair(miner.slices, in_domain[miner.domain]) < std::pair(best->slices, in_domain[best->domain]))
        best = &miner;
    }
    if (best == nullptr) {
      const std::size_t needed = (placement.miners.size() + most - 1) / most;
      return fail(ErrorKind::no_space,
                  format("{} miners can take slices now; {} slices with at most {} on one need {}",
                         candidates.size(), placement.miners.size(), most, needed));
    }
    slot = best->candidate->id;
    ++best->slices;
    ++in_domain[best->domain];
    placement.crowded = placement.crowded || best->slices > 1;
  }
  return placement;
}

}  // namespace cumulus
