#include "tests/fakes/wire_miner.h"

#include <boost/asio/redirect_error.hpp>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/tls_identity.h"

namespace cumulus {
namespace {

using Token = asio::use_awaitable_t<ReactorExecutor>;
using wire::MessageType;

wire::Prelude answering(const wire::Prelude& request, bool error = false) {
  wire::Prelude prelude;
  prelude.type = request.type;
  prelude.flags = static_cast<std::uint8_t>(wire::Prelude::kAnswer | (error ? wire::Prelude::kError : 0));
  prelude.request_id = request.request_id;
  return prelude;
}

wire::ReadAnswer read_answer(const SimMiner::ReadOutcome& outcome) {
  wire::ReadAnswer answer;
  answer.ranges.push_back({{outcome.offset, outcome.bytes.size()}, outcome.proof});
  answer.manifest = outcome.manifest;
  return answer;
}

}  // namespace

struct WireMiner::Session {
  std::unique_ptr<wire::TlsStream> stream;
  VolumeId volume;
};

std::array<std::uint8_t, 32> WireMiner::seed_of(std::uint8_t seed) {
  std::array<std::uint8_t, 32> bytes{};
  bytes.fill(seed);
  return bytes;
}

MinerId WireMiner::identity_of(std::uint8_t seed) {
  return MinerId{TlsIdentity::from_seed(seed_of(seed)).public_key()};
}

WireMiner::WireMiner(Runtime& runtime, std::uint8_t seed, SimMiner& miner)
    : runtime_(runtime), seed_(seed), miner_(miner), tasks_(runtime) {
  tls_ = *wire::TlsContext::make(TlsIdentity::from_seed(seed_of(seed_)));
}

std::string WireMiner::address() const { return format("127.0.0.1:{}", port_); }

void WireMiner::start(std::uint16_t port) {
  const asio::ip::tcp::endpoint endpoint(asio::ip::address_v4::loopback(), port);
  acceptor_ = std::make_unique<asio::basic_socket_acceptor<asio::ip::tcp, ReactorExecutor>>(
      runtime_.executor(), endpoint, true);
  port_ = acceptor_->local_endpoint().port();
  tasks_.spawn(accept_loop());
}

Task<void> WireMiner::stop() {
  if (acceptor_) acceptor_->close();
  hang_up();
  co_await tasks_.join();
  acceptor_.reset();
}

void WireMiner::hang_up() {
  for (const auto& session : sessions_) session->stream->shut();
}

Task<void> WireMiner::accept_loop() {
  for (;;) {
    wire::TcpSocket socket(runtime_.executor());
    boost::system::error_code error;
    co_await acceptor_->async_accept(socket, asio::redirect_error(Token(), error));
    if (error) co_return;
    ++connections;
    auto session = std::make_shared<Session>();
    session->stream =
        std::make_unique<wire::TlsStream>(runtime_, std::move(socket), tls_, wire::TlsStream::Role::server);
    sessions_.insert(session);
    tasks_.spawn(serve(session));
  }
}

Task<void> WireMiner::serve(std::shared_ptr<Session> session) {
  Status status = co_await session->stream->handshake(runtime_.now() + std::chrono::seconds(5), std::nullopt);
  if (status) status = co_await hello(*session);
  if (status && sends_away) status = co_await goaways(*session);
  if (status) status = co_await serve_requests(*session);
  session->stream->shut();
  sessions_.erase(session);
}

Task<Result<WireMiner::Request>> WireMiner::next_request(Session& session) {
  Bytes head(wire::Prelude::kEncodedSize);
  CO_TRY_OK(co_await session.stream->read_exactly(head));
  Request request;
  CO_TRY(request.prelude, wire::Prelude::decode(head));
  request.header.resize(request.prelude.header_length);
  CO_TRY_OK(co_await session.stream->read_exactly(request.header));
  request.payload.resize(request.prelude.payload_length);
  CO_TRY_OK(co_await session.stream->read_exactly(request.payload));
  co_return request;
}

Task<Status> WireMiner::hello(Session& session) {
  CO_TRY(const Request request, co_await next_request(session));
  if (request.prelude.type != MessageType::hello) co_return fail(ErrorKind::corrupt, "no HELLO");
  CO_TRY(const wire::HelloRequest hello, wire::HelloRequest::decode(request.header));
  Status allowed = fail(ErrorKind::denied, "HELLO: no grant");
  if (hello.grant) allowed = hello.grant->verify(session.stream->peer(), runtime_.wall_now());
  Bytes frame;
  if (allowed) {
    session.volume = hello.grant->volume;
    wire::HelloAnswer answer;
    answer.payload_in_flight_max = payload_in_flight_max;
    answer.software = "wire miner";
    frame = wire::frame(answering(request.prelude), answer);
  } else {
    const wire::ErrorAnswer refusal{allowed.error().kind(), allowed.error().message()};
    frame = wire::frame(answering(request.prelude, true), refusal);
  }
  CO_TRY_OK(co_await session.stream->write_all(frame));
  co_return allowed;
}

Task<Status> WireMiner::serve_requests(Session& session) {
  for (;;) {
    CO_TRY(const Request request, co_await next_request(session));
    if (request.prelude.type == MessageType::ping) {
      const Bytes pong = wire::frame(answering(request.prelude), wire::Empty{});
      if (answers_pings) CO_TRY_OK(co_await session.stream->write_all(pong));
      continue;
    }
    ++requests;
    last_request = request.prelude;
    const WireTrick what = trick ? trick(request.prelude) : WireTrick::none;
    CO_TRY_OK(co_await play(session, what, request));
  }
}

Task<Status> WireMiner::goaway(Session& session) {
  wire::Prelude prelude;
  prelude.type = MessageType::goaway;
  const Bytes frame = wire::frame(prelude, wire::Goaway{"maintenance"});
  co_return co_await session.stream->write_all(frame);
}

Task<Status> WireMiner::goaways(Session& session) {
  for (;;) {
    CO_TRY_OK(co_await goaway(session));
    co_await runtime_.sleep_for(std::chrono::milliseconds(20));
  }
}

Task<Status> WireMiner::play(Session& session, WireTrick what, const Request& request) {
  wire::TlsStream& stream = *session.stream;
  if (what == WireTrick::hang) co_return Status{};
  if (what == WireTrick::drop) co_return fail(ErrorKind::closed, "dropped");
  if (what == WireTrick::goaways) co_return co_await goaways(session);
  if (what == WireTrick::goaway_then_answer) CO_TRY_OK(co_await goaway(session));
  if (what == WireTrick::garbage) {
    const Bytes noise(100, 0x5A);
    co_return co_await stream.write_all(noise);
  }
  Answer answer = answer_to(session.volume, request);
  if (what == WireTrick::wrong_type) answer.frame[4] ^= 1;
  if (what == WireTrick::wrong_length && !answer.payload.empty()) {
    answer.payload.pop_back();
    wire::set_prelude(answer.frame, answering(request.prelude), answer.payload.size());
  }
  if (what == WireTrick::drop_halfway) {
    answer.payload.resize(answer.payload.size() / 2);
    CO_TRY_OK(co_await stream.write_all(answer.frame, answer.payload));
    co_return fail(ErrorKind::closed, "dropped");
  }
  if (what != WireTrick::trickle) co_return co_await stream.write_all(answer.frame, answer.payload);
  CO_TRY_OK(co_await stream.write_all(answer.frame));
  for (ByteView rest = answer.payload; !rest.empty();) {
    const ByteView part = rest.first(std::min<std::size_t>(rest.size(), 1000));
    CO_TRY_OK(co_await stream.write_all(part));
    co_await runtime_.sleep_for(std::chrono::milliseconds(5));
    rest = rest.subspan(part.size());
  }
  co_return Status{};
}

WireMiner::Answer WireMiner::answer_to(const VolumeId& volume, const Request& request) {
  Result<Answer> answer = work(volume, request);
  if (answer) return std::move(*answer);
  const wire::ErrorAnswer refusal{answer.error().kind(), answer.error().message()};
  return {wire::frame(answering(request.prelude, true), refusal), {}};
}

Result<WireMiner::Answer> WireMiner::work(const VolumeId& volume, const Request& request) {
  const wire::Prelude head = answering(request.prelude);
  const auto holder = [&](const Result<HolderAnswer>& got) -> Result<Answer> {
    if (!got) return fail(got.error());
    const Bytes state = got->state.encode();
    return Answer{wire::frame(head, wire::HolderMessage{got->accepted, state}), {}};
  };
  const auto read = [&](Result<SimMiner::ReadOutcome> got) -> Result<Answer> {
    if (!got) return fail(got.error());
    const wire::ReadAnswer answer = read_answer(*got);
    return Answer{wire::frame(head, answer, got->bytes.size()), std::move(got->bytes)};
  };
  const auto done = [&](const Status& status) -> Result<Answer> {
    if (!status) return fail(status.error());
    return Answer{wire::frame(head, wire::Empty{}), {}};
  };
  switch (request.prelude.type) {
    case MessageType::put: {
      TRY(const wire::PutRequest put, wire::PutRequest::decode(request.header));
      return done(miner_.put(volume, put.slice, put.manifest, request.payload));
    }
    case MessageType::read: {
      TRY(const wire::ReadRequest asked, wire::ReadRequest::decode(request.header));
      if (asked.ranges.size() != 1) return fail(ErrorKind::invalid, "READ: one range only");
      return read(miner_.read(volume, asked.slice, asked.ranges[0].offset, asked.ranges[0].length,
                              asked.with_proof, asked.with_manifest));
    }
    case MessageType::challenge: {
      TRY(const wire::ChallengeRequest asked, wire::ChallengeRequest::decode(request.header));
      return read(miner_.challenge(volume, {asked.slice, asked.leaf}));
    }
    case MessageType::list: {
      TRY(const wire::ListRequest asked, wire::ListRequest::decode(request.header));
      std::optional<Bytes> from;
      if (asked.from) from.emplace(asked.from->begin(), asked.from->end());
      TRY(const SliceListPage page, miner_.list(volume, from));
      wire::ListAnswer answer;
      for (const SliceListing& slice : page.slices) answer.slices.push_back({slice.index, slice.manifest});
      if (page.next) answer.next = *page.next;
      return Answer{wire::frame(head, answer), {}};
    }
    case MessageType::have: {
      TRY(const wire::HaveRequest asked, wire::HaveRequest::decode(request.header));
      TRY(auto roots, miner_.have(volume, asked.slices));
      return Answer{wire::frame(head, wire::HaveAnswer{std::move(roots)}), {}};
    }
    case MessageType::remove: {
      TRY(const wire::RemoveRequest asked, wire::RemoveRequest::decode(request.header));
      return done(miner_.remove(volume, asked.slices));
    }
    case MessageType::promise: {
      TRY(const wire::PromiseRequest asked, wire::PromiseRequest::decode(request.header));
      TRY(const BallotClaim claim, BallotClaim::decode(asked.claim));
      return holder(miner_.promise(volume, claim));
    }
    case MessageType::accept: {
      TRY(const wire::AcceptRequest asked, wire::AcceptRequest::decode(request.header));
      TRY(const Superblock record, Superblock::decode(asked.record));
      return holder(miner_.accept(volume, record));
    }
    case MessageType::superblock: {
      TRY(HolderState state, miner_.superblock(volume));
      return holder(HolderAnswer{true, std::move(state)});
    }
    case MessageType::status: {
      TRY(const MinerStatus status, miner_.status(volume));
      return Answer{wire::frame(head, wire::StatusAnswer{status}), {}};
    }
    default:
      return fail(ErrorKind::unsupported, "this message is not known");
  }
}

}  // namespace cumulus
