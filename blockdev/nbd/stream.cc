#include "blockdev/nbd/stream.h"

#include <algorithm>
#include <cerrno>
#include <sys/socket.h>
#include <unistd.h>

namespace cumulus::nbd {

Stream::Stream(Runtime& runtime, int socket) : socket_(socket), readiness_(runtime, socket) {}

Stream::~Stream() { ::close(socket_); }

Stream::Moved Stream::read_some(MutableByteView into) {
  for (;;) {
    const ssize_t got = ::recv(socket_, into.data(), into.size(), MSG_DONTWAIT);
    if (got > 0) return {Outcome::moved, static_cast<std::size_t>(got)};
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return {Outcome::wants_read, 0};
    return {Outcome::closed, 0};
  }
}

Stream::Moved Stream::write_some(std::span<const iovec> parts) {
  for (;;) {
    msghdr message{};
    iovec copy[64];
    const std::size_t count = std::min(parts.size(), std::size(copy));
    std::copy_n(parts.begin(), count, copy);
    message.msg_iov = copy;
    message.msg_iovlen = count;
    const ssize_t put = ::sendmsg(socket_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put >= 0) return {Outcome::moved, static_cast<std::size_t>(put)};
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return {Outcome::wants_write, 0};
    return {Outcome::closed, 0};
  }
}

Task<void> Stream::wait(Outcome wanted) {
  if (wanted == Outcome::wants_read) co_await readiness_.readable();
  if (wanted == Outcome::wants_write) co_await readiness_.writable();
}

void Stream::end_input() { ::shutdown(socket_, SHUT_RD); }
void Stream::shut() { ::shutdown(socket_, SHUT_RDWR); }

}  // namespace cumulus::nbd
