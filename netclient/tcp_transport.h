// The network floor's door: SliceTransport over TCP and TLS 1.3 (PROTOCOL.md), for one volume.
//
// It keeps at most two connections to a miner, made when first needed: one for bulk (slices), one for
// everything else, so that a small question never waits behind megabytes. It holds the only retry for one
// miner: a request whose connection broke is sent once more on a fresh one (every request is idempotent).
// Reactor thread.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "netclient/address.h"
#include "netclient/wire/grant.h"
#include "objectstore/io/runtime.h"
#include "objectstore/slice_transport.h"

namespace cumulus {

// On whose behalf the transport speaks.
struct TransportIdentity {
  std::array<std::uint8_t, 32> tls_seed{};  // of the Ed25519 key that the grant names
  wire::Grant grant;
  Epoch epoch = 0;  // of this opening; see set_opening
  InstanceId instance;
  std::string software;  // for the miner's logs
};

struct TransportOptions {
  // Behaviour.
  Duration connect_timeout = std::chrono::seconds(5);  // connect, handshake and HELLO together
  Duration ping_after = std::chrono::seconds(10);      // of silence; an unanswered ping ends the connection
  Duration ping_timeout = std::chrono::seconds(10);
  Duration backoff_min = std::chrono::milliseconds(50);  // between attempts to connect; doubles, with jitter
  Duration backoff_max = std::chrono::seconds(5);

  // Performance: for each miner; a call beyond waits its turn, in order, until its deadline.
  std::size_t requests_in_flight_max = 64;
  std::size_t bytes_in_flight_max = 16 * 1024 * 1024;  // of PUT and READ payload
  std::size_t bulk_from = 64 * 1024;                   // payloads this large use the bulk connection
};

class TcpTransport : public SliceTransport {
 public:
  // Later requests carry this opening's numbers (known only after the holders were asked).
  virtual void set_opening(Epoch epoch, InstanceId instance) = 0;
};

// io when TLS cannot be set up. The runtime must be a real one (its executor serves sockets) and must outlive
// the transport; close() before destroying it. Neither waits for a look-up of a name that runs: `resolver`'s
// answer is dropped then.
Result<std::unique_ptr<TcpTransport>> make_tcp_transport(Runtime& runtime, const TransportIdentity& identity,
                                                         std::vector<MinerEntry> miners,
                                                         TransportOptions options = {},
                                                         Resolver resolver = resolve);

}  // namespace cumulus
