// The identities that cross rooms: strong types, so that a sequence is never taken for an object. Pure; any
// thread.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"

namespace cumulus {

// 256-bit names. VolumeId = SHA-256 of the volume's Ed25519 signing key (FORMAT.md, keys); MinerId = the
// miner's raw Ed25519 public key.
template <class Tag, std::size_t N>
struct FixedId {
  std::array<std::uint8_t, N> bytes{};

  auto operator<=>(const FixedId&) const = default;
  ByteView view() const { return bytes; }
  std::string hex() const { return to_hex(bytes); }
  // The first 8 hex digits: for people, never for lookup.
  std::string brief() const { return hex().substr(0, 8); }
  static Result<FixedId> parse(std::string_view hex) {
    FixedId id;
    if (!from_hex(hex, id.bytes))
      return fail(ErrorKind::invalid, "'" + std::string(hex.substr(0, 80)) + "' is not an identity of " +
                                          std::to_string(N * 2) + " hex digits");
    return id;
  }
};

struct VolumeTag;
struct MinerTag;
struct InstanceTag;
using VolumeId = FixedId<VolumeTag, 32>;
using MinerId = FixedId<MinerTag, 32>;
using InstanceId = FixedId<InstanceTag, 16>;  // drawn at random each time a volume is opened for writing

using Epoch = std::uint64_t;  // grows when another home takes the volume over
using Sequence =
    std::uint64_t;  // numbers the segments of one kind of log; 1 is the first, continues across epochs

enum class SegmentKind : std::uint8_t {
  log = 1,       // groups of the volume's log
  bulk = 2,      // cells only, named by groups of the log
  index = 3,     // files of a checkpoint
  manifest = 4,  // a checkpoint's manifest
};

// A segment's identity within its volume. Each kind has its own sequence, so that the log's has no gaps.
struct SegmentId {
  SegmentKind kind = SegmentKind::log;
  Epoch epoch = 0;
  Sequence sequence = 0;
  auto operator<=>(const SegmentId&) const = default;
};

// A slice's identity within its volume: the segment, and 0..k+m-1.
struct SliceId {
  SegmentId segment;
  std::uint16_t index = 0;
  auto operator<=>(const SliceId&) const = default;
};

// Who may write: totally ordered; the highest ballot that a quorum promised is the writer
// (objectstore/FORMAT.md, "Quorums").
struct Ballot {
  Epoch epoch = 0;
  std::uint64_t open_number = 0;
  InstanceId instance;
  auto operator<=>(const Ballot&) const = default;
};

// A position in the log: the number of a group. Group 0 does not exist; "everything up to and including group
// n".
using LogPosition = std::uint64_t;

using DatasetId = std::uint32_t;  // 0 is the catalogue
using ObjectId = std::uint64_t;   // < 2^48, never used again within a dataset
using Version = std::uint64_t;    // a dataset's version counter

inline constexpr ObjectId kObjectIdMax = (std::uint64_t{1} << 48) - 1;

}  // namespace cumulus

template <class Tag, std::size_t N>
struct std::hash<cumulus::FixedId<Tag, N>> {
  // The bytes are digests, keys or random draws: any eight of them are a hash.
  std::size_t operator()(const cumulus::FixedId<Tag, N>& id) const noexcept {
    std::size_t value;
    static_assert(N >= sizeof value);
    std::memcpy(&value, id.bytes.data(), sizeof value);
    return value;
  }
};
template <>
struct std::hash<cumulus::SegmentId> {
  std::size_t operator()(const cumulus::SegmentId& id) const noexcept {
    return std::hash<std::uint64_t>()((id.sequence * 0x9E3779B97F4A7C15u ^ id.epoch) * 4 +
                                      static_cast<std::uint64_t>(id.kind));
  }
};
