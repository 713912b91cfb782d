// A client's byte stream, plain or TLS: reads and writes that never block, and the waits between them.
// Reactor thread. Owns its socket.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <sys/uio.h>

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"
#include "objectstore/io/readiness.h"

namespace cumulus::nbd {

class Stream {
 public:
  enum class Outcome : std::uint8_t { moved, wants_read, wants_write, closed };
  struct Moved {
    Outcome outcome = Outcome::closed;
    std::size_t bytes = 0;
  };

  Stream(Runtime& runtime, int socket);
  virtual ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  virtual Moved read_some(MutableByteView into);
  virtual Moved write_some(std::span<const iovec> parts);
  Task<void> wait(Outcome wanted);  // wants_read or wants_write

  // No more comes in: a waiting reader sees the end. What goes out is not disturbed.
  void end_input();
  // Nothing moves any more, either way.
  void shut();

  int socket() const { return socket_; }

 private:
  int socket_;
  Readiness readiness_;
};

// The server's certificate or shared keys, loaded once. GnuTLS's and QEMU's layouts: a folder with
// ca-cert.pem, server-cert.pem and server-key.pem, clients showing a certificate of that authority; or a file
// of "user:hex-key" lines.
class TlsSettings {
 public:
  static Result<std::shared_ptr<TlsSettings>> from_certificates(const std::string& directory);
  static Result<std::shared_ptr<TlsSettings>> from_psk(const std::string& file);
  virtual ~TlsSettings() = default;
  // Shakes hands on `socket`, which is its own from now on, whatever comes of it. denied: the client's
  // credentials.
  virtual Task<Result<std::unique_ptr<Stream>>> accept(Runtime& runtime, int socket) = 0;
};

}  // namespace cumulus::nbd
