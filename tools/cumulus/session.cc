#include "tools/cumulus/session.h"

#include <boost/asio/redirect_error.hpp>
#include <cstring>
#include <sys/socket.h>
#include <unistd.h>

#include "objectstore/base/format.h"

namespace cumulus {
namespace {

constexpr std::size_t kFramesAhead = 4;
using Token = asio::use_awaitable_t<ReactorExecutor>;

}  // namespace

Session::Session(Runtime& runtime, Socket socket)
    : runtime_(runtime), socket_(std::move(socket)), changed_(runtime), sending_(runtime, 1) {
  boost::system::error_code ignored;
  socket_.non_blocking(true, ignored);
}

Session::~Session() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

// By hand, for descriptors come beside the bytes.
Task<bool> Session::read_exactly(MutableByteView into) {
  while (!into.empty()) {
    iovec part{into.data(), into.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(socket_.native_handle(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      boost::system::error_code error;
      Token token;
      co_await socket_.async_wait(Socket::wait_read, asio::redirect_error(token, error));
      if (error) co_return false;
      continue;
    }
    if (got <= 0) co_return false;
    for (cmsghdr* part_of = CMSG_FIRSTHDR(&message); part_of != nullptr;
         part_of = CMSG_NXTHDR(&message, part_of)) {
      if (part_of->cmsg_level != SOL_SOCKET || part_of->cmsg_type != SCM_RIGHTS) continue;
      if (descriptor_ >= 0) ::close(descriptor_);
      std::memcpy(&descriptor_, CMSG_DATA(part_of), sizeof descriptor_);
    }
    into = into.subspan(static_cast<std::size_t>(got));
  }
  co_return true;
}

Task<bool> Session::write_exactly(ByteView from) {
  while (!from.empty()) {
    const ssize_t put =
        ::send(socket_.native_handle(), from.data(), from.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      boost::system::error_code error;
      Token token;
      co_await socket_.async_wait(Socket::wait_write, asio::redirect_error(token, error));
      if (error) co_return false;
      continue;
    }
    if (put <= 0) co_return false;
    from = from.subspan(static_cast<std::size_t>(put));
  }
  co_return true;
}

Task<void> Session::read_loop() {
  for (;;) {
    while (frames_.size() >= kFramesAhead && !gone_) co_await changed_.wait();
    std::array<std::uint8_t, kFrameHeader> header;
    if (gone_ || !co_await read_exactly(header)) break;
    std::uint32_t length = 0;
    std::memcpy(&length, header.data(), sizeof length);
    Frame frame;
    frame.kind = static_cast<FrameKind>(header[4]);
    if (length > (frame.kind == FrameKind::json ? kJsonFrameMax : kDataFrameMax)) break;
    frame.body.resize(length);
    if (!co_await read_exactly(frame.body)) break;
    frames_.push_back(std::move(frame));
    changed_.notify_all();
  }
  gone_ = true;
  changed_.notify_all();
}

Task<Result<Session::Frame>> Session::receive() {
  while (frames_.empty() && !gone_) co_await changed_.wait();
  if (frames_.empty()) co_return fail(ErrorKind::closed, "the command went away");
  Frame frame = std::move(frames_.front());
  frames_.pop_front();
  changed_.notify_all();
  co_return frame;
}

Task<Result<std::size_t>> Session::receive_data(MutableByteView into) {
  std::size_t done = 0;
  while (done < into.size() && !data_ended_) {
    if (data_at_ == data_.size()) {
      CO_TRY(Frame frame, co_await receive());
      data_ended_ = frame.kind == FrameKind::end;
      if (!data_ended_ && frame.kind != FrameKind::data)
        co_return fail(ErrorKind::invalid, "data was expected");
      data_ = std::move(frame.body);
      data_at_ = 0;
      continue;
    }
    const std::size_t part = std::min(into.size() - done, data_.size() - data_at_);
    std::copy_n(data_.begin() + static_cast<std::ptrdiff_t>(data_at_), part,
                into.begin() + static_cast<std::ptrdiff_t>(done));
    data_at_ += part;
    done += part;
  }
  co_return done;
}

Task<Status> Session::send(FrameKind kind, ByteView body) {
  const Semaphore::Hold turn = co_await sending_.acquire();
  std::array<std::uint8_t, kFrameHeader> header;
  const auto length = static_cast<std::uint32_t>(body.size());
  std::memcpy(header.data(), &length, sizeof length);
  header[4] = static_cast<std::uint8_t>(kind);
  if (!co_await write_exactly(header) || !co_await write_exactly(body)) {
    gone_ = true;
    co_return fail(ErrorKind::closed, "the command went away");
  }
  co_return Status();
}

Task<Status> Session::send_json(Json json) {
  const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  co_return co_await send(FrameKind::json, view_of(text));
}

bool Session::progress(std::uint64_t done, std::uint64_t total, const std::string& waiting_for) {
  if (gone_) return false;
  if (runtime_.now() < progressed_ + std::chrono::milliseconds(200)) return true;
  progressed_ = runtime_.now();
  Semaphore::Hold turn;
  if (!sending_.try_acquire(turn)) return true;
  // Small, and dropped when the socket is full: progress is never worth waiting for.
  Json report{{"progress", {done, total}}};
  if (!waiting_for.empty()) report["waiting_for"] = waiting_for;
  const std::string text = report.dump(-1, ' ', false, Json::error_handler_t::replace);
  Bytes frame(kFrameHeader + text.size());
  const auto length = static_cast<std::uint32_t>(text.size());
  std::memcpy(frame.data(), &length, sizeof length);
  frame[4] = static_cast<std::uint8_t>(FrameKind::json);
  std::memcpy(frame.data() + kFrameHeader, text.data(), text.size());
  const ssize_t put =
      ::send(socket_.native_handle(), frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (put >= 0 && put != static_cast<ssize_t>(frame.size())) end();  // half a frame cannot be taken back
  return !gone_;
}

void Session::end() {
  gone_ = true;
  boost::system::error_code ignored;
  socket_.shutdown(Socket::shutdown_both, ignored);
  changed_.notify_all();
}

}  // namespace cumulus
