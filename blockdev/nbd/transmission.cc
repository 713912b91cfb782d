#include "blockdev/nbd/transmission.h"

namespace cumulus::nbd {

std::optional<Request> parse_request(ByteView header, bool extended) {
  const std::uint8_t* at = header.data();
  if (load<std::uint32_t>(at) != (extended ? kExtendedRequestMagic : kRequestMagic)) return std::nullopt;
  Request request;
  request.flags = load<std::uint16_t>(at + 4);
  request.command = static_cast<Command>(load<std::uint16_t>(at + 6));
  request.cookie = load<std::uint64_t>(at + 8);
  request.offset = load<std::uint64_t>(at + 16);
  request.length = extended ? load<std::uint64_t>(at + 24) : load<std::uint32_t>(at + 24);
  return request;
}

Code check_request(const Request& request, const DeviceShape& device) {
  std::uint16_t allowed = 0;
  bool changes = false;
  switch (request.command) {
    case Command::read:
      allowed = device.structured ? kDf : 0;
      break;
    case Command::write:
      allowed = kFua | (device.extended ? kPayloadLength : 0);
      changes = true;
      break;
    case Command::trim:
      allowed = kFua;
      changes = true;
      break;
    case Command::write_zeroes:
      allowed = kFua | kNoHole | kFastZero;
      changes = true;
      break;
    case Command::block_status:
      allowed = kReqOne;
      break;
    case Command::flush:
    case Command::cache:
    case Command::disconnect:
      break;
    default:
      return Code::einval;
  }
  // FUA is announced, so commands that change nothing may carry it; it asks nothing of them.
  if ((request.flags & ~(allowed | kFua)) != 0) return Code::einval;
  if (request.command == Command::disconnect) return Code::ok;
  if (request.command == Command::flush)
    return request.offset == 0 && request.length == 0 ? Code::ok : Code::einval;
  if (changes && device.read_only) return Code::eperm;
  if (request.command == Command::write && device.extended && (request.flags & kPayloadLength) == 0)
    return Code::einval;
  if (request.length == 0) return Code::einval;
  const bool moves_data = request.command == Command::read || request.command == Command::write;
  if (moves_data && request.length > kPayloadMax) return Code::einval;
  if (request.offset > device.size || request.length > device.size - request.offset)
    return request.command == Command::write || request.command == Command::write_zeroes ? Code::enospc
                                                                                         : Code::einval;
  if (request.command == Command::block_status && !device.has_contexts) return Code::einval;
  return Code::ok;
}

std::uint8_t* put_simple_reply(std::uint8_t* to, std::uint64_t cookie, Code code) {
  to = store(to, kSimpleReplyMagic);
  to = store(to, static_cast<std::uint32_t>(code));
  return store(to, cookie);
}

std::uint8_t* put_chunk(std::uint8_t* to, bool extended, std::uint16_t flags, Chunk type,
                        const Request& request, std::uint64_t length) {
  to = store(to, extended ? kExtendedReplyMagic : kStructuredReplyMagic);
  to = store(to, flags);
  to = store(to, static_cast<std::uint16_t>(type));
  to = store(to, request.cookie);
  if (!extended) return store(to, static_cast<std::uint32_t>(length));
  to = store(to, request.offset);
  return store(to, length);
}

}  // namespace cumulus::nbd
