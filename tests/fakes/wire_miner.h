// WireMiner: a SimMiner served over real TCP and TLS, so that the real transport can be tested without the
// daemon, and against a miner that misbehaves on the wire. Reactor thread.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <functional>
#include <memory>
#include <set>

#include "netclient/wire/messages.h"
#include "netclient/wire/tls_stream.h"
#include "objectstore/io/sync.h"
#include "tests/fakes/sim_miner.h"

namespace cumulus {

// What the server does with a request instead of answering it.
enum class WireTrick {
  none,
  hang,          // says nothing to this one
  drop,          // closes the connection
  drop_halfway,  // closes it in the middle of the answer
  garbage,       // bytes that are no frame
  wrong_length,  // a payload one byte short of what was asked
  wrong_type,    // an answer to another kind of request
  goaway_then_answer,
  goaways,  // GOAWAY again and again, and nothing else
  trickle,  // the payload in small pieces, with pauses
};

class WireMiner {
 public:
  // `seed` makes its identity; SimMiner's id must be its public key: identity_of(seed).
  WireMiner(Runtime& runtime, std::uint8_t seed, SimMiner& miner);
  static MinerId identity_of(std::uint8_t seed);
  static std::array<std::uint8_t, 32> seed_of(std::uint8_t seed);

  // Listens on 127.0.0.1; `port` 0 takes any.
  void start(std::uint16_t port = 0);
  // As a crash: connections break, and everything in them ends.
  Task<void> stop();
  std::uint16_t port() const { return port_; }
  std::string address() const;
  std::size_t open_connections() const { return sessions_.size(); }
  // Ends all connections; new ones are taken.
  void hang_up();

  // Asked for every request but HELLO and PING.
  std::function<WireTrick(const wire::Prelude&)> trick;
  // Whether pings are answered.
  bool answers_pings = true;
  // Whether a new connection gets GOAWAYs, and nothing else, right after its HELLO.
  bool sends_away = false;
  // Said in its HELLO; 0: no limit.
  std::uint64_t payload_in_flight_max = 0;
  std::uint64_t connections = 0;
  std::uint64_t requests = 0;
  wire::Prelude last_request;

 private:
  struct Session;
  struct Request {
    wire::Prelude prelude;
    Bytes header;
    Bytes payload;
  };
  struct Answer {
    Bytes frame;
    Bytes payload;
  };
  Task<void> accept_loop();
  Task<void> serve(std::shared_ptr<Session> session);
  Task<Status> serve_requests(Session& session);
  Task<Status> hello(Session& session);
  Task<Result<Request>> next_request(Session& session);
  Task<Status> goaway(Session& session);
  Task<Status> goaways(Session& session);
  Task<Status> play(Session& session, WireTrick trick, const Request& request);
  Answer answer_to(const VolumeId& volume, const Request& request);
  Result<Answer> work(const VolumeId& volume, const Request& request);

  Runtime& runtime_;
  std::uint8_t seed_;
  SimMiner& miner_;
  std::shared_ptr<wire::TlsContext> tls_;
  std::unique_ptr<asio::basic_socket_acceptor<asio::ip::tcp, ReactorExecutor>> acceptor_;
  std::uint16_t port_ = 0;
  std::set<std::shared_ptr<Session>> sessions_;
  TaskGroup tasks_;
};

}  // namespace cumulus
