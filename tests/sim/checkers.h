// The simulator's checkers: what must hold after every step, crash and recovery, whatever the faults were.
// Each says the first violation that it finds, in words. One thread.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>

#include "objectstore/object_store.h"
#include "tests/fakes/seeded_random.h"
#include "tests/sim/cluster.h"
#include "tests/sim/store_model.h"

namespace cumulus {

using Violation = std::optional<std::string>;

// What a comparison with the model found: nothing, a difference, or that something could not be read.
struct Comparison {
  std::string difference;
  std::optional<Error> unreadable;
  bool same() const { return difference.empty() && !unreadable; }
};

// Reads the volume, all of it at the heads and a part in snapshots, against the model.
Task<Comparison> compare_volume(Volume& volume, const StoreModel& model, SeededRandom& random);
// One object at one view.
Task<Comparison> compare_object(Volume& volume, View view, ObjectId id, const ModelObject* expected,
                                std::string where);

// No (segment key, nonce) seals two plaintexts: every group that ever lay on a disk or a miner is remembered.
class NonceChecker {
 public:
  // Looks at the slots of a home and at what the miners hold.
  Violation look(Cluster& cluster, Home& home);
  // Looks at what changed on the home's disk since it last did.
  Violation look_at_changes(Cluster& cluster, Home& home);
  std::uint64_t groups() const { return seen_.size(); }

 private:
  Violation look_at_segment(const KeyTree& keys, ByteView bytes, std::uint64_t length);

  // Segment, salt, nonce, offset -> the sealed header behind it.
  using Use = std::tuple<SegmentId, std::array<std::uint8_t, 16>, std::uint64_t, std::uint64_t>;
  std::map<Use, Bytes> seen_;
  std::map<std::string, std::uint64_t> looked_;  // by home: its disk's changes up to which
  std::set<Bytes> whole_;                        // manifests of segments from miners that were looked at
};

// Holders: nothing accepted or promised is ever taken back by an honest one, and no two records of one
// version are accepted by quorums.
class HolderChecker {
 public:
  Violation look(Cluster& cluster);
  // The newest record that a quorum of holders has accepted.
  const std::optional<Superblock>& newest() const { return newest_; }

 private:
  std::map<std::size_t, std::pair<Ballot, std::uint64_t>> highest_;  // by miner: ballot and version accepted
  std::map<std::uint64_t, std::map<Digest, std::set<std::size_t>>> accepted_;  // version -> record -> holders
  std::map<std::uint64_t, Digest> chosen_;
  std::optional<Superblock> newest_;
};

// Holders whose accepted record's tail reaches the position.
std::size_t holders_covering(Cluster& cluster, LogPosition position);

// R2: every segment up to the tail is on the miners and chains to it.
Violation check_tail(Cluster& cluster, const Superblock& record);

// Can every stored segment be read by this home now? What a failed read must answer for.
bool all_readable(Cluster& cluster, const Home& home, bool when_healed);
// Can every stored segment be read from the miners that never fail? So it is when none is crowded.
bool good_miners_suffice(Cluster& cluster);
// Is a segment lost that was stored, all of its slices acknowledged? Miners that never fail hold k slices of
// every segment whose slices went to k + m different miners, so it was crowded: several of its slices went to
// miners that failed, since no others were there. status said so, and a repair that came too late for it lost
// nothing that was promised.
bool crowded_ones_are_lost(Cluster& cluster);

}  // namespace cumulus
