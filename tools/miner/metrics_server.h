// MetricsServer: GET /metrics over plain HTTP, in Prometheus' text format. One request a connection; at most
// 16 connections, each for 5 seconds. Numbers only: nothing here can change anything. Reactor thread.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <string>

#include "objectstore/base/metrics.h"
#include "objectstore/io/sync.h"

namespace cumulus {

class MetricsServer {
 public:
  MetricsServer(Runtime& runtime, const Metrics& metrics)
      : runtime_(runtime), metrics_(metrics), acceptor_(runtime.executor()), tasks_(runtime) {}

  Status listen(const std::string& address, std::uint16_t port);
  std::uint16_t port() const { return port_; }
  Task<void> close();

 private:
  using Socket = asio::basic_stream_socket<asio::ip::tcp, ReactorExecutor>;
  Task<void> accept_loop();
  Task<void> serve(Socket socket);

  Runtime& runtime_;
  const Metrics& metrics_;
  asio::basic_socket_acceptor<asio::ip::tcp, ReactorExecutor> acceptor_;
  std::uint16_t port_ = 0;
  std::size_t connections_ = 0;
  bool closing_ = false;
  TaskGroup tasks_;
};

}  // namespace cumulus
