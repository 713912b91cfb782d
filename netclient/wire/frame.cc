#include "netclient/wire/frame.h"

#include <algorithm>

#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"

namespace cumulus::wire {
namespace {

struct Limit {
  MessageType type;
  std::string_view name;
  std::size_t request_header;
  std::size_t request_payload;
  std::size_t answer_header;
  std::size_t answer_payload;
};

constexpr std::size_t kSmall = 4096;
constexpr std::size_t kRecordMax = 64 * 1024 + 64;  // a claim or superblock and its length
constexpr std::size_t kReadAnswerMax = kReadRangesMax * (kProofMax + 32) + 8 * 1024;
constexpr std::size_t kBatchBytesMax = kBatchMax * 40 + 64;

constexpr Limit kLimits[] = {
    {MessageType::hello, "HELLO", kSmall, 0, kSmall, 0},
    {MessageType::ping, "PING", 0, 0, 0, 0},
    {MessageType::goaway, "GOAWAY", kSmall, 0, 0, 0},
    {MessageType::put, "PUT", 2 * kSmall, kPayloadMax, 0, 0},
    {MessageType::read, "READ", kSmall, 0, kReadAnswerMax, kPayloadMax},
    {MessageType::list, "LIST", kSmall, 0, kHeaderMax, 0},
    {MessageType::have, "HAVE", kBatchBytesMax, 0, kBatchBytesMax, 0},
    {MessageType::remove, "DELETE", kBatchBytesMax, 0, 0, 0},
    {MessageType::challenge, "CHALLENGE", kSmall, 0, kReadAnswerMax, kSmall},
    {MessageType::promise, "PROMISE", kRecordMax, 0, kHolderStateMax + 64, 0},
    {MessageType::accept, "ACCEPT", kRecordMax, 0, kHolderStateMax + 64, 0},
    {MessageType::superblock, "SUPERBLOCK", 0, 0, kHolderStateMax + 64, 0},
    {MessageType::status, "STATUS", 0, 0, kSmall, 0},
};

const Limit* limit_of(MessageType type) {
  for (const Limit& limit : kLimits)
    if (limit.type == type) return &limit;
  return nullptr;
}

std::unexpected<Error> bad(std::string message) {
  return fail(ErrorKind::corrupt, "frame: " + std::move(message));
}

}  // namespace

bool known(MessageType type) { return limit_of(type) != nullptr; }

std::string_view to_string(MessageType type) {
  const Limit* limit = limit_of(type);
  return limit != nullptr ? limit->name : "unknown message";
}

std::size_t header_max(MessageType type, bool answer) {
  const Limit* limit = limit_of(type);
  if (limit == nullptr) return kHeaderMax;
  // Every answer may be an error.
  return answer ? std::max(limit->answer_header, kSmall) : limit->request_header;
}

std::size_t payload_max(MessageType type, bool answer) {
  const Limit* limit = limit_of(type);
  if (limit == nullptr) return kPayloadMax;
  return answer ? limit->answer_payload : limit->request_payload;
}

void Prelude::encode(Bytes& into) const {
  Encoder out(into);
  out.u32(kMagic);
  out.u8(static_cast<std::uint8_t>(type));
  out.u8(flags);
  out.u16(0);
  out.u32(request_id);
  out.u32(header_length);
  out.u32(payload_length);
  out.u32(timeout_ms);
  out.u64(epoch);
  out.bytes(instance.view());
}

Result<Prelude> Prelude::decode(ByteView bytes) {
  Decoder in(bytes);
  if (in.u32() != kMagic) return bad("it does not begin with the protocol's magic number");
  Prelude prelude;
  prelude.type = static_cast<MessageType>(in.u8());
  prelude.flags = in.u8();
  const std::uint16_t reserved = in.u16();
  prelude.request_id = in.u32();
  prelude.header_length = in.u32();
  prelude.payload_length = in.u32();
  prelude.timeout_ms = in.u32();
  prelude.epoch = in.u64();
  prelude.instance.bytes = in.array<16>();
  if (!in.done()) return bad("short prelude");
  if (reserved != 0 || (prelude.flags & ~(kAnswer | kError)) != 0 || (prelude.error() && !prelude.answer()))
    return bad("unknown flags");
  if (prelude.answer() && (prelude.timeout_ms != 0 || prelude.epoch != 0 || prelude.instance != InstanceId{}))
    return bad("an answer carries a request's fields");
  const std::size_t header_most = header_max(prelude.type, prelude.answer());
  const std::size_t payload_most = prelude.error() ? 0 : payload_max(prelude.type, prelude.answer());
  if (prelude.header_length > header_most || prelude.payload_length > payload_most)
    return bad(format("{} of {} + {} bytes is over the limit of {} + {}", to_string(prelude.type),
                      prelude.header_length, prelude.payload_length, header_most, payload_most));
  return prelude;
}

void set_prelude(Bytes& frame, Prelude prelude, std::size_t payload_length) {
  prelude.header_length = static_cast<std::uint32_t>(frame.size() - Prelude::kEncodedSize);
  prelude.payload_length = static_cast<std::uint32_t>(payload_length);
  Bytes head;
  head.reserve(Prelude::kEncodedSize);
  prelude.encode(head);
  std::memcpy(frame.data(), head.data(), head.size());
}

}  // namespace cumulus::wire
