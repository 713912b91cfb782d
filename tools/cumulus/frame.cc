#include "tools/cumulus/frame.h"

#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>

#include "objectstore/base/format.h"

namespace cumulus {

namespace {

// A killed process goes on taking connections until its last thread is gone, and answers none of them.
bool listener_is_dying(int connection) {
  ucred listener{};
  socklen_t size = sizeof listener;
  if (::getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &listener, &size) != 0 || listener.pid == 0)
    return false;
  std::ifstream file(format("/proc/{}/stat", listener.pid));
  const std::string stat((std::istreambuf_iterator<char>(file)), {});
  const auto name_end = stat.rfind(')');
  if (name_end == std::string::npos) return true;
  char state = 0;
  unsigned flags = 0;
  const int read = std::sscanf(stat.c_str() + name_end + 1, " %c %*d %*d %*d %*d %*d %u", &state, &flags);
  constexpr unsigned kExiting = 4;  // PF_EXITING, proc(5)
  return read != 2 || state == 'Z' || state == 'X' || (flags & kExiting) != 0;
}

}  // namespace

std::string socket_path(int directory_fd) { return format("/proc/self/fd/{}/daemon.sock", directory_fd); }

Result<DaemonSocket> DaemonSocket::connect(const std::string& directory) {
  const int folder = ::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return fail(from_errno(errno, "open " + directory));
  DaemonSocket socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket_path(folder).c_str(), sizeof address.sun_path - 1);
  const int result = ::connect(socket.fd_, reinterpret_cast<sockaddr*>(&address), sizeof address);
  const int error = errno;
  ::close(folder);
  if (result == 0 && !listener_is_dying(socket.fd_)) {
    timeval patience{.tv_sec = 30, .tv_usec = 0};
    ::setsockopt(socket.fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    const auto greeting = socket.receive();
    if (!greeting) return fail(ErrorKind::unavailable, "the volume's daemon ends, or does not answer");
    patience.tv_sec = 0;  // what is asked of it may take any time
    ::setsockopt(socket.fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return socket;
  }
  if (result == 0) return fail(ErrorKind::closed, "the volume's daemon was killed and is not gone yet");
  if (error == ENOENT || error == ECONNREFUSED)
    return fail(ErrorKind::unavailable, "the volume's daemon is not running");
  return fail(from_errno(error, "connect to the volume's daemon"));
}

DaemonSocket::DaemonSocket(DaemonSocket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
DaemonSocket::~DaemonSocket() {
  if (fd_ >= 0) ::close(fd_);
}

Status DaemonSocket::send(FrameKind kind, ByteView body, int descriptor) {
  std::array<std::uint8_t, kFrameHeader> header;
  const auto length = static_cast<std::uint32_t>(body.size());
  std::memcpy(header.data(), &length, sizeof length);
  header[4] = static_cast<std::uint8_t>(kind);
  iovec parts[2] = {{header.data(), header.size()}, {const_cast<std::uint8_t*>(body.data()), body.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  if (descriptor >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
  }
  for (std::size_t left = header.size() + body.size(); left > 0;) {
    const ssize_t sent = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0)
      return fail(ErrorKind::closed,
                  "the volume's daemon went away in the middle of the command; run it again");
    left -= static_cast<std::size_t>(sent);
    message.msg_control = nullptr;
    message.msg_controllen = 0;
    for (auto skip = static_cast<std::size_t>(sent); skip > 0;) {
      iovec& part = *message.msg_iov;
      const std::size_t taken = std::min(skip, part.iov_len);
      part.iov_base = static_cast<char*>(part.iov_base) + taken;
      part.iov_len -= taken;
      skip -= taken;
      if (part.iov_len == 0 && message.msg_iovlen > 1) {
        ++message.msg_iov;
        --message.msg_iovlen;
      }
    }
  }
  return {};
}

Result<DaemonSocket::Frame> DaemonSocket::receive() {
  const auto read_all = [this](MutableByteView into) {
    while (!into.empty()) {
      const ssize_t got = ::recv(fd_, into.data(), into.size(), 0);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      into = into.subspan(static_cast<std::size_t>(got));
    }
    return true;
  };
  const auto gone = [] {
    return fail(ErrorKind::closed,
                "the volume's daemon went away in the middle of the command (see daemon.log in the volume's "
                "folder); run it again");
  };
  std::array<std::uint8_t, kFrameHeader> header;
  if (!read_all(header)) return gone();
  std::uint32_t length = 0;
  std::memcpy(&length, header.data(), sizeof length);
  Frame frame;
  frame.kind = static_cast<FrameKind>(header[4]);
  if (length > kJsonFrameMax) return fail(ErrorKind::corrupt, "the volume's daemon answers nonsense");
  frame.body.resize(length);
  if (!read_all(frame.body)) return gone();
  return frame;
}

}  // namespace cumulus
