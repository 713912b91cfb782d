// MinerServer: the listening socket and its connections. Accepts up to a bound, does TLS and HELLO with each,
// reads requests and has them answered side by side (PROTOCOL.md of netclient/wire). Payloads land straight
// in the aligned buffers that the disk writes from.
//
// What is bounded, and what happens when it is full: connections (a further one is closed at once), requests
// and payload bytes of a connection and of all (nothing more is read from it: TCP holds the client back),
// time for the handshake, for a payload to arrive and for an answer to leave (the connection is cut). Reactor
// thread.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "netclient/wire/tls_stream.h"
#include "objectstore/base/metrics.h"
#include "objectstore/io/sync.h"
#include "tools/miner/server/request_handler.h"

namespace cumulus {

struct MinerServerOptions {
  std::string address = "127.0.0.1";  // numeric, IPv4 or IPv6
  std::uint16_t port = 0;             // 0: the system picks one
  std::size_t connections_max = 512;
  // Payloads of PUTs in memory, of all connections and of one. A volume's connections have half of all
  // together.
  std::uint64_t put_bytes_max = 80ULL << 20;
  std::uint64_t put_bytes_connection_max = 40ULL << 20;
  // Answers in memory: the same; and those to all who showed no grant.
  std::uint64_t answer_bytes_max = 64ULL << 20;
  std::uint64_t answer_bytes_connection_max = 32ULL << 20;
  std::uint64_t answer_bytes_strangers_max = 1ULL << 20;
  Duration handshake_timeout = std::chrono::seconds(10);
  Duration idle_timeout = std::chrono::seconds(90);
  Duration stall_timeout = std::chrono::seconds(15);    // plus a second for every transfer_rate_min bytes
  std::uint64_t transfer_rate_min = 128 << 10;          // bytes a second
  Duration goodbye_timeout = std::chrono::seconds(10);  // for what was received, when closing
  std::string software = "cumulus-miner 0.1.0";
};

class MinerConnection;

class MinerServer {
 public:
  MinerServer(Runtime& runtime, RequestHandler& handler, AllowList& allowed,
              std::shared_ptr<wire::TlsContext> identity, Metrics& metrics, MinerServerOptions options);
  ~MinerServer();

  // io with the reason when the address cannot be listened on.
  Status listen();
  std::uint16_t port() const { return port_; }
  std::string endpoint() const;  // "ADDR:PORT"; brackets around IPv6
  std::size_t connections() const { return connections_.size(); }
  // GOAWAY to all; what was received is answered; then everything is closed. Call once, before destruction.
  Task<void> close();

 private:
  friend class MinerConnection;
  // What one volume's connections hold together, so that those who are slow, or mean to be, do not keep all
  // others waiting. Ends with the last of them.
  struct Tenant {
    Semaphore put_bytes;
    Semaphore answer_bytes;
  };
  using Acceptor = asio::basic_socket_acceptor<asio::ip::tcp, ReactorExecutor>;

  Task<void> accept_loop();
  Task<void> serve(wire::TcpSocket socket);
  // Of nullopt: all who showed no grant.
  std::shared_ptr<Tenant> tenant_of(const std::optional<VolumeId>& volume);

  Runtime& runtime_;
  RequestHandler& handler_;
  AllowList& allowed_;
  std::shared_ptr<wire::TlsContext> identity_;
  MinerServerOptions options_;
  Acceptor acceptor_;
  std::uint16_t port_ = 0;
  bool closing_ = false;
  Semaphore put_bytes_;
  Semaphore answer_bytes_;
  std::map<std::optional<VolumeId>, std::weak_ptr<Tenant>> tenants_;
  std::set<MinerConnection*> connections_;
  std::size_t sockets_ = 0;
  TimePoint allowed_read_at_;
  TaskGroup tasks_;

  Counter& connections_gauge_;
  Counter& refused_;
  Counter& requests_;
  Counter& errors_;
  Counter& received_;
  Counter& sent_;
};

}  // namespace cumulus
