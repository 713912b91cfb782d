// Header blocks of every message: what is asked and what is answered. The payload of PUT requests and READ
// and CHALLENGE answers is not in here: its length stands in the prelude.
//
// encode() appends the block; decode() is strict (everything read, every limit kept) and returns corrupt
// otherwise. Manifests, claims, records and holder states travel encoded and are verified by whoever uses
// them. Views in a decoded message point into the input. PROTOCOL.md has the grammar and a worked example.
// Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "netclient/wire/frame.h"
#include "netclient/wire/grant.h"
#include "objectstore/base/bytes.h"
#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"
#include "objectstore/slice_transport.h"

namespace cumulus::wire {

// First on every connection. Without a grant the connection may only PING and ask STATUS.
struct HelloRequest {
  static constexpr MessageType kType = MessageType::hello;
  std::uint16_t version_min = kProtocolVersion;
  std::uint16_t version_max = kProtocolVersion;
  std::uint64_t features = kFeatures;
  std::optional<Grant> grant;  // not verified by decode(): see Grant::verify
  std::string software;        // for people: "cumulus 0.1.0"

  void encode(Bytes& into) const;
  static Result<HelloRequest> decode(ByteView header);
};
struct HelloAnswer {
  std::uint16_t version = kProtocolVersion;
  std::uint64_t features = kFeatures;
  std::uint32_t requests_in_flight_max = kRequestsInFlightMax;
  std::uint64_t payload_in_flight_max = 0;  // bytes of PUT payload; 0 = no limit said
  std::string software;

  void encode(Bytes& into) const;
  static Result<HelloAnswer> decode(ByteView header);
};

// A message without fields: PING both ways, STATUS and SUPERBLOCK requests, PUT and DELETE answers.
struct Empty {
  void encode(Bytes&) const {}
  static Result<Empty> decode(ByteView header);
};

// From the miner: no new requests on this connection; those it has are answered.
struct Goaway {
  static constexpr MessageType kType = MessageType::goaway;
  std::string reason;

  void encode(Bytes& into) const;
  static Result<Goaway> decode(ByteView header);
};

struct ErrorAnswer {
  ErrorKind kind = ErrorKind::invalid;
  std::string message;  // at most kErrorTextMax; encode() cuts it

  Error error() const { return {kind, message}; }
  void encode(Bytes& into) const;
  static Result<ErrorAnswer> decode(ByteView header);
};

// Payload: the slice's stored bytes.
struct PutRequest {
  static constexpr MessageType kType = MessageType::put;
  SliceId slice;
  ByteView manifest;  // encoded; the miner verifies it

  void encode(Bytes& into) const;
  static Result<PutRequest> decode(ByteView header);
};

struct ByteRange {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  bool operator==(const ByteRange&) const = default;
};

struct ReadRequest {
  static constexpr MessageType kType = MessageType::read;
  SliceId slice;
  bool with_proof = false;        // answer the leaf-aligned cover of each range, and its Merkle proof
  bool with_manifest = false;     // ranges may then be empty
  std::vector<ByteRange> ranges;  // 1..16, together at most kPayloadMax

  void encode(Bytes& into) const;
  static Result<ReadRequest> decode(ByteView header);
};
// READ and CHALLENGE. Payload: the ranges' bytes, in the order asked, nothing between them.
struct ReadAnswer {
  struct Range {
    ByteRange bytes;  // as asked; with_proof: the leaf-aligned cover (the last leaf may be short)
    ByteView proof;
  };
  std::vector<Range> ranges;
  ByteView manifest;  // encoded; empty unless asked for

  std::uint64_t payload_length() const;
  void encode(Bytes& into) const;
  static Result<ReadAnswer> decode(ByteView header);
};

struct ListRequest {
  static constexpr MessageType kType = MessageType::list;
  std::uint16_t slices_max = kListSlicesMax;  // 1..kListSlicesMax
  std::optional<ByteView> from;               // a page's `next`

  void encode(Bytes& into) const;
  static Result<ListRequest> decode(ByteView header);
};
struct ListAnswer {
  struct Slice {
    std::uint16_t index = 0;
    ByteView manifest;
    // Bytes that one entry takes in a page: a miner fills pages up to kListBytesMax by it.
    static std::size_t encoded_size(std::size_t manifest_size) { return 2 + 3 + manifest_size; }
  };
  std::vector<Slice> slices;     // ordered by SliceId
  std::optional<ByteView> next;  // absent: the end

  void encode(Bytes& into) const;
  static Result<ListAnswer> decode(ByteView header);
};

struct HaveRequest {
  static constexpr MessageType kType = MessageType::have;
  std::vector<SliceId> slices;  // 1..kBatchMax

  void encode(Bytes& into) const;
  static Result<HaveRequest> decode(ByteView header);
};
struct HaveAnswer {
  std::vector<std::optional<Digest>> roots;  // one for each slice asked

  void encode(Bytes& into) const;
  static Result<HaveAnswer> decode(ByteView header);
};

// Slices that are not there count as deleted.
struct RemoveRequest {
  static constexpr MessageType kType = MessageType::remove;
  std::vector<SliceId> slices;  // 1..kBatchMax

  void encode(Bytes& into) const;
  static Result<RemoveRequest> decode(ByteView header);
};

struct ChallengeRequest {
  static constexpr MessageType kType = MessageType::challenge;
  SliceId slice;
  std::uint64_t leaf = 0;

  void encode(Bytes& into) const;
  static Result<ChallengeRequest> decode(ByteView header);
};

struct PromiseRequest {
  static constexpr MessageType kType = MessageType::promise;
  ByteView claim;  // encoded BallotClaim

  void encode(Bytes& into) const;
  static Result<PromiseRequest> decode(ByteView header);
};
struct AcceptRequest {
  static constexpr MessageType kType = MessageType::accept;
  ByteView record;  // encoded Superblock

  void encode(Bytes& into) const;
  static Result<AcceptRequest> decode(ByteView header);
};
// PROMISE, ACCEPT and SUPERBLOCK (whose `accepted` is always true).
struct HolderMessage {
  bool accepted = false;
  ByteView state;  // encoded HolderState

  void encode(Bytes& into) const;
  static Result<HolderMessage> decode(ByteView header);
};

struct StatusAnswer {
  MinerStatus status;

  void encode(Bytes& into) const;
  static Result<StatusAnswer> decode(ByteView header);
};

void encode_slice(Bytes& into, const SliceId& slice);  // 19 bytes

}  // namespace cumulus::wire
