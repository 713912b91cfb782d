#include "tools/cumulus/slow_proxy.h"

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/write.hpp>
#include <cstdio>
#include <deque>
#include <memory>

#include "netclient/address.h"
#include "objectstore/base/format.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/sync.h"

namespace cumulus {
namespace {

using Tcp = asio::ip::tcp;
using Socket = asio::basic_stream_socket<Tcp, ReactorExecutor>;
using Acceptor = asio::basic_socket_acceptor<Tcp, ReactorExecutor>;
using Token = asio::use_awaitable_t<ReactorExecutor>;

struct Pair {
  explicit Pair(Reactor& reactor) : near(reactor.context()), far(reactor.context()) {}
  Socket near;
  Socket far;
};

struct Piece {
  TimePoint due;
  Bytes bytes;
};

constexpr std::size_t kQueueMax = 256;  // pieces under way each way

// One direction: a reader stamps pieces with when they are due, a writer sends them then.
class Direction {
 public:
  Direction(Reactor& reactor, Socket& from, Socket& to, Duration delay, std::uint64_t rate)
      : reactor_(reactor), from_(from), to_(to), delay_(delay), rate_(rate), changed_(reactor) {}

  Task<void> read() {
    for (;;) {
      while (queue_.size() >= kQueueMax && !ended_) co_await changed_.wait();
      Bytes bytes(16384);
      boost::system::error_code error;
      Token token;
      const std::size_t got =
          co_await from_.async_read_some(asio::buffer(bytes), asio::redirect_error(token, error));
      if (error || ended_) break;
      bytes.resize(got);
      const TimePoint now = reactor_.now();
      if (rate_ != 0) {
        free_at_ = std::max(free_at_, now) + std::chrono::nanoseconds(got * 1'000'000'000 / rate_);
      } else {
        free_at_ = now;
      }
      queue_.push_back({free_at_ + delay_, std::move(bytes)});
      changed_.notify_all();
    }
    ended_ = true;
    changed_.notify_all();
  }

  Task<void> write() {
    for (;;) {
      while (queue_.empty() && !ended_) co_await changed_.wait();
      if (queue_.empty()) break;
      Piece piece = std::move(queue_.front());
      queue_.pop_front();
      changed_.notify_all();
      co_await reactor_.sleep_until(piece.due);
      boost::system::error_code error;
      Token token;
      co_await asio::async_write(to_, asio::buffer(piece.bytes), asio::redirect_error(token, error));
      if (error) break;
    }
    ended_ = true;
    changed_.notify_all();
    boost::system::error_code ignored;
    to_.shutdown(Tcp::socket::shutdown_both, ignored);
    from_.shutdown(Tcp::socket::shutdown_both, ignored);
  }

 private:
  Reactor& reactor_;
  Socket& from_;
  Socket& to_;
  Duration delay_;
  std::uint64_t rate_;
  TimePoint free_at_;
  std::deque<Piece> queue_;
  bool ended_ = false;
  Signal changed_;
};

Task<void> forward(Reactor& reactor, std::shared_ptr<Pair> pair, Tcp::endpoint to, Duration delay,
                   std::uint64_t rate) {
  boost::system::error_code error;
  Token token;
  co_await pair->far.async_connect(to, asio::redirect_error(token, error));
  if (error) co_return;
  pair->near.set_option(Tcp::no_delay(true), error);
  pair->far.set_option(Tcp::no_delay(true), error);
  Direction out(reactor, pair->near, pair->far, delay, rate);
  Direction back(reactor, pair->far, pair->near, delay, rate);
  TaskGroup tasks(reactor);
  tasks.spawn(out.read());
  tasks.spawn(out.write());
  tasks.spawn(back.read());
  tasks.spawn(back.write());
  co_await tasks.join();
}

Task<void> serve(Reactor& reactor, Acceptor& acceptor, Tcp::endpoint to, Duration delay, std::uint64_t rate) {
  TaskGroup connections(reactor);
  for (;;) {
    auto pair = std::make_shared<Pair>(reactor);
    boost::system::error_code error;
    Token token;
    co_await acceptor.async_accept(pair->near, asio::redirect_error(token, error));
    if (error) {
      co_await reactor.sleep_for(std::chrono::milliseconds(100));
      continue;
    }
    connections.spawn(forward(reactor, pair, to, delay, rate));
  }
}

}  // namespace

Result<int> run_slow_proxy(const std::string& listen, const std::string& to, Duration delay,
                           std::uint64_t rate) {
  TRY(const HostPort near_address, parse_host_port(listen));
  TRY(const HostPort far_address, parse_host_port(to));
  TRY(const auto near_end, numeric_endpoint(near_address));
  TRY(const auto far_end, numeric_endpoint(far_address));
  Reactor reactor(0);
  Acceptor acceptor(reactor.context());
  boost::system::error_code error;
  acceptor.open(near_end.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(near_end, error);
  if (!error) acceptor.listen(64, error);
  if (error) return fail(ErrorKind::io, format("listen on {}: {}", listen, error.message()));
  std::printf("ready %s\n", listen.c_str());
  std::fflush(stdout);
  reactor.run(serve(reactor, acceptor, far_end, delay, rate));
  return 0;
}

}  // namespace cumulus
