#include "netclient/connection.h"

#include <algorithm>

#include "objectstore/base/format.h"

namespace cumulus {
namespace {

// Frames without payload that wait together leave together, up to one TLS record.
constexpr std::size_t kBatch = 16 * 1024;
// Answers that nobody waits for any more, at most: a miner that owes more is hung up on.
constexpr std::size_t kOutstandingMax = 4096;

Error sent_away_error() { return {ErrorKind::unavailable, "the miner closed the connection"}; }

std::uint32_t milliseconds_until(TimePoint deadline, TimePoint now) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - now).count();
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(left, 1, 24 * 3600 * 1000));
}

}  // namespace

bool Exchange::is(Calls kinds) const {
  const bool stores = type == wire::MessageType::put || type == wire::MessageType::promise ||
                      type == wire::MessageType::accept || type == wire::MessageType::superblock;
  return kinds == Calls::all || !stores;
}

// In to_send_ until written, in outstanding_ until answered.
struct Connection::Pending {
  Pending(Runtime& runtime, std::shared_ptr<Exchange> what) : exchange(std::move(what)), done(runtime) {}
  std::shared_ptr<Exchange> exchange;
  Signal done;
  std::uint32_t id = 0;
  TimePoint deadline;
  wire::Landing landing;
  bool sent = false;  // its payload is
  bool answered = false;
  bool abandoned = false;
};

Connection::Connection(Runtime& runtime, std::shared_ptr<const Opening> opening,
                       const TransportOptions& options, std::unique_ptr<wire::TlsStream> stream)
    : runtime_(runtime),
      opening_(std::move(opening)),
      options_(options),
      stream_(std::move(stream)),
      work_(runtime),
      ended_(runtime),
      last_heard_(runtime.now()) {}

Task<Status> Connection::hello(const wire::HelloRequest& request, TimePoint deadline) {
  // A peer that never answers is cut off by the timer.
  const TimerId timer = runtime_.start_timer(deadline, [this] { stream_->shut(); });
  wire::Prelude prelude;
  prelude.type = wire::MessageType::hello;
  prelude.epoch = opening_->epoch;
  prelude.instance = opening_->instance;
  const Bytes out = wire::frame(prelude, request);
  Bytes head(wire::Prelude::kEncodedSize);
  Bytes header;
  Status status = co_await stream_->write_all(out);
  if (status) status = co_await stream_->read_exactly(head);
  if (status) {
    const auto answer = wire::Prelude::decode(head);
    if (!answer)
      status = fail(answer.error());
    else if (answer->type != wire::MessageType::hello || !answer->answer())
      status = fail(ErrorKind::corrupt, "the peer does not answer HELLO");
    else
      prelude = *answer;
  }
  if (status) {
    header.resize(prelude.header_length);
    status = co_await stream_->read_exactly(header);
  }
  runtime_.cancel_timer(timer);
  if (!status && status.error().kind() == ErrorKind::closed)
    status = fail(ErrorKind::unavailable, "no answer to HELLO in time");
  CO_TRY_OK(status);
  if (prelude.error()) {
    CO_TRY(const wire::ErrorAnswer refusal, wire::ErrorAnswer::decode(header));
    co_return fail(refusal.error());
  }
  CO_TRY(const wire::HelloAnswer answer, wire::HelloAnswer::decode(header));
  if (answer.version != wire::kProtocolVersion ||
      (answer.features & wire::kIncompatibleFeatureMask & ~wire::kFeatures) != 0)
    co_return fail(ErrorKind::unsupported,
                   format("the miner ({}) speaks protocol {} with features {:#x}, which "
                          "this program does not know",
                          answer.software, answer.version, answer.features));
  requests_max_ = std::max<std::size_t>(1, answer.requests_in_flight_max);
  if (answer.payload_in_flight_max != 0) payload_max_ = answer.payload_in_flight_max;
  last_heard_ = runtime_.now();
  co_return Status{};
}

