#include "tools/miner/control_server.h"

#include <boost/asio/read_until.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "objectstore/base/format.h"
#include "tools/miner/miner.h"

namespace cumulus {

using Token = asio::use_awaitable_t<ReactorExecutor>;
using asio::local::stream_protocol;

namespace {

constexpr Duration kCommandTime = std::chrono::seconds(5);

// A socket's path has at most 107 bytes; through the directory's descriptor any DIR works.
class SocketPath {
 public:
  explicit SocketPath(const std::string& directory)
      : descriptor_(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {}
  ~SocketPath() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  SocketPath(const SocketPath&) = delete;
  SocketPath& operator=(const SocketPath&) = delete;
  std::string name() const { return cumulus::format("/proc/self/fd/{}/control.sock", descriptor_); }

 private:
  int descriptor_;
};

// Who does not take a line in time gets no more: a scrub does not stand still for its listener.
Task<bool> send_line(Runtime& runtime, ControlServer::Socket& socket, std::string line) {
  line += '\n';
  boost::system::error_code error;
  const TimerId limit = runtime.start_timer(runtime.now() + kCommandTime, [&socket] {
    boost::system::error_code ignored;
    socket.shutdown(asio::socket_base::shutdown_both, ignored);
  });
  co_await asio::async_write(socket, asio::buffer(line), asio::redirect_error(Token(), error));
  runtime.cancel_timer(limit);
  co_return !error;
}

}  // namespace

Status ControlServer::listen() {
  const SocketPath path(directory_);
  ::unlink(path.name().c_str());
  boost::system::error_code error;
  acceptor_.open(stream_protocol(), error);
  if (!error) acceptor_.bind(stream_protocol::endpoint(path.name()), error);
  if (!error && ::chmod(path.name().c_str(), 0600) != 0)
    error = boost::system::error_code(errno, boost::system::system_category());
  if (!error) acceptor_.listen(8, error);
  if (error) {
    const std::string why = error.message();
    acceptor_.close(error);
    return fail(ErrorKind::io, directory_ + "/control.sock: " + why);
  }
  tasks_.spawn(accept_loop());
  return {};
}

Task<void> ControlServer::accept_loop() {
  while (!closing_) {
    boost::system::error_code error;
    Socket socket =
        co_await acceptor_.async_accept(runtime_.executor(), asio::redirect_error(Token(), error));
    if (closing_) break;
    if (error) {
      co_await runtime_.sleep_for(std::chrono::milliseconds(50));
      continue;
    }
    if (sockets_.size() < kConnectionsMax) tasks_.spawn(serve(std::move(socket)));
  }
}

Task<void> ControlServer::serve(Socket socket) {
  sockets_.insert(&socket);
  const TimerId limit = runtime_.start_timer(runtime_.now() + kCommandTime, [&socket] {
    boost::system::error_code ignored;
    socket.shutdown(asio::socket_base::shutdown_receive, ignored);
  });
  std::string line;
  boost::system::error_code error;
  co_await asio::async_read_until(socket, asio::dynamic_buffer(line, 256), '\n',
                                  asio::redirect_error(Token(), error));
  runtime_.cancel_timer(limit);
  if (!error) co_await answer(socket, line.substr(0, line.find('\n')));
  sockets_.erase(&socket);
}

Task<void> ControlServer::answer(Socket& socket, std::string command) {
  if (command == "status") {
    std::string state = "status " + miner_.status_json() + "\ndone";
    (void)co_await send_line(runtime_, socket, std::move(state));
  } else if (command == "reload") {
    const Status reloaded = co_await miner_.reload();
    std::string line = "done";
    if (!reloaded) line = "error " + reloaded.error().message();
    (void)co_await send_line(runtime_, socket, std::move(line));
  } else if (command == "scrub") {
    co_await scrub(socket);
  } else {
    std::string line = "error unknown command";
    (void)co_await send_line(runtime_, socket, std::move(line));
  }
}

Task<void> ControlServer::scrub(Socket& socket) {
  const auto tell = [this, &socket](ScrubReport report) -> Task<void> {
    std::string line =
        cumulus::format("progress {} {} {} {}", report.slices, report.total_slices, report.bytes, report.bad);
    (void)co_await send_line(runtime_, socket, std::move(line));
  };
  const auto report = co_await miner_.scrubber().run(0, tell);
  std::string line;
  if (report) {
    line = cumulus::format("done {} {} {}", report->slices, report->bytes, report->bad);
  } else {
    line = "error " + report.error().message();
  }
  (void)co_await send_line(runtime_, socket, std::move(line));
}

Task<void> ControlServer::close() {
  closing_ = true;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  ::unlink((directory_ + "/control.sock").c_str());
  for (Socket* socket : sockets_) socket->shutdown(asio::socket_base::shutdown_both, ignored);
  co_await tasks_.join();
}

Task<Status> ask_daemon(Runtime& runtime, std::string directory, std::string command,
                        std::function<void(std::string_view)> each) {
  const SocketPath path(directory);
  ControlServer::Socket socket(runtime.executor());
  boost::system::error_code error;
  co_await socket.async_connect(stream_protocol::endpoint(path.name()), asio::redirect_error(Token(), error));
  if (error) co_return fail(ErrorKind::not_found, directory + ": no cumulus-miner runs there");
  const bool sent = co_await send_line(runtime, socket, std::move(command));
  if (!sent) co_return fail(ErrorKind::unavailable, directory + ": the daemon does not answer");
  std::string buffered;
  for (;;) {
    const std::size_t length = co_await asio::async_read_until(
        socket, asio::dynamic_buffer(buffered, 1 << 20), '\n', asio::redirect_error(Token(), error));
    if (error) co_return fail(ErrorKind::unavailable, directory + ": the daemon ended the conversation");
    const std::string line = buffered.substr(0, length - 1);
    buffered.erase(0, length);
    if (line.starts_with("error ")) co_return fail(ErrorKind::io, line.substr(6));
    each(line);
    if (line.starts_with("done")) co_return Status();
  }
}

}  // namespace cumulus
