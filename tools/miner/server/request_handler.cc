#include "tools/miner/server/request_handler.h"

#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/merkle.h"

namespace cumulus {

using wire::Grant;
using wire::MessageType;
using wire::Prelude;

namespace {

template <class Message>
MinerAnswer answer_with(const Prelude& request, const Message& message, ByteView payload = {},
                        std::shared_ptr<Buffer> owner = nullptr) {
  Prelude prelude;
  prelude.type = request.type;
  prelude.flags = Prelude::kAnswer;
  prelude.request_id = request.request_id;
  return {wire::frame(prelude, message, payload.size()), payload, std::move(owner)};
}

std::uint32_t right_for(MessageType type) {
  switch (type) {
    case MessageType::put:
      return Grant::kWrite;
    case MessageType::remove:
      return Grant::kDelete;
    case MessageType::promise:
    case MessageType::accept:
      return Grant::kHold;
    default:
      return Grant::kRead;
  }
}

std::string_view right_name(std::uint32_t right) {
  if (right == Grant::kWrite) return "write";
  if (right == Grant::kDelete) return "delete";
  return right == Grant::kHold ? "hold the superblock" : "read";
}

// A list cursor is the last slice of the page before: 19 bytes, as PROTOCOL.md lays a slice out.
Bytes cursor_of(const SliceId& slice) {
  Bytes cursor;
  wire::encode_slice(cursor, slice);
  return cursor;
}

Result<SliceId> slice_of_cursor(ByteView cursor) {
  Decoder from(cursor);
  SliceId slice;
  slice.segment.kind = static_cast<SegmentKind>(from.u8());
  slice.segment.epoch = from.u64();
  slice.segment.sequence = from.u64();
  slice.index = from.u16();
  if (!from.done()) return fail(ErrorKind::invalid, "LIST: the cursor is not one of this miner's");
  return slice;
}

}  // namespace

MinerAnswer RequestHandler::error_answer(const Prelude& request, const Error& error) {
  wire::ErrorAnswer message;
  message.kind = error.kind();
  message.message = error.message();
  Prelude prelude;
  prelude.type = request.type;
  prelude.flags = Prelude::kAnswer | Prelude::kError;
  prelude.request_id = request.request_id;
  return {wire::frame(prelude, message), {}, nullptr};
}

std::uint64_t RequestHandler::answer_weight(const MinerRequest& request) {
  constexpr std::uint64_t kSmall = 16 * 1024;
  switch (request.prelude.type) {
    case MessageType::list:
      return 3 * wire::kHeaderMax;
    case MessageType::have:
    case MessageType::remove:
      return kSmall + 8 * request.header.size();
    case MessageType::challenge:
      return 512 * 1024;
    case MessageType::read: {
      const auto message = wire::ReadRequest::decode(request.header);
      if (!message) return kSmall;
      std::uint64_t total = kSmall;
      for (const auto& range : message->ranges) total += range.length;
      return message->ranges.size() > 1 ? 2 * total : total;
    }
    default:
      return kSmall;
  }
}

Task<MinerAnswer> RequestHandler::handle(MinerRequest request) {
  auto answer = co_await dispatch(request);
  if (!answer) co_return error_answer(request.prelude, answer.error());
  co_return *std::move(answer);
}

Status RequestHandler::may_ask(MessageType type, const std::optional<VolumeId>& volume,
                               std::uint32_t rights) {
  if (type == MessageType::ping || type == MessageType::status) return {};
  if (!wire::known(type) || type == MessageType::goaway || type == MessageType::hello)
    return fail(ErrorKind::unsupported, cumulus::format("{} ({}) is not answered here", wire::to_string(type),
                                                        static_cast<int>(type)));
  if (!volume) return fail(ErrorKind::denied, "this connection showed no grant of a volume");
  const std::uint32_t right = right_for(type);
  if ((rights & right) == 0)
    return fail(ErrorKind::denied, cumulus::format("the grant does not allow to {}", right_name(right)));
  return {};
}

Task<Result<MinerAnswer>> RequestHandler::dispatch(const MinerRequest& request) {
  const MessageType type = request.prelude.type;
  CO_TRY_OK(may_ask(type, request.volume, request.rights));
  if (type == MessageType::ping) co_return answer_with(request.prelude, wire::Empty{});
  if (type == MessageType::status) co_return status(request);
  const VolumeId volume = *request.volume;
  switch (type) {
    case MessageType::put:
      co_return co_await put(request, volume);
    case MessageType::read:
      co_return co_await read(request, volume);
    case MessageType::list:
      co_return co_await list(request, volume);
    case MessageType::have:
      co_return co_await have(request, volume);
    case MessageType::remove:
      co_return co_await remove(request, volume);
    case MessageType::challenge:
      co_return co_await challenge(request, volume);
    case MessageType::promise:
      co_return co_await promise(request, volume);
    case MessageType::accept:
      co_return co_await accept(request, volume);
    default:
      co_return co_await superblock(request, volume);
  }
}

Status RequestHandler::admit(const VolumeId& volume) {
  if (allowed_.lists(volume)) return {};
  if (!allowed_.quota(volume))
    return fail(ErrorKind::denied, "volume " + volume.brief() + " is not on this miner's allow list");
  if (store_.usage(volume).slices != 0) return {};
  TRY(const bool known, holders_.knows(volume));
  if (known) return {};
  TRY(const std::size_t held, holders_.count());
  if (std::max<std::uint64_t>(held, store_.totals().volumes) < open_volumes_max_) return {};
  return fail(
      ErrorKind::no_space,
      cumulus::format("this miner is open to everybody and {} volumes came already: its operator runs "
                      "cumulus-miner allow DIR {} --quota SIZE",
                      open_volumes_max_, volume.hex()));
}

Task<Result<MinerAnswer>> RequestHandler::put(const MinerRequest& request, VolumeId volume) {
  CO_TRY(const auto message, wire::PutRequest::decode(request.header));
  if (condition_.draining)
    co_return fail(ErrorKind::no_space, "this miner is being drained: it takes no new slices");
  CO_TRY_OK(admit(volume));
  CO_TRY(const bool destroyed, co_await holders_.destroyed(volume));
  if (destroyed) co_return fail(ErrorKind::fenced, "volume " + volume.brief() + " was destroyed");
  SliceStore::Put put;
  put.key = {volume, message.slice};
  put.manifest = std::make_shared<const Bytes>(message.manifest.begin(), message.manifest.end());
  put.data = request.payload ? request.payload : store_.buffers().acquire(0);
  put.length = request.prelude.payload_length;
  put.quota = allowed_.quota(volume).value_or(0);
  CO_TRY_OK(co_await store_.put(std::move(put)));
  co_return answer_with(request.prelude, wire::Empty{});
}

// One range is sent from the memory it was read into; several are joined.
Task<Result<StoredRange>> RequestHandler::read_ranges(SliceKey key, std::vector<wire::ByteRange> ranges) {
  if (ranges.size() == 1) co_return co_await store_.read(key, ranges[0].offset, ranges[0].length);
  std::uint64_t total = 0;
  for (const auto& range : ranges) total += range.length;
  StoredRange joined;
  joined.owner = store_.buffers().acquire(total);
  std::uint64_t at = 0;
  for (const auto& range : ranges) {
    CO_TRY(const StoredRange part, co_await store_.read(key, range.offset, range.length));
    if (!part.bytes.empty()) std::memcpy(joined.owner->data() + at, part.bytes.data(), part.bytes.size());
    at += range.length;
  }
  joined.bytes = joined.owner->view(0, total);
  co_return joined;
}

Task<Result<MinerAnswer>> RequestHandler::read(const MinerRequest& request, VolumeId volume) {
  CO_TRY(const auto message, wire::ReadRequest::decode(request.header));
  const SliceKey key{volume, message.slice};
  wire::ReadAnswer answer;
  Bytes manifest;
  if (message.with_manifest) {
    CO_TRY(manifest, co_await store_.manifest(key));
    answer.manifest = manifest;
  }
  StoredRange payload;
  std::vector<ProvenRange> proven;
  if (message.with_proof) {
    std::uint64_t total = 0;
    for (const auto& range : message.ranges) {
      CO_TRY(auto part, co_await store_.prove(key, range.offset, range.length));
      total += part.leaves.bytes.size();
      proven.push_back(std::move(part));
    }
    for (const auto& part : proven)
      answer.ranges.push_back({{part.leaves_offset, part.leaves.bytes.size()}, part.proof});
    if (total > wire::kPayloadMax)
      co_return fail(ErrorKind::invalid, "READ: the leaves of these ranges are more than one answer holds");
    if (proven.size() == 1) {
      payload = proven[0].leaves;
    } else {
      payload.owner = store_.buffers().acquire(total);
      std::uint64_t at = 0;
      for (const auto& part : proven) {
        std::memcpy(payload.owner->data() + at, part.leaves.bytes.data(), part.leaves.bytes.size());
        at += part.leaves.bytes.size();
      }
      payload.bytes = payload.owner->view(0, total);
    }
  } else if (!message.ranges.empty()) {
    CO_TRY(payload, co_await read_ranges(key, message.ranges));
    for (const auto& range : message.ranges) answer.ranges.push_back({range, {}});
  }
  co_return answer_with(request.prelude, answer, payload.bytes, payload.owner);
}

Task<Result<MinerAnswer>> RequestHandler::challenge(const MinerRequest& request, VolumeId volume) {
  CO_TRY(const auto message, wire::ChallengeRequest::decode(request.header));
  const SliceKey key{volume, message.slice};
  if (message.leaf > wire::kPayloadMax / kMerkleLeafSize)
    co_return fail(ErrorKind::invalid, "CHALLENGE: no slice has that leaf");
  CO_TRY(const ProvenRange proven, co_await store_.prove(key, message.leaf * kMerkleLeafSize, 1));
  wire::ReadAnswer answer;
  answer.ranges.push_back({{proven.leaves_offset, proven.leaves.bytes.size()}, proven.proof});
  co_return answer_with(request.prelude, answer, proven.leaves.bytes, proven.leaves.owner);
}

Task<Result<MinerAnswer>> RequestHandler::list(const MinerRequest& request, VolumeId volume) {
  CO_TRY(const auto message, wire::ListRequest::decode(request.header));
  std::optional<SliceId> after;
  if (message.from) {
    CO_TRY(after, slice_of_cursor(*message.from));
  }
  // The framing of every entry comes out of the same page.
  const std::size_t bytes_max =
      wire::kListBytesMax - wire::ListAnswer::Slice::encoded_size(0) * message.slices_max - 256;
  CO_TRY(const auto found, co_await store_.list(volume, after, message.slices_max, bytes_max));
  wire::ListAnswer answer;
  std::size_t bytes = 0;
  for (const auto& row : found) {
    answer.slices.push_back({row.key.slice.index, row.manifest});
    bytes += row.manifest.size();
  }
  Bytes cursor;
  if (found.size() == message.slices_max || bytes + Manifest::kEncodedSizeMax > bytes_max) {
    cursor = cursor_of(found.back().key.slice);
    answer.next = cursor;
  }
  co_return answer_with(request.prelude, answer);
}

Task<Result<MinerAnswer>> RequestHandler::have(const MinerRequest& request, VolumeId volume) {
  CO_TRY(const auto message, wire::HaveRequest::decode(request.header));
  wire::HaveAnswer answer;
  CO_TRY(answer.roots, co_await store_.have(volume, message.slices));
  co_return answer_with(request.prelude, answer);
}

Task<Result<MinerAnswer>> RequestHandler::remove(const MinerRequest& request, VolumeId volume) {
  CO_TRY(const auto message, wire::RemoveRequest::decode(request.header));
  CO_TRY_OK(co_await store_.remove(volume, message.slices));
  co_return answer_with(request.prelude, wire::Empty{});
}

Task<Result<MinerAnswer>> RequestHandler::promise(const MinerRequest& request, VolumeId volume) {
  CO_TRY(const auto message, wire::PromiseRequest::decode(request.header));
  CO_TRY(const auto claim, BallotClaim::decode(message.claim));
  if (claim.volume != volume) co_return fail(ErrorKind::denied, "PROMISE: the claim is another volume's");
  CO_TRY_OK(admit(volume));
  CO_TRY(const auto held, co_await holders_.promise(claim));
  const Bytes state = held.state.encode();
  wire::HolderMessage answer{held.accepted, state};
  co_return answer_with(request.prelude, answer);
}

Task<Result<MinerAnswer>> RequestHandler::accept(const MinerRequest& request, VolumeId volume) {
  CO_TRY(const auto message, wire::AcceptRequest::decode(request.header));
  CO_TRY(const auto record, Superblock::decode(message.record));
  if (record.volume != volume) co_return fail(ErrorKind::denied, "ACCEPT: the record is another volume's");
  CO_TRY_OK(admit(volume));
  CO_TRY(const auto held, co_await holders_.accept(record));
  const Bytes state = held.state.encode();
  wire::HolderMessage answer{held.accepted, state};
  co_return answer_with(request.prelude, answer);
}

Task<Result<MinerAnswer>> RequestHandler::superblock(const MinerRequest& request, VolumeId volume) {
  CO_TRY(const auto held, co_await holders_.state(volume));
  const Bytes state = held.encode();
  wire::HolderMessage answer{true, state};
  co_return answer_with(request.prelude, answer);
}

MinerAnswer RequestHandler::status(const MinerRequest& request) const {
  wire::StatusAnswer answer;
  MinerStatus& status = answer.status;
  status.capacity = store_.capacity();
  status.used = store_.totals().used;
  if (request.volume) {
    const VolumeUsage usage = store_.usage(*request.volume);
    status.volume_quota = allowed_.quota(*request.volume).value_or(0);
    status.volume_used = usage.bytes;
    status.volume_slices = usage.slices;
  }
  status.draining = condition_.draining;
  status.read_only = store_.write_failed();
  status.version = version_;
  return answer_with(request.prelude, answer);
}

}  // namespace cumulus
