// SimMiner: a storage node's rules in memory, and the ways it may fail or lie. What put, remove, promise and
// accept changed is durable when they return, as the real miner's is: a crash loses only what was not
// answered. It knows no network and no time (sim_network.h adds both). Reactor thread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "objectstore/base/random.h"
#include "objectstore/slice_transport.h"
#include "objectstore/superblock.h"

namespace cumulus {

// What a miner or the network did to a run: counted, so that a simulation can show that its faults happened.
enum class SimFault : std::uint8_t {
  request_lost,
  answer_lost,
  request_duplicated,
  connection_refused,  // the miner is dead
  cut_off,             // a partition between this client and the miner
  crashed_inside,      // the miner died while it worked on a request
  full,
  read_only,
  wrong_bytes,
  wrong_bytes_with_proof,
  other_slice,
  put_forgotten,
  old_state,
  rotten,  // the miner itself noticed rot
  count
};
std::string_view to_string(SimFault fault);
using SimFaultCounts = std::array<std::uint64_t, static_cast<std::size_t>(SimFault::count)>;

// How a miner misbehaves; each share is of 1000 requests.
struct SimMinerLies {
  unsigned wrong_bytes = 0;             // a read's bytes are altered
  unsigned wrong_bytes_with_proof = 0;  // altered, with a proof that fits the altered slice
  unsigned other_slice = 0;             // another slice's bytes (and its proof)
  unsigned put_forgotten = 0;           // acknowledged, dropped; HAVE and LIST still claim it
  unsigned old_state = 0;               // an older holder state; ACCEPT and PROMISE say yes and keep nothing
};

class SimMiner {
 public:
  SimMiner(MinerId id, std::uint64_t capacity, Random& random, SimFaultCounts& faults);

  const MinerId& id() const { return id_; }

  struct ReadOutcome {
    std::uint64_t offset = 0;
    Bytes bytes;
    Bytes proof;
    Bytes manifest;
  };
  Status put(const VolumeId& volume, const SliceId& slice, ByteView manifest, ByteView data);
  Result<ReadOutcome> read(const VolumeId& volume, const SliceId& slice, std::uint64_t offset,
                           std::uint64_t length, bool with_proof, bool with_manifest);
  Result<SliceListPage> list(const VolumeId& volume, const std::optional<Bytes>& from);
  Result<std::vector<std::optional<Digest>>> have(const VolumeId& volume, const std::vector<SliceId>& slices);
  Status remove(const VolumeId& volume, const std::vector<SliceId>& slices);
  Result<HolderAnswer> promise(const VolumeId& volume, const BallotClaim& claim);
  Result<HolderAnswer> accept(const VolumeId& volume, const Superblock& record);
  Result<HolderState> superblock(const VolumeId& volume);
  Result<ReadOutcome> challenge(const VolumeId& volume, const SliceChallenge& request);
  Result<MinerStatus> status(const VolumeId& volume);

  // What a test does to it.
  void allow_only(std::set<VolumeId> volumes) { allowed_ = std::move(volumes); }
  void set_quota(std::uint64_t bytes) { quota_ = bytes; }
  void set_capacity(std::uint64_t bytes) { capacity_ = bytes; }
  void set_read_only(bool value) { read_only_ = value; }
  void set_draining(bool value) { draining_ = value; }
  void set_page_slices(std::size_t count) { page_slices_ = count; }
  void set_lies(SimMinerLies lies) { lies_ = lies; }
  // Breaks the holder's rule, to show that a simulation sees it: any record and any promise is taken.
  void canary_hold_anything() { holds_anything_ = true; }
  void wipe();
  // Alters stored bytes of up to `count` slices, unnoticed until they are read with a proof, listed by have()
  // or scrubbed. Returns how many.
  std::size_t rot(std::size_t count);
  // Takes notice of rot, as the real miner's scrub does: such slices are then absent.
  void scrub();

  // What a test looks at.
  std::uint64_t used() const { return used_; }
  std::size_t slice_count(const VolumeId& volume) const;
  bool holds(const VolumeId& volume, const SliceId& slice) const;  // with the right bytes
  const HolderState* holder_state(const VolumeId& volume) const;
  // Every slice that it ever acknowledged, whatever became of it.
  const std::set<std::pair<VolumeId, SliceId>>& acknowledged() const { return acknowledged_; }
  // Every slice that it stores with the right bytes: its manifest and its bytes. Of segments after `after`.
  void for_each_intact(const VolumeId& volume,
                       const std::function<void(const SliceId&, ByteView manifest, ByteView data)>& visit,
                       Sequence after = 0) const;

 private:
  struct Stored {
    Bytes manifest;
    Bytes data;  // empty when forgotten
    Digest root{};
    bool forgotten = false;
    std::uint64_t charged = 0;
  };
  struct Volume {
    std::map<SliceId, Stored> slices;
    std::uint64_t used = 0;
    HolderState holder;
    std::vector<HolderState> history;  // for old_state
  };
  Result<Volume*> admit(const VolumeId& volume);
  bool happens(unsigned share);
  void count(SimFault fault) { ++faults_[static_cast<std::size_t>(fault)]; }
  Status check_room(const Volume& volume, std::uint64_t size);
  bool intact(const Stored& stored) const;
  void alter(Bytes& bytes);
  HolderAnswer hold(Volume& volume, HolderAnswer answer);

  MinerId id_;
  std::set<std::pair<VolumeId, SliceId>> acknowledged_;
  std::uint64_t capacity_;
  Random& random_;
  SimFaultCounts& faults_;
  std::uint64_t quota_ = UINT64_MAX;
  std::uint64_t used_ = 0;
  std::size_t page_slices_ = 1024;
  bool read_only_ = false;
  bool draining_ = false;
  bool holds_anything_ = false;
  SimMinerLies lies_;
  std::optional<std::set<VolumeId>> allowed_;  // absent: every volume
  std::map<VolumeId, Volume> volumes_;
};

}  // namespace cumulus
