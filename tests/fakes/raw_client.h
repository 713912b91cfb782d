// RawClient: speaks the wire protocol by hand, so that a test can speak it badly to a real miner. Its TLS
// identity is always the same. Reactor thread.
#pragma once

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <gtest/gtest.h>

#include "netclient/wire/messages.h"
#include "netclient/wire/tls_stream.h"
#include "objectstore/crypto/tls_identity.h"
#include "objectstore/io/reactor.h"
#include "tests/fakes/miner_samples.h"

namespace cumulus {

// Speaks the protocol by hand, so that it can speak it badly.
struct RawClient {
  RawClient(Reactor& given, std::uint16_t given_port) : reactor(given), port(given_port) {}
  ~RawClient() {
    if (stream) stream->shut();
  }

  Task<wire::TcpSocket> connect() {
    wire::TcpSocket socket(reactor.executor());
    const asio::ip::tcp::endpoint to(asio::ip::address_v4::loopback(), port);
    boost::system::error_code error;
    co_await socket.async_connect(to, asio::redirect_error(asio::use_awaitable_t<ReactorExecutor>(), error));
    EXPECT_FALSE(error) << error.message();
    co_return socket;
  }
  Task<Status> handshake() {
    std::array<std::uint8_t, 32> seed;
    seed.fill(9);
    const TlsIdentity identity = TlsIdentity::from_seed(seed);
    CO_TRY(auto context, wire::TlsContext::make(identity));
    wire::TcpSocket socket = co_await connect();
    stream =
        std::make_unique<wire::TlsStream>(reactor, std::move(socket), context, wire::TlsStream::Role::client);
    co_return co_await stream->handshake(reactor.now() + std::chrono::seconds(5), std::nullopt);
  }
  static wire::Grant grant_of(const SampleVolume& volume, std::uint32_t rights = wire::Grant::kAll) {
    std::array<std::uint8_t, 32> seed;
    seed.fill(9);
    wire::Grant grant;
    grant.volume = volume.id();
    grant.tls_public_key = TlsIdentity::from_seed(seed).public_key();
    grant.rights = rights;
    wire::sign_grant(grant, volume.key());
    return grant;
  }
  struct Answer {
    wire::Prelude prelude;
    Bytes header;
    std::optional<ErrorKind> error;
  };
  Task<Result<Answer>> answer() {
    Answer got;
    std::array<std::uint8_t, wire::Prelude::kEncodedSize> head;
    CO_TRY_OK(co_await stream->read_exactly(head));
    CO_TRY(got.prelude, wire::Prelude::decode(head));
    got.header.resize(got.prelude.header_length);
    CO_TRY_OK(co_await stream->read_exactly(got.header));
    CO_TRY_OK(co_await stream->discard(got.prelude.payload_length));
    if (got.prelude.error()) {
      CO_TRY(const auto message, wire::ErrorAnswer::decode(got.header));
      got.error = message.kind;
    }
    co_return got;
  }
  template <class Message>
  Task<Result<Answer>> ask(wire::MessageType type, Message message, ByteView payload = {}) {
    wire::Prelude prelude;
    prelude.type = type;
    prelude.request_id = ++requests;
    const Bytes frame = wire::frame(prelude, message, payload.size());
    CO_TRY_OK(co_await stream->write_all(frame, payload));
    co_return co_await answer();
  }
  Task<Result<Answer>> hello(std::optional<wire::Grant> grant) {
    CO_TRY_OK(co_await handshake());
    wire::HelloRequest message;
    message.grant = std::move(grant);
    co_return co_await ask(wire::MessageType::hello, message);
  }
  // The miner ended the connection within `limit`, whatever it said before.
  Task<bool> is_cut(Duration limit) {
    const TimerId timer = reactor.start_timer(reactor.now() + limit, [this] { stream->shut(); });
    Bytes nowhere(4096);
    bool cut = false;
    for (;;) {
      const auto got = co_await stream->read_some(nowhere);
      if (got && *got != 0) continue;
      cut = got ? true : got.error().kind() == ErrorKind::unavailable;
      break;
    }
    reactor.cancel_timer(timer);
    co_return cut;
  }

  Reactor& reactor;
  std::uint16_t port;
  std::unique_ptr<wire::TlsStream> stream;
  std::uint32_t requests = 0;
};

inline ErrorKind error_of(const Result<RawClient::Answer>& answer) {
  if (!answer) return answer.error().kind();
  return answer->error.value_or(ErrorKind::closed);  // closed: it was no error
}
inline constexpr ErrorKind kNoError = ErrorKind::closed;

}  // namespace cumulus
