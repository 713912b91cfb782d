// SliceTransport: the port to the miners, declared by the heart and implemented by netclient (TCP + TLS 1.3),
// and by tests/fakes for simulation. Both pass tests/contract/slice_transport_contract.
//
// Every call ends by its deadline. Errors: unavailable (no connection, timeout, overload, shutting down),
// not_found (the miner answers and has no such slice), corrupt (the miner's answer does not parse, or what it
// was sent did not verify there), no_space (disk or quota), denied (volume not allowed there, or identity not
// the pinned one), exists (the same identity stored with another root), fenced (destroyed volume), invalid
// (our request is wrong), unsupported. One retry policy lives behind the port (connection-level, per miner);
// callers try *other miners*, never the same again. Thread rule: reactor thread. A miner is not trusted: what
// comes back is bytes, verified by the caller.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/clock.h"
#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"
#include "objectstore/io/task.h"
#include "objectstore/superblock.h"

namespace cumulus {

// One line of the volume's miner list: what the owner says of a miner, never the miner's own word.
struct MinerEntry {
  MinerId id;
  std::string address;         // host:port
  std::string domain;          // failure domain
  std::uint64_t capacity = 0;  // bytes, as the owner was told; 0 = unknown
  double weight = 1.0;
  bool operator==(const MinerEntry&) const = default;
};

struct SlicePut {
  SliceId slice;
  std::shared_ptr<const Bytes> manifest;  // encoded
  // The slice's stored bytes: a view into `owner`, which is kept until the call is done.
  ByteView data;
  std::shared_ptr<const void> owner;
};

struct SliceRead {
  SliceId slice;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  bool with_proof = false;  // leaf-aligned cover + Merkle proof instead of the bare range
  bool with_manifest = false;
  // Where the bare range goes: `length` bytes inside `owner`. Not written after the call returned, nor is the
  // owner held then.
  MutableByteView into;
  std::shared_ptr<void> owner;
};

struct SliceReadAnswer {
  // with_proof: bytes of the leaves that cover the range, from `leaves_offset` on, and their proof
  // (crypto/merkle.h).
  std::uint64_t leaves_offset = 0;
  Bytes leaves;
  Bytes proof;
  Bytes manifest;  // with_manifest: encoded, not yet verified
};

// One slice in a listing: the miner's word, signed by nobody but for the manifest.
struct SliceListing {
  std::uint16_t index = 0;
  Bytes manifest;  // encoded, not yet verified
};

struct SliceListPage {
  std::vector<SliceListing> slices;  // ordered by SliceId
  std::optional<Bytes> next;         // pass it back for the next page; absent: the end
};

struct MinerStatus {
  std::uint64_t capacity = 0;
  std::uint64_t used = 0;
  std::uint64_t volume_quota = 0;
  std::uint64_t volume_used = 0;
  std::uint64_t volume_slices = 0;
  bool draining = false;
  bool read_only = false;  // its disk refuses writes
  std::string version;
};

// A possession challenge: leaf `leaf` of the slice, salted, with its path.
struct SliceChallenge {
  SliceId slice;
  std::uint64_t leaf = 0;
};

// Kinds of calls, for interrupt(). `asked`: what somebody waits for, so all but put, promise, accept and
// superblock, which see to it that the volume is stored.
enum class Calls : std::uint8_t { asked, all };

// What a miner's answer was, for a person. A transport names a miner that it could not reach itself.
inline std::string said_by(const MinerId& miner, const Error& error) {
  return error.message().starts_with("miner ") ? error.message()
                                               : "miner " + miner.brief() + ": " + error.message();
}

class SliceTransport {
 public:
  virtual ~SliceTransport() = default;

  // The miners known now, in list order. Changed only by set_miners().
  virtual const std::vector<MinerEntry>& miners() const = 0;
  virtual void set_miners(std::vector<MinerEntry> miners) = 0;

  // Durable on the miner's disk when it returns. The same slice with the same root again: success.
  virtual Task<Status> put(MinerId miner, SlicePut request, TimePoint deadline) = 0;
  virtual Task<Result<SliceReadAnswer>> read(MinerId miner, SliceRead request, TimePoint deadline) = 0;
  virtual Task<Result<SliceListPage>> list(MinerId miner, std::optional<Bytes> from, TimePoint deadline) = 0;
  // For each slice the Merkle root that the miner stores for it; absent when it has none, or found rot in it.
  virtual Task<Result<std::vector<std::optional<Digest>>>> have(MinerId miner, std::vector<SliceId> slices,
                                                                TimePoint deadline) = 0;
  virtual Task<Status> remove(MinerId miner, std::vector<SliceId> slices, TimePoint deadline) = 0;
  virtual Task<Result<HolderAnswer>> promise(MinerId miner, BallotClaim claim, TimePoint deadline) = 0;
  virtual Task<Result<HolderAnswer>> accept(MinerId miner, Superblock record, TimePoint deadline) = 0;
  // The holder's state without changing it.
  virtual Task<Result<HolderState>> superblock(MinerId miner, TimePoint deadline) = 0;
  virtual Task<Result<SliceReadAnswer>> challenge(MinerId miner, SliceChallenge request,
                                                  TimePoint deadline) = 0;
  virtual Task<Result<MinerStatus>> status(MinerId miner, TimePoint deadline) = 0;

  // Forgets that miners could not be reached lately: the next call to each tries at once, as a person who
  // asks for something now expects.
  virtual void try_now() = 0;
  // Calls of these kinds that are under way end with `closed` at once: nobody wants their answers any more.
  // What they asked may happen at the miner all the same. Later calls go on as ever.
  virtual void interrupt(Calls which) = 0;
  // The same for reads whose `owner` is this one.
  virtual void interrupt_reads(const void* owner) = 0;
  // What a small read from this miner takes now (smoothed; a failing miner's grows): the reader hedges by it.
  virtual Duration expected_latency(MinerId miner) const = 0;
  // Ends connections; calls in flight fail with closed. Call once, before destruction.
  virtual Task<void> close() = 0;
};

}  // namespace cumulus