void Connection::start(TaskGroup& tasks) {
  // Each Task keeps the connection alive.
  tasks.spawn([self = shared_from_this()]() -> Task<void> { co_await self->read_loop(); });
  tasks.spawn([self = shared_from_this()]() -> Task<void> { co_await self->write_loop(); });
  tasks.spawn([self = shared_from_this()]() -> Task<void> { co_await self->watch_loop(); });
}

Task<Connection::Outcome> Connection::exchange(std::shared_ptr<Exchange> what, TimePoint deadline) {
  if (failure_) co_return Outcome::broken;
  if (outstanding_.size() >= kOutstandingMax) {
    shut({ErrorKind::unavailable, "the miner owes too many answers"});
    co_return Outcome::broken;
  }
  const auto pending = std::make_shared<Pending>(runtime_, std::move(what));
  pending->id = next_id_++;
  if (next_id_ == 0) next_id_ = 1;
  pending->deadline = deadline;
  if (pending->exchange->direct) pending->landing.rest = pending->exchange->into;
  outstanding_.emplace(pending->id, pending);
  to_send_.push_back(pending);
  work_.notify_all();
  bool in_time = true;
  while (in_time && !pending->answered && !failure_ && !pending->exchange->interrupted)
    in_time = co_await pending->done.wait_until(deadline);
  if (pending->answered) co_return Outcome::answered;
  // The caller's memory is not touched after this: what still arrives for it goes nowhere.
  pending->abandoned = true;
  pending->landing.drop();
  if (failure_) co_return Outcome::broken;
  // Nor is it held until the answer comes; what is being sent has to be.
  pending->exchange->into_owner.reset();
  if (pending->sent) pending->exchange->payload_owner.reset();
  co_return pending->exchange->interrupted ? Outcome::interrupted : Outcome::timed_out;
}

void Connection::interrupt() {
  for (const auto& [id, pending] : outstanding_)
    if (pending->exchange->interrupted) pending->done.notify_all();
}

void Connection::shut(Error why) {
  if (failure_) return;
  failure_ = std::move(why);
  stream_->shut();
  to_send_.clear();
  for (const auto& [id, pending] : outstanding_) pending->done.notify_all();
  outstanding_.clear();
  work_.notify_all();
  ended_.notify_all();
}

Bytes Connection::prepare(Pending& pending) {
  wire::Prelude prelude;
  prelude.type = pending.exchange->type;
  prelude.request_id = pending.id;
  prelude.timeout_ms = milliseconds_until(pending.deadline, runtime_.now());
  prelude.epoch = opening_->epoch;
  prelude.instance = opening_->instance;
  wire::set_prelude(pending.exchange->frame, prelude, pending.exchange->payload.size());
  return pending.exchange->frame;
}

// The next frames to send: several without payload, or up to and including the first with one.
Bytes Connection::next_batch(std::shared_ptr<Pending>& with_payload) {
  Bytes batch;
  while (may_send() && with_payload == nullptr) {
    const auto next = to_send_.front();
    if (!batch.empty() && batch.size() + next->exchange->frame.size() > kBatch) break;
    to_send_.pop_front();
    if (next->abandoned) {  // nobody waits, and the miner has not seen it
      outstanding_.erase(next->id);
      continue;
    }
    const Bytes frame = prepare(*next);
    batch.insert(batch.end(), frame.begin(), frame.end());
    if (next->exchange->payload.empty()) continue;
    with_payload = next;
    payload_under_way_ += next->exchange->payload.size();
  }
  return batch;
}

bool Connection::may_send() const {
  if (to_send_.empty() || outstanding_.size() - to_send_.size() >= requests_max_) return false;
  // A payload larger than the limit passes when it is alone: the miner then says what it thinks of it.
  const std::uint64_t payload = to_send_.front()->exchange->payload.size();
  return payload == 0 || payload_under_way_ == 0 || payload_under_way_ + payload <= payload_max_;
}

