// Transmission without I/O: one request's header out of bytes, reply headers into bytes. Pure; any thread.
#pragma once

#include "blockdev/nbd/protocol.h"

namespace cumulus::nbd {

struct Request {
  Command command = Command::read;
  std::uint16_t flags = 0;
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  // Bytes that follow the header on the wire.
  std::uint64_t payload(bool extended) const {
    if (extended) return (flags & kPayloadLength) != 0 ? length : 0;
    return command == Command::write ? length : 0;
  }
};

constexpr std::size_t request_size(bool extended) { return extended ? 32 : 28; }
// `header` has request_size() bytes. nullopt: the magic is wrong, so the stream is out of step: close it.
std::optional<Request> parse_request(ByteView header, bool extended);

// What is wrong with a request before the device is asked; ok when nothing is. The device's state is handed
// in so that this stays pure.
struct DeviceShape {
  std::uint64_t size = 0;
  bool read_only = false;
  bool structured = false;
  bool extended = false;
  bool has_contexts = false;
};
Code check_request(const Request& request, const DeviceShape& device);

inline constexpr std::size_t kSimpleReplySize = 16;
inline constexpr std::size_t kStructuredReplySize = 20;
inline constexpr std::size_t kExtendedReplySize = 32;
inline constexpr std::size_t kReplySizeMax = 32;

std::uint8_t* put_simple_reply(std::uint8_t* to, std::uint64_t cookie, Code code);
// One chunk's header, structured or extended; `length` of what follows, `offset` as in the request
// (extended).
std::uint8_t* put_chunk(std::uint8_t* to, bool extended, std::uint16_t flags, Chunk type,
                        const Request& request, std::uint64_t length);

}  // namespace cumulus::nbd
