#include "netclient/wire/messages.h"

#include "objectstore/base/codec.h"
#include "objectstore/manifest.h"

namespace cumulus::wire {
namespace {

constexpr std::size_t kClaimMax = BallotClaim::kEncodedSizeMax;
constexpr std::size_t kRecordMax = Superblock::kEncodedSizeMax;

// The kinds have numbers of their own on the wire, so that the enum may be reordered.
constexpr ErrorKind kKinds[] = {ErrorKind::not_found,   ErrorKind::exists,  ErrorKind::no_space,
                                ErrorKind::unavailable, ErrorKind::corrupt, ErrorKind::fenced,
                                ErrorKind::invalid,     ErrorKind::denied,  ErrorKind::unsupported,
                                ErrorKind::closed,      ErrorKind::io};

std::unexpected<Error> malformed(std::string_view message) {
  return fail(ErrorKind::corrupt, "malformed " + std::string(message));
}

// Ends a strict parser: the value when everything was read and every limit kept.
template <class T>
Result<T> finish(const Decoder& in, T value, std::string_view message) {
  if (!in.done()) return malformed(message);
  return value;
}

bool flag(Decoder& in) {
  const std::uint8_t value = in.u8();
  if (value > 1) in.mark_bad();
  return value == 1;
}

SliceId slice(Decoder& in) {
  SliceId id;
  const std::uint8_t kind = in.u8();
  if (kind < static_cast<std::uint8_t>(SegmentKind::log) ||
      kind > static_cast<std::uint8_t>(SegmentKind::manifest))
    in.mark_bad();
  id.segment.kind = static_cast<SegmentKind>(kind);
  id.segment.epoch = in.u64();
  id.segment.sequence = in.u64();
  id.index = in.u16();
  return id;
}

std::vector<SliceId> slices(Decoder& in) {
  const std::size_t count = in.varint_max(kBatchMax);
  if (count == 0) in.mark_bad();
  std::vector<SliceId> ids;
  if (in.ok()) ids.reserve(count);
  for (std::size_t i = 0; i < count && in.ok(); ++i) ids.push_back(slice(in));
  return ids;
}

void put_slices(Bytes& into, const std::vector<SliceId>& ids) {
  Encoder(into).varint(ids.size());
  for (const SliceId& id : ids) encode_slice(into, id);
}

ByteRange range(Decoder& in) {
  ByteRange bytes;
  bytes.offset = in.varint();
  bytes.length = in.varint_max(kPayloadMax);
  if (bytes.offset > UINT64_MAX - bytes.length) in.mark_bad();
  return bytes;
}

void put_range(Encoder& out, const ByteRange& bytes) {
  out.varint(bytes.offset);
  out.varint(bytes.length);
}

void put_optional(Encoder& out, const std::optional<ByteView>& value) {
  out.u8(value.has_value() ? 1 : 0);
  if (value) out.block(*value);
}

std::optional<ByteView> optional_block(Decoder& in, std::size_t most) {
  if (!flag(in)) return std::nullopt;
  return in.block(most);
}

}  // namespace

void encode_slice(Bytes& into, const SliceId& id) {
  Encoder out(into);
  out.u8(static_cast<std::uint8_t>(id.segment.kind));
  out.u64(id.segment.epoch);
  out.u64(id.segment.sequence);
  out.u16(id.index);
}

void HelloRequest::encode(Bytes& into) const {
  Encoder out(into);
  out.u16(version_min);
  out.u16(version_max);
  out.u64(features);
  out.u8(grant.has_value() ? 1 : 0);
  if (grant) grant->encode(into);
  out.text(std::string_view(software).substr(0, kVersionTextMax));
}

Result<HelloRequest> HelloRequest::decode(ByteView header) {
  Decoder in(header);
  HelloRequest hello;
  hello.version_min = in.u16();
  hello.version_max = in.u16();
  hello.features = in.u64();
  if (flag(in)) {
    TRY(hello.grant, Grant::decode(in.bytes(Grant::kEncodedSize)));
  }
  hello.software = in.text(kVersionTextMax);
  if (hello.version_min > hello.version_max) in.mark_bad();
  return finish(in, std::move(hello), "HELLO");
}

void HelloAnswer::encode(Bytes& into) const {
  Encoder out(into);
  out.u16(version);
  out.u64(features);
  out.u32(requests_in_flight_max);
  out.u64(payload_in_flight_max);
  out.text(std::string_view(software).substr(0, kVersionTextMax));
}

Result<HelloAnswer> HelloAnswer::decode(ByteView header) {
  Decoder in(header);
  HelloAnswer hello;
  hello.version = in.u16();
  hello.features = in.u64();
  hello.requests_in_flight_max = in.u32();
  hello.payload_in_flight_max = in.u64();
  hello.software = in.text(kVersionTextMax);
  return finish(in, std::move(hello), "HELLO answer");
}

Result<Empty> Empty::decode(ByteView header) {
  if (!header.empty()) return malformed("message: it should have no header");
  return Empty{};
}

void Goaway::encode(Bytes& into) const {
  Encoder(into).text(std::string_view(reason).substr(0, kErrorTextMax));
}

Result<Goaway> Goaway::decode(ByteView header) {
  Decoder in(header);
  Goaway goaway{std::string(in.text(kErrorTextMax))};
  return finish(in, std::move(goaway), "GOAWAY");
}

void ErrorAnswer::encode(Bytes& into) const {
  Encoder out(into);
  std::uint8_t number = 0;
  for (std::size_t i = 0; i < std::size(kKinds); ++i)
    if (kKinds[i] == kind) number = static_cast<std::uint8_t>(i + 1);
  out.u8(number);
  out.text(std::string_view(message).substr(0, kErrorTextMax));
}

Result<ErrorAnswer> ErrorAnswer::decode(ByteView header) {
  Decoder in(header);
  ErrorAnswer answer;
  const std::uint8_t number = in.u8();
  if (number == 0 || number > std::size(kKinds)) return malformed("error answer");
  answer.kind = kKinds[number - 1];
  answer.message = in.text(kErrorTextMax);
  return finish(in, std::move(answer), "error answer");
}

void PutRequest::encode(Bytes& into) const {
  encode_slice(into, slice);
  Encoder(into).block(manifest);
}

Result<PutRequest> PutRequest::decode(ByteView header) {
  Decoder in(header);
  PutRequest put;
  put.slice = wire::slice(in);
  put.manifest = in.block(Manifest::kEncodedSizeMax);
  return finish(in, put, "PUT");
}

void ReadRequest::encode(Bytes& into) const {
  encode_slice(into, slice);
  Encoder out(into);
  out.u8(static_cast<std::uint8_t>((with_proof ? 1 : 0) | (with_manifest ? 2 : 0)));
  out.varint(ranges.size());
  for (const ByteRange& bytes : ranges) put_range(out, bytes);
}

Result<ReadRequest> ReadRequest::decode(ByteView header) {
  Decoder in(header);
  ReadRequest read;
  read.slice = wire::slice(in);
  const std::uint8_t flags = in.u8();
  if (flags > 3) in.mark_bad();
  read.with_proof = (flags & 1) != 0;
  read.with_manifest = (flags & 2) != 0;
  const std::size_t count = in.varint_max(kReadRangesMax);
  if (count == 0 && !read.with_manifest) in.mark_bad();
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < count && in.ok(); ++i) {
    read.ranges.push_back(range(in));
    total += read.ranges.back().length;
  }
  if (total > kPayloadMax) in.mark_bad();
  return finish(in, std::move(read), "READ");
}

