#include "tools/miner/server/miner_connection.h"

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"

namespace cumulus {

using wire::MessageType;
using wire::Prelude;

// Cuts the stream when the time is over before it is destroyed.
class MinerConnection::Watchdog {
 public:
  Watchdog(MinerConnection& connection, Duration limit)
      : runtime_(connection.runtime_),
        timer_(runtime_.start_timer(runtime_.now() + limit, [&connection] { connection.cut(); })) {}
  ~Watchdog() { runtime_.cancel_timer(timer_); }
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  Runtime& runtime_;
  TimerId timer_;
};

MinerConnection::MinerConnection(MinerServer& server, wire::TcpSocket socket)
    : server_(server),
      runtime_(server.runtime_),
      stream_(runtime_, std::move(socket), server.identity_, wire::TlsStream::Role::server),
      requests_(runtime_, wire::kRequestsInFlightMax),
      put_bytes_(runtime_, server.options_.put_bytes_connection_max),
      answer_bytes_(runtime_, server.options_.answer_bytes_connection_max),
      writing_(runtime_, 1),
      tenant_(server_.tenant_of(std::nullopt)),
      tasks_(runtime_) {
  server_.connections_.insert(this);
}

MinerConnection::~MinerConnection() { server_.connections_.erase(this); }

Duration MinerConnection::transfer_time(std::uint64_t bytes) const {
  return server_.options_.stall_timeout + std::chrono::seconds(bytes / server_.options_.transfer_rate_min);
}

Task<void> MinerConnection::run() {
  Status outcome =
      co_await stream_.handshake(runtime_.now() + server_.options_.handshake_timeout, std::nullopt);
  if (outcome) outcome = co_await hello();
  if (outcome) outcome = co_await read_requests();
  if (!outcome && outcome.error().kind() == ErrorKind::corrupt)
    log_info("a client was cut off: {}", outcome.error().message());
  co_await tasks_.join();
  stream_.shut();
}

Task<Status> MinerConnection::hello() {
  const Watchdog limit(*this, server_.options_.handshake_timeout);
  std::array<std::uint8_t, Prelude::kEncodedSize> head;
  CO_TRY_OK(co_await stream_.read_exactly(head));
  CO_TRY(const Prelude prelude, Prelude::decode(head));
  if (prelude.type != MessageType::hello || prelude.answer())
    co_return fail(ErrorKind::corrupt, "its first message was not a HELLO");
  Bytes header(prelude.header_length);
  CO_TRY_OK(co_await stream_.read_exactly(header));
  const auto message = wire::HelloRequest::decode(header);
  if (!message) co_return fail(message.error());
  const auto admitted = co_await admit(*message);
  if (!admitted) {
    server_.errors_.add();
    MinerAnswer refusal = RequestHandler::error_answer(prelude, admitted.error());
    co_await send(std::move(refusal));
    co_return fail(admitted.error());
  }
  Prelude answer;
  answer.type = MessageType::hello;
  answer.flags = Prelude::kAnswer;
  answer.request_id = prelude.request_id;
  MinerAnswer framed;
  framed.frame = wire::frame(answer, *admitted);
  co_await send(std::move(framed));
  co_return Status();
}

Task<Result<wire::HelloAnswer>> MinerConnection::admit(wire::HelloRequest message) {
  if (message.version_min > wire::kProtocolVersion || message.version_max < wire::kProtocolVersion)
    co_return fail(ErrorKind::unsupported,
                   cumulus::format("protocol versions {} to {} were offered; this miner speaks {}",
                                   message.version_min, message.version_max, wire::kProtocolVersion));
  if ((message.features & wire::kIncompatibleFeatureMask & ~wire::kFeatures) != 0)
    co_return fail(ErrorKind::unsupported,
                   cumulus::format("protocol features {:#x} are not known to this miner", message.features));
  if (message.grant) {
    CO_TRY_OK(co_await check_grant(*message.grant));
    volume_ = message.grant->volume;
    rights_ = message.grant->rights;
    tenant_ = server_.tenant_of(volume_);
  }
  wire::HelloAnswer answer;
  answer.features = message.features & wire::kFeatures;
  answer.payload_in_flight_max = server_.options_.put_bytes_connection_max;
  answer.software = server_.options_.software;
  co_return answer;
}

Task<Status> MinerConnection::check_grant(const wire::Grant& grant) {
  CO_TRY_OK(grant.verify(stream_.peer(), runtime_.wall_now()));
  if (server_.allowed_.quota(grant.volume)) co_return Status();
  // Allowed a moment ago, perhaps.
  if (runtime_.now() >= server_.allowed_read_at_ + std::chrono::seconds(1)) {
    server_.allowed_read_at_ = runtime_.now();
    const Status read = co_await server_.allowed_.reload();
    if (!read) log_warn("{}; the allow list stays as it was", read.error().message());
  }
  if (server_.allowed_.quota(grant.volume)) co_return Status();
  co_return fail(
      ErrorKind::denied,
      cumulus::format("volume {} is not on this miner's allow list; its operator runs: cumulus-miner "
                      "allow DIR {} --quota SIZE",
                      grant.volume.brief(), grant.volume.hex()));
}

Task<Status> MinerConnection::read_requests() {
  while (!leaving_ && !stream_.is_shut()) {
    auto received = co_await receive();
    if (!received) co_return fail(received.error());
    tasks_.spawn(answer(*std::move(received)));
  }
  co_return Status();
}

Task<Result<MinerConnection::Received>> MinerConnection::receive() {
  std::array<std::uint8_t, Prelude::kEncodedSize> head;
  {
    // While answers are under way the client may well be silent.
    const bool busy = tasks_.running() != 0;
    const Watchdog limit(*this, server_.options_.idle_timeout * (busy ? 4 : 1));
    CO_TRY_OK(co_await stream_.read_exactly(head));
  }
  Received received;
  CO_TRY(received.request.prelude, Prelude::decode(head));
  const Prelude& prelude = received.request.prelude;
  if (prelude.answer()) co_return fail(ErrorKind::corrupt, "it sent an answer to nothing");
  if (prelude.timeout_ms != 0)
    received.deadline = runtime_.now() + std::chrono::milliseconds(prelude.timeout_ms);
  received.request.volume = volume_;
  received.request.rights = rights_;
  received.turn = co_await requests_.acquire();
  server_.received_.add(head.size() + prelude.header_length);
  if (RequestHandler::may_ask(prelude.type, volume_, rights_)) {
    const Watchdog limit(*this, transfer_time(prelude.header_length));
    received.request.header.resize(prelude.header_length);
    CO_TRY_OK(co_await stream_.read_exactly(received.request.header));
  } else {
    CO_TRY_OK(co_await skip(prelude.header_length));
  }
  if (prelude.type == MessageType::put && !received.request.header.empty()) {
    CO_TRY_OK(co_await receive_payload(received));
  } else {
    CO_TRY_OK(co_await skip(prelude.payload_length));
  }
  const std::uint64_t weight = RequestHandler::answer_weight(received.request);
  received.own_answer = co_await answer_bytes_.acquire(weight);
  received.tenants_answer = co_await tenant_->answer_bytes.acquire(weight);
  received.all_answers = co_await server_.answer_bytes_.acquire(weight);
  co_return received;
}

Task<Status> MinerConnection::skip(std::uint32_t length) {
  const Watchdog limit(*this, transfer_time(length));
  co_return co_await stream_.discard(length);
}

Task<Status> MinerConnection::receive_payload(Received& received) {
  const std::uint32_t length = received.request.prelude.payload_length;
  received.own_bytes = co_await put_bytes_.acquire(length);
  received.tenants_bytes = co_await tenant_->put_bytes.acquire(length);
  received.all_bytes = co_await server_.put_bytes_.acquire(length);
  const Watchdog limit(*this, transfer_time(length));
  received.request.payload = server_.handler_.buffers().acquire(length);
  CO_TRY_OK(co_await stream_.read_exactly(received.request.payload->view(0, length)));
  server_.received_.add(length);
  co_return Status();
}

Task<void> MinerConnection::answer(Received received) {
  const Prelude prelude = received.request.prelude;
  server_.requests_.add();
  MinerAnswer made;
  if (runtime_.now() > received.deadline) {
    made = RequestHandler::error_answer(
        prelude, Error(ErrorKind::unavailable, "the miner was too busy to answer within the request's time"));
  } else {
    made = co_await server_.handler_.handle(std::move(received.request));
  }
  received.own_bytes.release();
  received.tenants_bytes.release();
  received.all_bytes.release();
  co_await send(std::move(made));
}

Task<void> MinerConnection::send(MinerAnswer answer) {
  const Semaphore::Hold turn = co_await writing_.acquire();
  if (stream_.is_shut()) co_return;
  const Watchdog limit(*this, transfer_time(answer.payload.size()));
  const Status sent = co_await stream_.write_all(answer.frame, answer.payload);
  if (!sent) {
    stream_.shut();
    co_return;
  }
  server_.sent_.add(answer.frame.size() + answer.payload.size());
}

void MinerConnection::say_goodbye() {
  if (leaving_) return;
  leaving_ = true;
  tasks_.spawn([this]() -> Task<void> {
    Prelude prelude;
    prelude.type = MessageType::goaway;
    wire::Goaway message;
    message.reason = "the miner is shutting down";
    MinerAnswer framed;
    framed.frame = wire::frame(prelude, message);
    co_await send(std::move(framed));
    // What came in by now is answered; then reading ends.
    while (tasks_.running() > 1 && !stream_.is_shut())
      co_await runtime_.sleep_for(std::chrono::milliseconds(5));
    stream_.shut();
  });
}

}  // namespace cumulus
