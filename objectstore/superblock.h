// Superblock, ballots and the holder's rule: the one record that says what is stored (R2). A door: the miner
// keeps it.
//
// The superblock is one register agreed on by a quorum of holders, as in single-decree Paxos with a stable
// leader (Lamport, "Paxos Made Simple", 2001): opening for write promises a ballot at a quorum; every update
// is accepted by a quorum under that ballot. FORMAT.md has the layout and the quorum arithmetic. Pure; any
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/clock.h"
#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"

namespace cumulus {

class SigningKey;

// n holders, quorum q: any two quorums meet; n - q holders may be away, and 2q - n - 1 may lie about
// freshness.
struct QuorumShape {
  std::uint32_t holders = 0;
  std::uint32_t quorum = 0;
  std::uint32_t may_be_away() const { return holders - quorum; }
  std::uint32_t may_lie() const { return 2 * quorum - holders - 1; }
  // n = min(miners, max(3, 3m+1)); q = max(n-m, floor(n/2)+1). `miners` >= 1.
  static QuorumShape for_volume(std::uint32_t miners, std::uint8_t m);
  // The quorum of an existing set of n holders.
  static std::uint32_t quorum_of(std::uint32_t holders, std::uint8_t m);
};

// What is stored: every log segment up to and including `through` is on the miners, whole.
struct Tail {
  SegmentId through;         // {0,0}: nothing yet
  Digest chain{};            // chain value of `through`
  LogPosition position = 0;  // last group in it
  bool operator==(const Tail&) const = default;
};

struct CheckpointRef {
  LogPosition position = 0;
  SegmentId manifest_segment;
  Digest manifest_digest{};
  bool operator==(const CheckpointRef&) const = default;
};

struct Superblock {
  static constexpr std::size_t kEncodedSizeMax = 64 * 1024;
  static constexpr std::size_t kHoldersMax = 64;

  VolumeId volume;
  std::array<std::uint8_t, 32> sign_public_key{};
  Ballot ballot;              // under which it was proposed
  std::uint64_t version = 0;  // grows with every record, gaps allowed
  Digest previous{};          // digest of the record it replaces
  std::uint8_t k = 0;
  std::uint8_t m = 0;
  std::uint8_t segment_log2 = 23;
  std::uint64_t features = 0;  // incompatible-feature bits of the volume
  std::uint64_t holder_generation = 1;
  std::vector<MinerId> holders;
  // While the holder set changes: a record counts only when a quorum of both sets accepted it.
  std::vector<MinerId> next_holders;
  Tail tail;
  std::array<CheckpointRef, 2> checkpoints{};  // newest first
  bool closed_cleanly = false;
  bool destroyed = false;
  WallTime written_at = 0;
  Bytes sealed_miners;  // encrypted miner list (AES-256-GCM under the read key; layout in FORMAT.md)
  Bytes sealed_writer;  // encrypted writer label: host, user, opened at
  std::array<std::uint8_t, 64> signature{};

  bool operator==(const Superblock&) const = default;
  Bytes encode() const;
  // Parsed, within limits, volume id and signature verified; corrupt / unsupported otherwise.
  static Result<Superblock> decode(ByteView bytes);
  Digest digest() const;  // of the encoded record, signature included
  // Which of two records a reader takes as the newest: the higher ballot, then the higher version.
  bool newer_than(const Superblock& other) const;
};
void sign_superblock(Superblock& record, const SigningKey& key);

// A signed statement "I, the owner, open with this ballot": what PROMISE carries, and what shows a fenced
// writer that a higher ballot exists before its first record does.
struct BallotClaim {
  static constexpr std::size_t kEncodedSizeMax = 256;
  VolumeId volume;
  std::array<std::uint8_t, 32> sign_public_key{};
  Ballot ballot;
  std::array<std::uint8_t, 64> signature{};

  bool operator==(const BallotClaim&) const = default;
  Bytes encode() const;
  static Result<BallotClaim> decode(ByteView bytes);
};
void sign_claim(BallotClaim& claim, const SigningKey& key);

// What a holder has durably: its highest promise and the record it accepted last.
struct HolderState {
  std::optional<BallotClaim> promised;
  std::optional<Superblock> accepted;

  static constexpr std::size_t kEncodedSizeMax =
      16 + BallotClaim::kEncodedSizeMax + Superblock::kEncodedSizeMax;

  Ballot highest_ballot() const;  // promised or accepted; {} when neither
  Bytes encode() const;
  // Both parts verified, and of one volume.
  static Result<HolderState> decode(ByteView bytes);
};

// A holder's answer to either request; `accepted` false means that `state` shows a higher ballot or version
// (or the destroyed mark) and why the request was refused.
struct HolderAnswer {
  bool accepted = false;
  HolderState state;
};

// The rule, pure: the caller makes the new state durable before it answers. A promise is taken for a ballot
// higher than or equal to the highest promised; a record only under the highest ballot promised (promising it
// on the way when it is higher) and with a higher version than the accepted one, or the identical record
// again. A destroyed volume takes nothing.
HolderAnswer hold_promise(const HolderState& state, const BallotClaim& claim);
HolderAnswer hold_accept(const HolderState& state, const Superblock& record);

}  // namespace cumulus
