// Placement's promises: distinct domains, distinct miners, never more than max(m, 1) on one, load by weight,
// and little movement when the miners change.
#include "objectstore/placement/placement.h"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <map>
#include <random>
#include <set>

namespace cumulus {
namespace {

const VolumeId kVolume{{1, 2, 3, 4, 5, 6, 7, 8, 9}};

Candidate miner(std::uint64_t number, const std::string& domain, double weight = 1.0) {
  Candidate candidate;
  std::mt19937_64 random(number);
  for (auto& byte : candidate.id.bytes) byte = static_cast<std::uint8_t>(random());
  candidate.domain = domain;
  candidate.weight = weight;
  return candidate;
}

// `count` miners, miner i in domain i mod `domains`.
std::vector<Candidate> miners(std::size_t count, std::size_t domains) {
  std::vector<Candidate> all;
  for (std::size_t i = 0; i < count; ++i) all.push_back(miner(i + 1, "d" + std::to_string(i % domains)));
  return all;
}

SegmentId segment(std::uint64_t sequence) { return {SegmentKind::log, 1, sequence}; }

std::vector<MinerId> nobody(std::size_t slots) { return std::vector<MinerId>(slots); }

std::string domain_of(const std::vector<Candidate>& all, const MinerId& id) {
  for (const Candidate& candidate : all)
    if (candidate.id == id) return candidate.domain;
  return "gone";
}

TEST(Placement, DistinctDomainsThenDistinctMinersThenDoubling) {
  for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const std::size_t count = 1 + random() % 20;
    const std::size_t k = 1 + random() % 8;
    const auto m = static_cast<std::uint8_t>(random() % 5);
    const std::size_t slots = k + m;
    std::vector<Candidate> all;
    std::map<std::string, std::size_t> domain_size;
    for (std::size_t i = 0; i < count; ++i) {
      all.push_back(miner(random(), "d" + std::to_string(random() % (1 + random() % 10)),
                          0.5 + static_cast<double>(random() % 100) / 10));
      ++domain_size[all.back().domain];
    }
    const auto placed = place(kVolume, segment(seed), m, nobody(slots), all);
    const std::size_t most = std::max<std::size_t>(m, 1);
    if (count * most < slots) {
      ASSERT_FALSE(placed);
      EXPECT_EQ(placed.error().kind(), ErrorKind::no_space);
      const std::string needed = "need " + std::to_string((slots + most - 1) / most);
      EXPECT_NE(placed.error().message().find(needed), std::string::npos) << placed.error().message();
      continue;
    }
    ASSERT_TRUE(placed) << placed.error().message();
    ASSERT_EQ(placed->miners.size(), slots);
    std::map<MinerId, std::size_t> load;
    std::map<std::string, std::size_t> in_domain;
    for (const MinerId& id : placed->miners) {
      ++load[id];
      ++in_domain[domain_of(all, id)];
    }
    EXPECT_EQ(in_domain.count("gone"), 0u);
    EXPECT_EQ(load.size(), std::min(slots, count));
    EXPECT_EQ(in_domain.size(), std::min(slots, domain_size.size()));
    EXPECT_EQ(placed->crowded, slots > count);
    for (const auto& [id, slices] : load) {
      EXPECT_LE(slices, most);
      EXPECT_LE(slices, (slots + count - 1) / count);  // doubled up evenly
    }
    if (slots > count) continue;
    // Domains are filled evenly: the fullest could not have given its last slice to another one with room.
    for (const auto& [full, slices] : in_domain)
      for (const auto& [other, size] : domain_size)
        if (in_domain[other] < size) {
          EXPECT_LE(slices, in_domain[other] + 1) << full << " and " << other;
        }
  }
}

TEST(Placement, SixSlicesOnAFewMiners) {
  EXPECT_FALSE(place(kVolume, segment(1), 2, nobody(6), miners(2, 2)));
  for (std::size_t count = 3; count <= 8; ++count) {
    const auto placed = place(kVolume, segment(1), 2, nobody(6), miners(count, count));
    ASSERT_TRUE(placed) << count;
    EXPECT_EQ(placed->crowded, count < 6);
  }
  EXPECT_FALSE(place(kVolume, segment(1), 2, nobody(1), {}));
  // Without parity no miner takes two.
  EXPECT_FALSE(place(kVolume, segment(1), 0, nobody(4), miners(3, 3)));
  EXPECT_TRUE(place(kVolume, segment(1), 0, nobody(4), miners(4, 1)));
}

// The same wherever and whenever it is asked.
TEST(Placement, DependsOnItsArgumentsAlone) {
  std::vector<Candidate> all = miners(12, 5);
  std::mt19937_64 random(4);
  for (std::uint64_t sequence = 1; sequence <= 50; ++sequence) {
    const auto first = place(kVolume, segment(sequence), 2, nobody(6), all);
    std::ranges::shuffle(all, random);
    EXPECT_EQ(place(kVolume, segment(sequence), 2, nobody(6), all)->miners, first->miners);
  }
  EXPECT_NE(place(kVolume, segment(1), 2, nobody(6), all)->miners,
            place(kVolume, segment(2), 2, nobody(6), all)->miners);
}

TEST(Placement, LoadFollowsWeight) {
  std::vector<Candidate> all;
  double total = 0;
  for (std::size_t i = 1; i <= 6; ++i) {
    all.push_back(miner(i, "d" + std::to_string(i), static_cast<double>(i)));
    total += static_cast<double>(i);
  }
  std::map<MinerId, int> load;
  constexpr int kSegments = 21000;
  for (int i = 0; i < kSegments; ++i) ++load[place(kVolume, segment(i), 0, nobody(1), all)->miners[0]];
  for (const Candidate& candidate : all) {
    const double expected = kSegments * candidate.weight / total;
    EXPECT_NEAR(load[candidate.id], expected, 5 * std::sqrt(expected)) << candidate.weight;
  }
}

// A new miner takes its share and nothing else moves: each segment changes by at most one miner, and then to
// the new one.
TEST(Placement, ANewMinerMovesOnlyItsShare) {
  const std::vector<Candidate> before = miners(11, 11);
  std::vector<Candidate> after = before;
  after.push_back(miner(99, "new"));
  int moved = 0;
  constexpr int kSegments = 4000;
  for (int i = 0; i < kSegments; ++i) {
    const auto a = place(kVolume, segment(i), 2, nobody(6), before)->miners;
    const auto b = place(kVolume, segment(i), 2, nobody(6), after)->miners;
    const std::set<MinerId> old(a.begin(), a.end());
    for (const MinerId& id : b)
      if (!old.contains(id)) {
        ++moved;
        ASSERT_EQ(id, after.back().id);
      }
  }
  EXPECT_NEAR(moved, kSegments * 6 / 12, 5 * std::sqrt(kSegments * 6 / 12));
}

TEST(Placement, KeepsWhatIsPlacedAndFillsTheGaps) {
  for (std::uint64_t seed = 1; seed <= 500; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    std::vector<Candidate> all = miners(7 + random() % 6, 4 + random() % 6);
    std::vector<MinerId> slots = place(kVolume, segment(seed), 2, nobody(6), all)->miners;
    // One or two miners fail: their slots are free and they are no candidates.
    for (std::size_t lost = 1 + random() % 2; lost > 0; --lost) {
      const MinerId gone = slots[random() % slots.size()];
      if (gone == MinerId{}) continue;
      std::erase_if(all, [&](const Candidate& candidate) { return candidate.id == gone; });
      std::ranges::replace(slots, gone, MinerId{});
    }
    const auto refilled = place(kVolume, segment(seed), 2, slots, all);
    if (!refilled) {
      EXPECT_LT(all.size() * 2, 6u);
      continue;
    }
    std::map<MinerId, std::size_t> load;
    std::set<std::string> domains;
    std::set<std::string> possible;
    for (const Candidate& candidate : all) possible.insert(candidate.domain);
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (slots[i] != MinerId{}) {
        EXPECT_EQ(refilled->miners[i], slots[i]);
      }
      ++load[refilled->miners[i]];
      domains.insert(domain_of(all, refilled->miners[i]));
    }
    EXPECT_EQ(load.size(), std::min<std::size_t>(6, all.size()));
    EXPECT_EQ(domains.size(), std::min<std::size_t>(6, possible.size()));
    EXPECT_EQ(refilled->crowded, all.size() < 6);
  }
}

TEST(Placement, OddWeightsAreSafe) {
  std::vector<Candidate> all = miners(6, 6);
  all[0].weight = 0;
  all[1].weight = -1;
  all[2].weight = std::numeric_limits<double>::quiet_NaN();
  all[3].weight = std::numeric_limits<double>::infinity();
  all[4].weight = std::numeric_limits<double>::min();
  std::mt19937_64 random(5);
  int to_odd = 0;
  for (std::uint64_t i = 0; i < 200; ++i) {
    const auto all_six = place(kVolume, segment(i), 2, nobody(6), all);
    ASSERT_TRUE(all_six);
    EXPECT_FALSE(all_six->crowded);
    std::vector<Candidate> shuffled = all;
    std::ranges::shuffle(shuffled, random);
    EXPECT_EQ(place(kVolume, segment(i), 2, nobody(6), shuffled)->miners, all_six->miners);
    const auto one = place(kVolume, segment(i), 2, nobody(1), all);
    to_odd += one->miners[0] != all[3].id ? 1 : 0;
  }
  EXPECT_EQ(to_odd, 0);
}

}  // namespace
}  // namespace cumulus