std::uint64_t ReadAnswer::payload_length() const {
  std::uint64_t total = 0;
  for (const Range& part : ranges) total += part.bytes.length;
  return total;
}

void ReadAnswer::encode(Bytes& into) const {
  Encoder out(into);
  out.varint(ranges.size());
  for (const Range& part : ranges) {
    put_range(out, part.bytes);
    out.block(part.proof);
  }
  out.block(manifest);
}

Result<ReadAnswer> ReadAnswer::decode(ByteView header) {
  Decoder in(header);
  ReadAnswer answer;
  const std::size_t count = in.varint_max(kReadRangesMax);
  for (std::size_t i = 0; i < count && in.ok(); ++i) {
    Range part;
    part.bytes = range(in);
    part.proof = in.block(kProofMax);
    answer.ranges.push_back(part);
  }
  answer.manifest = in.block(Manifest::kEncodedSizeMax);
  if (answer.payload_length() > kPayloadMax) in.mark_bad();
  return finish(in, std::move(answer), "READ answer");
}

void ListRequest::encode(Bytes& into) const {
  Encoder out(into);
  out.u16(slices_max);
  put_optional(out, from);
}

Result<ListRequest> ListRequest::decode(ByteView header) {
  Decoder in(header);
  ListRequest list;
  list.slices_max = in.u16();
  if (list.slices_max == 0 || list.slices_max > kListSlicesMax) in.mark_bad();
  list.from = optional_block(in, kCursorMax);
  return finish(in, list, "LIST");
}