Task<void> Connection::write_loop() {
  while (!failure_) {
    if (!may_send()) {
      co_await work_.wait();
      continue;
    }
    std::shared_ptr<Pending> with_payload;
    const Bytes batch = next_batch(with_payload);
    if (batch.empty()) continue;
    // `with_payload` keeps the payload's owner alive while its bytes are sent.
    const ByteView payload = with_payload ? with_payload->exchange->payload : ByteView{};
    const Status sent = co_await stream_->write_all(batch, payload);
    if (!sent) shut(sent.error());
    if (!with_payload) continue;
    with_payload->sent = true;
    if (with_payload->abandoned) with_payload->exchange->payload_owner.reset();
  }
}

Task<void> Connection::read_loop() {
  while (!failure_) {
    const Status read = co_await read_frame();
    if (!read) shut(read.error());
    if (sent_away() && outstanding_.empty()) shut(sent_away_error());
  }
}

Task<Status> Connection::read_frame() {
  Bytes head(wire::Prelude::kEncodedSize);
  CO_TRY_OK(co_await stream_->read_exactly(head));
  last_heard_ = runtime_.now();
  CO_TRY(const wire::Prelude prelude, wire::Prelude::decode(head));
  Bytes header(prelude.header_length);
  CO_TRY_OK(co_await stream_->read_exactly(header));
  if (prelude.answer()) co_return co_await read_answer(prelude, std::move(header));
  if (prelude.type != wire::MessageType::goaway)
    co_return fail(ErrorKind::corrupt, "the miner sent a request of its own");
  CO_TRY_OK(wire::Goaway::decode(header));
  if (!goaway_at_) goaway_at_ = runtime_.now();
  co_return Status{};
}

Task<Status> Connection::read_answer(const wire::Prelude& prelude, Bytes header) {
  const auto found = outstanding_.find(prelude.request_id);
  if (found == outstanding_.end()) co_return fail(ErrorKind::corrupt, "an answer to nothing that was asked");
  const std::shared_ptr<Pending> pending = found->second;
  const std::shared_ptr<Exchange> exchange = pending->exchange;
  if (prelude.type != exchange->type)
    co_return fail(ErrorKind::corrupt, "an answer of another kind than asked");
  wire::Landing& landing = pending->landing;
  exchange->payload_mismatch =
      exchange->direct && !prelude.error() && landing.rest.size() != prelude.payload_length;
  if (pending->abandoned || exchange->payload_mismatch || prelude.error()) {
    landing.rest = {};
    landing.to_skip = prelude.payload_length;
  } else if (!exchange->direct) {
    exchange->kept.resize(prelude.payload_length);
    landing.rest = exchange->kept;
  }
  // While this waits the caller may give up and drop the landing.
  CO_TRY_OK(co_await stream_->read_exactly(landing));
  last_heard_ = runtime_.now();
  outstanding_.erase(prelude.request_id);
  payload_under_way_ -= exchange->payload.size();
  if (!to_send_.empty()) work_.notify_all();
  exchange->header = std::move(header);
  exchange->error_answer = prelude.error();
  pending->answered = !pending->abandoned;
  pending->done.notify_all();
  co_return Status{};
}

Task<void> Connection::watch_loop() {
  while (!failure_) {
    if (sent_away()) {
      // What comes after GOAWAY wins no time: a miner that never answers the rest would hold us for ever.
      const TimePoint end = *goaway_at_ + options_.ping_after + options_.ping_timeout;
      if (!co_await ended_.wait_until(end)) shut(sent_away_error());
      continue;
    }
    const TimePoint due = last_heard_ + options_.ping_after;
    if (runtime_.now() < due) {
      co_await ended_.wait_until(due);
      continue;
    }
    const std::uint64_t received_before = stream_->received();
    const auto ping = std::make_shared<Exchange>();
    ping->frame = wire::frame({}, wire::Empty{});
    const Outcome outcome = co_await exchange(ping, runtime_.now() + options_.ping_timeout);
    // Bytes of a long answer are a sign of life too.
    if (stream_->received() != received_before)
      last_heard_ = runtime_.now();
    else if (outcome == Outcome::timed_out)
      shut({ErrorKind::unavailable, "the miner does not answer pings"});
  }
}

}  // namespace cumulus
