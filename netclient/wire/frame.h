// The frame: what every message looks like on the TLS stream. A fixed 48-byte prelude says the lengths of the
// header block (canonical codec, messages.h) and of the payload (raw bytes) that follow, so the receiver can
// read a payload straight into the buffer where it belongs. Both ends share this file. Pure; any thread. It
// never reads from or writes to a connection.
#pragma once

#include <cstdint>
#include <string_view>

#include "netclient/wire/limits.h"
#include "objectstore/base/bytes.h"
#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"

namespace cumulus::wire {

// Numbers 64-95 are reserved for journals.
enum class MessageType : std::uint8_t {
  hello = 1,
  ping = 2,
  goaway = 3,
  put = 16,
  read = 17,
  list = 18,
  have = 19,
  remove = 20,
  challenge = 21,
  promise = 32,
  accept = 33,
  superblock = 34,
  status = 48,
};
// False for a number that this program does not know: such a request is skipped by its lengths and answered
// with `unsupported`; such an answer ends the connection.
bool known(MessageType type);
std::string_view to_string(MessageType type);

struct Prelude {
  static constexpr std::size_t kEncodedSize = 48;
  static constexpr std::uint8_t kAnswer = 1;  // this frame answers `request_id`
  static constexpr std::uint8_t kError = 2;   // with kAnswer: the header block is an ErrorAnswer

  MessageType type = MessageType::ping;
  std::uint8_t flags = 0;
  std::uint32_t request_id = 0;  // chosen by the client, unique among its outstanding requests; GOAWAY: 0
  std::uint32_t header_length = 0;
  std::uint32_t payload_length = 0;
  // Requests only (zero in answers): how long the client waits; the miner may drop the request afterwards.
  // 0 = no limit.
  std::uint32_t timeout_ms = 0;
  // Requests only: which opening of the volume asks. The volume itself is the connection's (HELLO).
  Epoch epoch = 0;
  InstanceId instance;

  bool answer() const { return (flags & kAnswer) != 0; }
  bool error() const { return (flags & kError) != 0; }
  bool operator==(const Prelude&) const = default;

  void encode(Bytes& into) const;  // appends exactly kEncodedSize bytes
  // Checks magic, flags, reserved bytes and the limits of this message type. corrupt: end the connection.
  static Result<Prelude> decode(ByteView bytes);
};

// The largest header block and payload of a message. `answer` includes error answers.
std::size_t header_max(MessageType type, bool answer);
std::size_t payload_max(MessageType type, bool answer);

// Writes `prelude` over the first bytes of a frame whose header block is complete, with the right lengths.
void set_prelude(Bytes& frame, Prelude prelude, std::size_t payload_length);

// Prelude and header block in one piece, to be sent before the payload (if any) without joining the two.
// `header` is any message of messages.h.
template <class Message>
Bytes frame(Prelude prelude, const Message& message, std::size_t payload_length = 0) {
  Bytes out(Prelude::kEncodedSize);
  message.encode(out);
  set_prelude(out, prelude, payload_length);
  return out;
}

}  // namespace cumulus::wire