void ListAnswer::encode(Bytes& into) const {
  Encoder out(into);
  out.varint(slices.size());
  for (const Slice& one : slices) {
    out.u16(one.index);
    out.block(one.manifest);
  }
  put_optional(out, next);
}

Result<ListAnswer> ListAnswer::decode(ByteView header) {
  Decoder in(header);
  ListAnswer answer;
  const std::size_t count = in.varint_max(kListSlicesMax);
  for (std::size_t i = 0; i < count && in.ok(); ++i) {
    Slice one;
    one.index = in.u16();
    one.manifest = in.block(Manifest::kEncodedSizeMax);
    answer.slices.push_back(one);
  }
  answer.next = optional_block(in, kCursorMax);
  return finish(in, std::move(answer), "LIST answer");
}

void HaveRequest::encode(Bytes& into) const { put_slices(into, slices); }

Result<HaveRequest> HaveRequest::decode(ByteView header) {
  Decoder in(header);
  HaveRequest have{wire::slices(in)};
  return finish(in, std::move(have), "HAVE");
}

void HaveAnswer::encode(Bytes& into) const {
  Encoder out(into);
  out.varint(roots.size());
  for (const auto& root : roots) {
    out.u8(root.has_value() ? 1 : 0);
    if (root) out.bytes(*root);
  }
}

Result<HaveAnswer> HaveAnswer::decode(ByteView header) {
  Decoder in(header);
  HaveAnswer answer;
  const std::size_t count = in.varint_max(kBatchMax);
  for (std::size_t i = 0; i < count && in.ok(); ++i) {
    const bool present = flag(in);
    answer.roots.emplace_back();
    if (present) answer.roots.back() = in.array<32>();
  }
  return finish(in, std::move(answer), "HAVE answer");
}

void RemoveRequest::encode(Bytes& into) const { put_slices(into, slices); }

Result<RemoveRequest> RemoveRequest::decode(ByteView header) {
  Decoder in(header);
  RemoveRequest remove{wire::slices(in)};
  return finish(in, std::move(remove), "DELETE");
}

void ChallengeRequest::encode(Bytes& into) const {
  encode_slice(into, slice);
  Encoder(into).varint(leaf);
}

Result<ChallengeRequest> ChallengeRequest::decode(ByteView header) {
  Decoder in(header);
  ChallengeRequest challenge;
  challenge.slice = wire::slice(in);
  challenge.leaf = in.varint();
  return finish(in, challenge, "CHALLENGE");
}

void PromiseRequest::encode(Bytes& into) const { Encoder(into).block(claim); }

Result<PromiseRequest> PromiseRequest::decode(ByteView header) {
  Decoder in(header);
  PromiseRequest promise{in.block(kClaimMax)};
  return finish(in, promise, "PROMISE");
}

void AcceptRequest::encode(Bytes& into) const { Encoder(into).block(record); }

Result<AcceptRequest> AcceptRequest::decode(ByteView header) {
  Decoder in(header);
  AcceptRequest accept{in.block(kRecordMax)};
  return finish(in, accept, "ACCEPT");
}

void HolderMessage::encode(Bytes& into) const {
  Encoder out(into);
  out.u8(accepted ? 1 : 0);
  out.block(state);
}

Result<HolderMessage> HolderMessage::decode(ByteView header) {
  Decoder in(header);
  HolderMessage answer;
  answer.accepted = flag(in);
  answer.state = in.block(kHolderStateMax);
  return finish(in, answer, "holder answer");
}

void StatusAnswer::encode(Bytes& into) const {
  Encoder out(into);
  out.u64(status.capacity);
  out.u64(status.used);
  out.u64(status.volume_quota);
  out.u64(status.volume_used);
  out.u64(status.volume_slices);
  out.u8(static_cast<std::uint8_t>((status.draining ? 1 : 0) | (status.read_only ? 2 : 0)));
  out.text(std::string_view(status.version).substr(0, kVersionTextMax));
}

Result<StatusAnswer> StatusAnswer::decode(ByteView header) {
  Decoder in(header);
  StatusAnswer answer;
  MinerStatus& status = answer.status;
  status.capacity = in.u64();
  status.used = in.u64();
  status.volume_quota = in.u64();
  status.volume_used = in.u64();
  status.volume_slices = in.u64();
  const std::uint8_t flags = in.u8();
  if (flags > 3) in.mark_bad();
  status.draining = (flags & 1) != 0;
  status.read_only = (flags & 2) != 0;
  status.version = in.text(kVersionTextMax);
  return finish(in, std::move(answer), "STATUS answer");
}

}  // namespace cumulus::wire
