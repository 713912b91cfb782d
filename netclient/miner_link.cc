#include "netclient/miner_link.h"

#include <algorithm>
#include <boost/asio/redirect_error.hpp>

#include "objectstore/base/format.h"
#include "objectstore/base/log.h"

namespace cumulus {
namespace {

using Token = asio::use_awaitable_t<ReactorExecutor>;

constexpr Duration kLatencyAtFirst = std::chrono::milliseconds(20);
constexpr Duration kLatencyMax = std::chrono::seconds(60);
// Connections that were sent away and still owe answers, at most: the oldest is hung up on.
constexpr std::size_t kSentAwayMax = 4;

}  // namespace

MinerLink::MinerLink(std::shared_ptr<const LinkShared> shared, MinerEntry entry)
    : shared_(std::move(shared)),
      entry_(std::move(entry)),
      prompt_(shared_->runtime, shared_->options),
      bulk_(shared_->runtime, shared_->options),
      latency_(kLatencyAtFirst) {}

std::string MinerLink::name() const { return format("miner {} ({})", entry_.id.brief(), entry_.address); }

void MinerLink::set_entry(MinerEntry entry) {
  if (entry.address != entry_.address) {
    for (const auto& connection : connections())
      connection->shut({ErrorKind::unavailable, "the miner has another address now"});
    try_now();
  }
  entry_ = std::move(entry);
}

void MinerLink::try_now() {
  for (Lane* lane : {&prompt_, &bulk_}) {
    retire(*lane);  // else the next call does, and is put off by that
    lane->not_before = {};
  }
}

void MinerLink::shut() {
  shut_ = true;
  for (const auto& connection : connections())
    connection->shut({ErrorKind::closed, "the transport was closed"});
  for (Lane* lane : {&prompt_, &bulk_}) {
    lane->window.close();
    lane->changed.notify_all();
  }
}

void MinerLink::interrupt(const std::function<bool(const Exchange&)>& which) {
  bool any = false;
  for (Exchange* exchange : under_way_) {
    if (exchange->interrupted || !which(*exchange)) continue;
    any = exchange->interrupted = true;
  }
  if (!any) return;
  for (const auto& connection : connections()) connection->interrupt();
  for (Lane* lane : {&prompt_, &bulk_}) {
    lane->window.interrupt();
    lane->changed.notify_all();
  }
}

Task<Window::Hold> MinerLink::enter(Lane& lane, const Exchange& exchange, std::size_t bytes,
                                    TimePoint deadline) {
  Window::Hold hold = co_await lane.window.enter(bytes, deadline);
  while (!hold && !shut_ && !exchange.interrupted && shared_->runtime.now() < deadline)
    hold = co_await lane.window.enter(bytes, deadline);
  co_return hold;
}

Task<Status> MinerLink::call(std::shared_ptr<Exchange> exchange, std::size_t bytes, TimePoint deadline) {
  under_way_.insert(exchange.get());
  Status status = co_await call_in_window(exchange, bytes, deadline);
  under_way_.erase(exchange.get());
  if (!status && shut_) co_return fail(ErrorKind::closed, "the transport was closed");
  if (!status && exchange->interrupted) co_return fail(ErrorKind::closed, "the call was interrupted");
  co_return status;
}

Task<Status> MinerLink::call_in_window(std::shared_ptr<Exchange> exchange, std::size_t bytes,
                                       TimePoint deadline) {
  Lane& lane = bytes >= shared_->options.bulk_from ? bulk_ : prompt_;
  const Window::Hold hold = co_await enter(lane, *exchange, bytes, deadline);
  const auto ended = [&] { return shut_ || exchange->interrupted; };
  if (ended()) co_return fail(ErrorKind::closed, "");
  if (!hold)
    co_return fail(ErrorKind::unavailable, name() + ": too many requests wait for it; none ended in time");
  const TimePoint begin = shared_->runtime.now();
  bool broken = false;
  Status status = co_await call_once(lane, exchange, deadline, broken);
  if (broken && !ended() && shared_->runtime.now() < deadline)
    status = co_await call_once(lane, exchange, deadline, broken);
  if (ended() && !status) co_return status;
  const bool reached = status || status.error().kind() != ErrorKind::unavailable;
  // Only small requests are timed: a slice's transfer says more about bandwidth.
  if (!reached || &lane == &prompt_) note_latency(shared_->runtime.now() - begin, reached);
  if (!status) co_return fail(status.error().within(name()));
  co_return Status{};
}

Task<Status> MinerLink::call_once(Lane& lane, std::shared_ptr<Exchange> exchange, TimePoint deadline,
                                  bool& broken) {
  broken = false;
  CO_TRY(const std::shared_ptr<Connection> connection, co_await connected(lane, *exchange, deadline));
  const Connection::Outcome outcome = co_await connection->exchange(exchange, deadline);
  if (outcome == Connection::Outcome::answered) note_answer(lane, *connection);
  if (outcome == Connection::Outcome::interrupted) co_return fail(ErrorKind::closed, "interrupted");
  if (outcome == Connection::Outcome::timed_out) co_return fail(ErrorKind::unavailable, "no answer in time");
  if (outcome == Connection::Outcome::broken) {
    broken = true;
    const bool garbage = connection->failure().kind() == ErrorKind::corrupt;
    co_return fail(garbage ? ErrorKind::corrupt : ErrorKind::unavailable, connection->failure().message());
  }
  if (exchange->error_answer) {
    CO_TRY(const wire::ErrorAnswer answer, wire::ErrorAnswer::decode(exchange->header));
    co_return fail(answer.error());
  }
  if (exchange->payload_mismatch) co_return fail(ErrorKind::corrupt, "it answers another length than asked");
  co_return Status{};
}

Task<Result<std::shared_ptr<Connection>>> MinerLink::connected(Lane& lane, const Exchange& exchange,
                                                               TimePoint deadline) {
  while (!shut_ && !exchange.interrupted) {
    if (lane.connection && lane.connection->usable()) co_return lane.connection;
    retire(lane);
    const TimePoint now = shared_->runtime.now();
    if (now >= deadline) co_return fail(ErrorKind::unavailable, "no connection in time");
    if (!lane.connecting) {
      // Soon after a failure the answer is the same failure: callers go to another miner, not wait for this
      // one.
      if (now < lane.not_before) co_return fail(lane.last_failure);
      lane.connecting = true;
      shared_->tasks.spawn(
          [self = shared_from_this(), &lane]() -> Task<void> { co_await self->connect(lane); });
    }
    const unsigned failures_before = lane.failures;
    const bool in_time = co_await lane.changed.wait_until(deadline);
    if (lane.failures > failures_before) co_return fail(lane.last_failure);
    if (!in_time && !(lane.connection && lane.connection->usable()))
      co_return fail(ErrorKind::unavailable, "no connection in time");
  }
  co_return fail(ErrorKind::closed, "the transport was closed");
}

Task<void> MinerLink::connect(Lane& lane) {
  const TimePoint deadline = shared_->runtime.now() + shared_->options.connect_timeout;
  auto opened = co_await open(entry_.address, deadline);
  lane.connecting = false;
  if (opened && shut_)
    (*opened)->shut({ErrorKind::closed, "the transport was closed"});
  else if (opened) {
    lane.connection = *opened;
    lane.connected_at = shared_->runtime.now();
    lane.answered = false;
    lane.connection->start(shared_->tasks);
  } else {
    note_failure(lane, opened.error(), shared_->runtime.now());
  }
  lane.changed.notify_all();
}

// Lets go of the lane's connection when it takes no new requests. One that was sent away before it answered a
// call is as bad as none.
void MinerLink::retire(Lane& lane) {
  if (!lane.connection || lane.connection->usable()) return;
  const std::shared_ptr<Connection> old = std::move(lane.connection);
  lane.connection = nullptr;
  if (old->sent_away() && !lane.answered)
    note_failure(lane, {ErrorKind::unavailable, "the miner sends new connections away"}, lane.connected_at);
  std::erase_if(sent_away_, [](const auto& weak) {
    const auto one = weak.lock();
    return !one || one->broken();
  });
  if (old->broken()) return;
  sent_away_.push_back(old);
  if (sent_away_.size() <= kSentAwayMax) return;
  if (const auto oldest = sent_away_.front().lock(); oldest)
    oldest->shut({ErrorKind::unavailable, "the miner sends connections away and owes answers"});
  sent_away_.erase(sent_away_.begin());
}

// All that may still live.
std::vector<std::shared_ptr<Connection>> MinerLink::connections() const {
  std::vector<std::shared_ptr<Connection>> all;
  for (const Lane* lane : {&prompt_, &bulk_})
    if (lane->connection) all.push_back(lane->connection);
  for (const auto& weak : sent_away_)
    if (auto one = weak.lock(); one) all.push_back(std::move(one));
  return all;
}

void MinerLink::note_answer(Lane& lane, const Connection& connection) {
  if (lane.answered || lane.connection.get() != &connection) return;
  lane.answered = true;
  lane.failures = 0;
  try_now();  // where one connection came through, so may the other
}

void MinerLink::note_failure(Lane& lane, Error why, TimePoint attempted) {
  const auto& options = shared_->options;
  Duration wait = options.backoff_min;
  for (unsigned i = 0; i < lane.failures && wait < options.backoff_max; ++i) wait *= 2;
  wait = std::min(wait, options.backoff_max);
  const auto jitter = shared_->runtime.random().below(static_cast<std::uint64_t>(wait.count()) + 1);
  lane.not_before = attempted + wait / 2 + Duration(static_cast<Duration::rep>(jitter / 2));
  if (lane.failures == 0 || why.kind() == ErrorKind::denied) log_warn("{}: {}", name(), why.message());
  ++lane.failures;
  lane.last_failure = std::move(why);
}

Task<Result<std::shared_ptr<Connection>>> MinerLink::open(std::string address, TimePoint deadline) {
  CO_TRY(wire::TcpSocket socket, co_await dial(std::move(address), deadline));
  auto stream = std::make_unique<wire::TlsStream>(shared_->runtime, std::move(socket), shared_->tls,
                                                  wire::TlsStream::Role::client);
  const std::optional<wire::PublicKey> pin = entry_.id.bytes;
  CO_TRY_OK(co_await stream->handshake(deadline, pin));
  auto connection =
      std::make_shared<Connection>(shared_->runtime, shared_->opening, shared_->options, std::move(stream));
  CO_TRY_OK(co_await connection->hello(shared_->hello, deadline));
  co_return connection;
}

Task<Result<wire::TcpSocket>> MinerLink::dial(std::string address, TimePoint deadline) {
  CO_TRY(const HostPort where, parse_host_port(address));
  Endpoints endpoints;
  if (const auto numeric = numeric_endpoint(where); numeric) {
    endpoints.push_back(*numeric);
  } else {
    CO_TRY(endpoints, co_await shared_->names.look_up(where, deadline));
  }
  boost::system::error_code error;
  for (auto left = static_cast<Duration::rep>(endpoints.size()); left > 0; --left) {
    // A silent address leaves time for the next ones. The last one has two shares: the handshake and
    // HELLO need some.
    const TimePoint now = shared_->runtime.now();
    const TimePoint until = left == 1 ? deadline : now + (deadline - now) / (left + 1);
    wire::TcpSocket socket(shared_->runtime.executor());
    bool timed_out = false;
    const TimerId timer = shared_->runtime.start_timer(until, [&socket, &timed_out] {
      timed_out = true;
      boost::system::error_code ignored;
      socket.close(ignored);
    });
    const auto& endpoint = endpoints[endpoints.size() - static_cast<std::size_t>(left)];
    co_await socket.async_connect(endpoint, asio::redirect_error(Token(), error));
    shared_->runtime.cancel_timer(timer);
    if (timed_out) error = asio::error::timed_out;
    if (!error) co_return socket;
  }
  co_return fail(ErrorKind::unavailable, "connect: " + error.message());
}

void MinerLink::note_latency(Duration took, bool good) {
  if (!good)
    latency_ = std::min(std::max(latency_ * 2, took), kLatencyMax);
  else if (took < latency_ / 4)
    latency_ /= 2;  // it recovered
  else
    latency_ += (took - latency_) / 8;
}

}  // namespace cumulus
