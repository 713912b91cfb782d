#include "blockdev/nbd/connection.h"

#include <algorithm>
#include <unistd.h>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"

namespace cumulus::nbd {
namespace {

constexpr std::size_t kSmallPayload = 64u << 10;  // larger ones are received into memory of their own
constexpr std::size_t kHandshakeInput = Negotiation::kOptionMax + 16;

}  // namespace

Connection::Connection(Shared& shared, Host& host, std::unique_ptr<Stream> stream, std::string peer)
    : shared_(shared),
      host_(host),
      stream_(std::move(stream)),
      peer_(std::move(peer)),
      since_(shared.runtime.now()),
      poll_(shared.runtime),
      read_bytes_(shared.runtime, shared.limits.client_bytes_max),
      write_bytes_(shared.runtime, shared.limits.client_bytes_max),
      own_writes_(shared.runtime, shared.limits.own_writes_max),
      changed_(shared.runtime),
      tasks_(shared.runtime) {}

Connection::~Connection() = default;

void Connection::end() {
  ending_ = true;
  changed_.notify_all();
  if (!in_transmission()) return cut();
  stream_->end_input();
  if (grace_ == 0) start_grace();
}

void Connection::start_grace() {
  const TimePoint until = shared_.runtime.now() + shared_.limits.goodbye_max;
  grace_ = shared_.runtime.start_timer(until, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->grace_over();
  });
}

// Again and again until the end: what the device is slow to answer is waited for, who is slow to take it is
// not.
void Connection::grace_over() {
  late_ = true;
  if (!output_.empty()) cut();
  changed_.notify_all();
  if (!broken_) start_grace();
}

void Connection::cut() {
  stream_->shut();
  broken();
}

Task<void> Connection::serve() {
  const TimerId timer = shared_.runtime.start_timer(since_ + shared_.limits.handshake_max, [this] { cut(); });
  const bool agreed = co_await negotiate();
  shared_.runtime.cancel_timer(timer);
  if (!agreed || broken_ || ending_) co_return;
  co_await transmit();
  ending_ = true;
  changed_.notify_all();
  if (out_of_step_) log_warn("nbd client {}: does not speak the protocol; its connection is closed", peer_);
  // What was received is done and answered, as far as the client takes it.
  while (under_way_ > 0 && !broken_) co_await changed_.wait();
  send_now();
  const TimePoint deadline = shared_.runtime.now() + shared_.limits.goodbye_max;
  bool in_time = true;
  while (!broken_ && !output_.empty() && in_time) in_time = co_await changed_.wait_until(deadline);
  cut();
  co_await tasks_.join();
  shared_.runtime.cancel_timer(grace_);
  device_.reset();
}

Task<bool> Connection::negotiate() {
  std::shared_ptr<TlsSettings> tls = host_.tls();
  Negotiation talk(tls ? TlsMode::required : TlsMode::off);
  Bytes input(kHandshakeInput);
  std::size_t held = 0;
  for (;;) {
    ByteView rest(input.data(), held);
    const Negotiation::Next next = talk.next(rest);
    std::copy(rest.begin(), rest.end(), input.begin());
    held = rest.size();
    if (next == Negotiation::Next::look_up) {
      const bool here = co_await look_up(talk);
      if (!here) co_return false;
    }
    if (next == Negotiation::Next::list) talk.listed(host_.export_names());
    const Bytes output = std::exchange(talk.output(), {});
    const bool sent = co_await send_all(output);
    if (!sent || next == Negotiation::Next::close) co_return false;
    if (next == Negotiation::Next::start_tls) {
      if (held != 0) co_return false;  // sent before the handshake: somebody between wants it believed
      const int again = ::dup(stream_->socket());
      if (again < 0) co_return false;
      auto secure = co_await tls->accept(shared_.runtime, again);
      if (!secure) {
        log_warn("nbd client {}: TLS: {}", peer_, secure.error().message());
        co_return false;
      }
      stream_ = std::move(*secure);
      talk.tls_started();
    }
    if (next == Negotiation::Next::serve) {
      shape_ = {device_->size(), device_->read_only(), talk.structured(), talk.extended(),
                !talk.contexts().empty()};
      contexts_ = talk.contexts();
      input_ = shared_.memory->buffers.acquire();
      std::copy_n(input.begin(), held, input_->data());
      end_ = held;
      co_return true;
    }
    if (next != Negotiation::Next::need_bytes) continue;
    const Stream::Moved moved = stream_->read_some(MutableByteView(input).subspan(held));
    if (moved.outcome == Stream::Outcome::closed || broken_) co_return false;
    held += moved.bytes;
    if (moved.outcome != Stream::Outcome::moved) co_await stream_->wait(moved.outcome);
  }
}

Task<bool> Connection::look_up(Negotiation& talk) {
  auto device = co_await host_.open_export(talk.wanted(), peer_);
  if (broken_) co_return false;
  if (!device) {
    talk.refused(device.error());
    co_return true;
  }
  ExportInfo info;
  info.name = talk.wanted();
  info.description = (*device)->read_only() ? "Cumulus disk image, read-only" : "Cumulus disk image";
  info.size = (*device)->size();
  info.read_only = (*device)->read_only();
  info.block_preferred = (*device)->header().block_preferred;
  info.snapshots = (*device)->snapshots();
  talk.found(info);
  ByteView none;
  if (talk.next(none) == Negotiation::Next::serve) device_ = std::move(*device);
  co_return true;
}

