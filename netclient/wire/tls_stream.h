// One TLS 1.3 connection, used alike by the client and the miner: both sides present Ed25519 certificates, no
// authority signs them, and the peer's raw public key is what counts. OpenSSL shakes hands; the records after
// that (tls_records.h) are encrypted from the caller's memory into large sends and decrypted into it.
//
// Reactor thread only. At most one reading and one writing Task at a time, side by side. Never logs or
// returns key material. No OpenSSL type is in this header.
#pragma once

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <optional>

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"
#include "objectstore/io/runtime.h"

namespace cumulus {
class TlsIdentity;
}

namespace cumulus::wire {

using TcpSocket = asio::basic_stream_socket<asio::ip::tcp, ReactorExecutor>;
using PublicKey = std::array<std::uint8_t, 32>;  // raw Ed25519

// What all connections of one identity share. Made once.
class TlsContext {
 public:
  static Result<std::shared_ptr<TlsContext>> make(const TlsIdentity& identity);
  ~TlsContext();

  struct Native;
  Native& native() { return *native_; }

 private:
  explicit TlsContext(std::unique_ptr<Native> native);
  std::unique_ptr<Native> native_;
};

// Where bytes land. Whoever owns the memory may drop() it while a Task reads: the rest goes nowhere, and the
// memory is not touched again.
struct Landing {
  MutableByteView rest;  // not yet filled
  std::uint64_t to_skip = 0;
  void drop() {
    to_skip += rest.size();
    rest = {};
  }
};

class TlsStream {
 public:
  enum class Role { client, server };

  // Takes a connected socket over and sets it up (non-blocking, TCP_NODELAY, keep-alive).
  TlsStream(Runtime& runtime, TcpSocket socket, std::shared_ptr<TlsContext> context, Role role);
  ~TlsStream();  // no Task may be inside
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  // unavailable: no answer by `deadline`, or the peer hung up or does not speak TLS 1.3; denied: the peer's
  // identity is not `pin` (the message names both); closed: shut() meanwhile; unsupported: it wants smaller
  // records. Whether the peer refuses our identity shows at the first read.
  Task<Status> handshake(TimePoint deadline, std::optional<PublicKey> pin);
  // After the handshake: the key that the peer proved to hold.
  const PublicKey& peer() const;

  // At least one byte of `into`, which is not empty; 0 when the peer ended the stream, with close_notify or
  // without (frames say their own lengths). unavailable when the connection broke, closed after shut(). Any
  // reader's memory beyond the bytes that it was given may hold what did not verify.
  Task<Result<std::size_t>> read_some(MutableByteView into);
  // Exactly into.size() bytes; the end of the stream before that is unavailable. Whole records are decrypted
  // into `into` without staging.
  Task<Status> read_exactly(MutableByteView into);
  // Fills landing.rest, then skips landing.to_skip bytes; `landing` stays until then.
  Task<Status> read_exactly(Landing& landing);
  // Reads and forgets.
  Task<Status> discard(std::uint64_t length);
  // All of `head`, then all of `payload`, handed to the socket when it returns. Views stay until then.
  Task<Status> write_all(ByteView head, ByteView payload = {});

  // Bytes that came from the socket so far: whether the peer is alive while a long message arrives.
  std::uint64_t received() const;

  // Ends the connection at once: what waits inside returns closed. May be called at any time, more than once.
  void shut();
  bool is_shut() const;

  struct Native;

 private:
  std::unique_ptr<Native> native_;
};

}  // namespace cumulus::wire
