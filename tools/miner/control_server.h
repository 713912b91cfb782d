// ControlServer: DIR/control.sock, through which commands reach the running daemon. One line in ("status",
// "reload", "scrub"), lines out, the last one "done ..." or "error ...". DIR is 0700: who may open it is the
// operator. Reactor thread.
#pragma once

#include <boost/asio/local/stream_protocol.hpp>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "objectstore/io/sync.h"

namespace cumulus {

class Miner;

class ControlServer {
 public:
  static constexpr std::size_t kConnectionsMax = 16;

  ControlServer(Runtime& runtime, Miner& miner, std::string directory)
      : runtime_(runtime),
        miner_(miner),
        directory_(std::move(directory)),
        acceptor_(runtime.executor()),
        tasks_(runtime) {}

  // Replaces a socket that a killed daemon left: DIR's lock says that it is nobody's.
  Status listen();
  Task<void> close();

  using Socket = asio::basic_stream_socket<asio::local::stream_protocol, ReactorExecutor>;

 private:
  Task<void> accept_loop();
  Task<void> serve(Socket socket);
  Task<void> answer(Socket& socket, std::string command);
  Task<void> scrub(Socket& socket);

  Runtime& runtime_;
  Miner& miner_;
  std::string directory_;
  asio::basic_socket_acceptor<asio::local::stream_protocol, ReactorExecutor> acceptor_;
  std::set<Socket*> sockets_;
  bool closing_ = false;
  TaskGroup tasks_;
};

// Sends one command to the daemon of DIR; `each` gets every line as it comes. not_found: no daemon runs
// there.
Task<Status> ask_daemon(Runtime& runtime, std::string directory, std::string command,
                        std::function<void(std::string_view)> each);

}  // namespace cumulus
