// Frames between the commands and a volume's daemon, over its unix socket: length u32, kind u8, then the
// body. JSON frames carry requests, progress and results; data frames carry bytes that have no file
// descriptor to come from; `end` ends them. A descriptor may travel with the request (SCM_RIGHTS), so that
// file data never crosses the socket. Both ends are the same user on one machine; limits still hold.
#pragma once

#include <cstdint>
#include <string>

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"

namespace cumulus {

enum class FrameKind : std::uint8_t { json = 1, data = 2, end = 3 };
inline constexpr std::uint32_t kJsonFrameMax = 16u << 20;
inline constexpr std::uint32_t kDataFrameMax = 1u << 20;
inline constexpr std::size_t kFrameHeader = 5;

// The client's end: blocking.
class DaemonSocket {
 public:
  // A socket in `directory`, however long its path is, over which the daemon has said that it serves.
  // unavailable: nobody listens, or the daemon is ending.
  static Result<DaemonSocket> connect(const std::string& directory);
  DaemonSocket(DaemonSocket&& other) noexcept;
  DaemonSocket& operator=(DaemonSocket&&) = delete;
  ~DaemonSocket();

  Status send(FrameKind kind, ByteView body, int descriptor = -1);
  struct Frame {
    FrameKind kind = FrameKind::end;
    Bytes body;
  };
  // closed: the daemon went away.
  Result<Frame> receive();

 private:
  explicit DaemonSocket(int fd) : fd_(fd) {}
  int fd_;
};

// "/proc/self/fd/N/daemon.sock": a socket's path has at most 107 bytes, a home's may be longer.
// `directory_fd` stays open.
std::string socket_path(int directory_fd);

}  // namespace cumulus