Task<bool> Connection::send_all(ByteView bytes) {
  while (!bytes.empty()) {
    iovec part{};
    // sendmsg takes what it reads as non-const.
    Bytes copy(bytes.begin(), bytes.end());
    part.iov_base = copy.data();
    part.iov_len = copy.size();
    const Stream::Moved moved = stream_->write_some({&part, 1});
    if (moved.outcome == Stream::Outcome::closed || broken_) co_return false;
    bytes = bytes.subspan(moved.bytes);
    if (moved.outcome != Stream::Outcome::moved) co_await stream_->wait(moved.outcome);
  }
  co_return true;
}

bool Connection::is_full() const {
  return under_way_ >= shared_.limits.requests_max || output_bytes_ > shared_.limits.output_max ||
         without_room_ > 0;
}

Task<void> Connection::transmit() {
  while (!broken_ && !late_ && !out_of_step_ && !goodbye_) {
    if (take_small()) {
      if (!is_full()) continue;
      commit_batch();
      send_now();
      while (is_full() && !broken_ && !late_) co_await changed_.wait();
      continue;
    }
    commit_batch();
    send_now();
    if (out_of_step_ || goodbye_ || broken_) break;
    const std::size_t header = request_size(shape_.extended);
    if (available() >= header) {
      const auto request = parse_request(input_->view(begin_, header), shape_.extended);
      CHECK(request.has_value());
      if (request->payload(shape_.extended) > kSmallPayload) {
        begin_ += header;
        const Request large = *request;
        if (!co_await take_large(large)) break;
        continue;
      }
    }
    if (!co_await fill()) break;
  }
  commit_batch();
  send_now();
}

// The next request, when it is here whole and small. False: it is not, or there is no next one.
bool Connection::take_small() {
  const std::size_t header = request_size(shape_.extended);
  if (available() < header) return false;
  const auto request = parse_request(input_->view(begin_, header), shape_.extended);
  if (!request || request->payload(shape_.extended) > kPayloadMax) {
    out_of_step_ = true;
    return false;
  }
  const std::uint64_t payload = request->payload(shape_.extended);
  if (payload > kSmallPayload || available() < header + payload) return false;
  if (request->command == Command::disconnect) {
    goodbye_ = true;
    return false;
  }
  const ByteView data = input_->view(begin_ + header, payload);
  begin_ += header + payload;
  start(*request, data, input_);
  return true;
}

// Received into memory of its own, which the commit then keeps, and the shares with it.
Task<bool> Connection::take_large(Request request) {
  const std::uint64_t length = request.payload(shape_.extended);
  Semaphore::Hold of_client = co_await write_bytes_.acquire(length);
  Memory& memory = *shared_.memory;
  Semaphore& share = length > Memory::kHuge ? memory.huge_writes : memory.large_writes;
  Semaphore::Hold of_all = co_await share.acquire(length);
  if (broken_ || late_) co_return false;
  auto buffer = std::make_shared<Buffer>(length);
  const std::size_t here = std::min<std::size_t>(available(), length);
  std::copy_n(input_->data() + begin_, here, buffer->data());
  begin_ += here;
  MutableByteView rest = buffer->view(here, length - here);
  // What was waited for until here was ours.
  TimePoint deadline = shared_.runtime.now() + shared_.limits.payload_max;
  std::size_t progress = 0;
  while (!rest.empty()) {
    const Stream::Moved moved = stream_->read_some(rest);
    if (moved.outcome == Stream::Outcome::closed || broken_) co_return false;
    rest = rest.subspan(moved.bytes);
    progress += moved.bytes;
    if (progress >= shared_.limits.progress_min) {
      progress = 0;
      deadline = shared_.runtime.now() + shared_.limits.payload_max;
    }
    if (moved.outcome == Stream::Outcome::moved) continue;
    const bool more = co_await wait_or_cut(moved.outcome, deadline);
    if (!more) co_return false;
  }
  batch_room_ = {std::move(of_client), std::move(of_all), true};
  start(request, buffer->view(), buffer);
  // A large write goes alone.
  commit_batch();
  batch_room_ = {};  // refused
  co_return true;
}

Task<bool> Connection::wait_or_cut(Stream::Outcome outcome, TimePoint deadline) {
  const TimerId timer = shared_.runtime.start_timer(deadline, [this] { cut(); });
  co_await stream_->wait(outcome);
  shared_.runtime.cancel_timer(timer);
  co_return !broken_;
}

// Room for a whole small request behind what is there. Committed writes keep the bytes before it: those are
// never overwritten while anybody else holds the buffer.
void Connection::make_room() {
  const std::size_t held = available();
  if (held == 0 && input_.use_count() == 1) begin_ = end_ = 0;
  if (input_->size() - begin_ >= kSmallPayload + request_size(true) && input_->size() - end_ >= 4096) return;
  if (input_.use_count() == 1) {
    std::copy(input_->data() + begin_, input_->data() + end_, input_->data());
  } else {
    auto fresh = shared_.memory->buffers.acquire();
    std::copy(input_->data() + begin_, input_->data() + end_, fresh->data());
    input_ = std::move(fresh);
  }
  begin_ = 0;
  end_ = held;
}

// More input; false when there will be none.
Task<bool> Connection::fill() {
  make_room();
  for (;;) {
    const Stream::Moved moved = stream_->read_some(input_->view(end_, input_->size() - end_));
    if (moved.outcome == Stream::Outcome::moved) {
      end_ += moved.bytes;
      poll_.arrived();
      co_return true;
    }
    if (moved.outcome == Stream::Outcome::closed || ending_ || broken_) co_return false;
    if (poll_.again(under_way_)) {
      co_await shared_.runtime.yield();
    } else {
      co_await stream_->wait(moved.outcome);
      poll_.woke();
    }
    if (broken_) co_return false;
  }
}

}  // namespace cumulus::nbd
