// Connection: one TLS connection to one miner after its HELLO, with many requests under way, answered in any
// order. A reader and a writer Task serve it, and a watcher that pings when it falls silent. It never
// reconnects and never retries: miner_link.h does. Reactor thread; held by shared_ptr, because its Tasks and
// its callers end in any order.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>

#include "netclient/tcp_transport.h"
#include "netclient/wire/frame.h"
#include "netclient/wire/messages.h"
#include "netclient/wire/tls_stream.h"
#include "objectstore/io/sync.h"

namespace cumulus {

// One request and its answer. Shared by the caller and the connection that carries it.
struct Exchange {
  wire::MessageType type = wire::MessageType::ping;
  Bytes frame;  // wire::frame(); the prelude is filled in when it is sent
  ByteView payload;
  std::shared_ptr<const void> payload_owner;
  // Where the answer's payload goes: straight to `into` when `direct`; else into `kept`.
  bool direct = false;
  MutableByteView into;
  std::shared_ptr<void> into_owner;

  Bytes header;  // the answer's
  Bytes kept;
  bool error_answer = false;
  bool payload_mismatch = false;  // a direct answer of another length: dropped
  bool interrupted = false;       // the caller wants it no more

  // Is it of these kinds?
  bool is(Calls kinds) const;
};

// Whose requests they are: read when each one is sent.
struct Opening {
  Epoch epoch = 0;
  InstanceId instance;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  enum class Outcome { answered, timed_out, interrupted, broken };

  Connection(Runtime& runtime, std::shared_ptr<const Opening> opening, const TransportOptions& options,
             std::unique_ptr<wire::TlsStream> stream);

  // Says HELLO and waits for the answer; before start(). denied, unsupported, unavailable.
  Task<Status> hello(const wire::HelloRequest& request, TimePoint deadline);
  // Runs the reader, writer and watcher in `tasks` until the connection ends.
  void start(TaskGroup& tasks);

  // timed_out, interrupted: the answer may still come, and goes nowhere. broken: failure() says why.
  Task<Outcome> exchange(std::shared_ptr<Exchange> exchange, TimePoint deadline);

  // False once it broke or the miner said GOAWAY: make another one for new requests.
  bool usable() const { return !failure_ && !sent_away(); }
  bool sent_away() const { return goaway_at_.has_value(); }
  bool broken() const { return failure_.has_value(); }
  const Error& failure() const { return *failure_; }
  std::size_t outstanding() const { return outstanding_.size(); }
  void shut(Error why);
  // Those who wait for exchanges that were marked `interrupted` are woken.
  void interrupt();

 private:
  struct Pending;
  Task<void> read_loop();
  Task<void> write_loop();
  Task<void> watch_loop();
  Task<Status> read_frame();
  Task<Status> read_answer(const wire::Prelude& prelude, Bytes header);
  Bytes next_batch(std::shared_ptr<Pending>& with_payload);
  bool may_send() const;
  Bytes prepare(Pending& pending);

  Runtime& runtime_;
  std::shared_ptr<const Opening> opening_;
  const TransportOptions options_;
  std::unique_ptr<wire::TlsStream> stream_;
  std::uint64_t payload_max_ = ~std::uint64_t{0};  // bytes sent and unanswered, by its HELLO
  std::uint64_t payload_under_way_ = 0;
  std::size_t requests_max_ = wire::kRequestsInFlightMax;  // sent and unanswered, as the miner's HELLO allows

  std::optional<Error> failure_;
  std::optional<TimePoint> goaway_at_;  // the first one's time
  std::uint32_t next_id_ = 1;
  std::map<std::uint32_t, std::shared_ptr<Pending>> outstanding_;
  std::deque<std::shared_ptr<Pending>> to_send_;
  Signal work_;   // to_send_ grew, or the end
  Signal ended_;  // for the watcher
  TimePoint last_heard_;
};

}  // namespace cumulus
