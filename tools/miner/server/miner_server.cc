#include "tools/miner/server/miner_server.h"

#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "tools/miner/server/miner_connection.h"

namespace cumulus {

using asio::ip::tcp;

MinerServer::MinerServer(Runtime& runtime, RequestHandler& handler, AllowList& allowed,
                         std::shared_ptr<wire::TlsContext> identity, Metrics& metrics,
                         MinerServerOptions options)
    : runtime_(runtime),
      handler_(handler),
      allowed_(allowed),
      identity_(std::move(identity)),
      options_(std::move(options)),
      acceptor_(runtime.executor()),
      put_bytes_(runtime, options_.put_bytes_max),
      answer_bytes_(runtime, options_.answer_bytes_max),
      tasks_(runtime),
      connections_gauge_(metrics.counter("cumulus_miner_connections")),
      refused_(metrics.counter("cumulus_miner_connections_refused_total")),
      requests_(metrics.counter("cumulus_miner_requests_total")),
      errors_(metrics.counter("cumulus_miner_hello_refused_total")),
      received_(metrics.counter("cumulus_miner_received_bytes_total")),
      sent_(metrics.counter("cumulus_miner_sent_bytes_total")) {}

MinerServer::~MinerServer() { CHECK(tasks_.running() == 0); }

Status MinerServer::listen() {
  boost::system::error_code error;
  const auto address = asio::ip::make_address(options_.address, error);
  if (error)
    return fail(ErrorKind::invalid,
                "listen on '" + options_.address + "': not a numeric address; try 0.0.0.0");
  const tcp::endpoint endpoint(address, options_.port);
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    const std::string why = error == asio::error::address_in_use
                                ? "another program listens there; choose another port"
                                : error.message();
    acceptor_.close(error);
    return fail(ErrorKind::io, cumulus::format("listen on {}:{}: {}", options_.address, options_.port, why));
  }
  port_ = acceptor_.local_endpoint().port();
  tasks_.spawn(accept_loop());
  return {};
}

std::string MinerServer::endpoint() const {
  const bool v6 = options_.address.find(':') != std::string::npos;
  return cumulus::format("{}{}{}:{}", v6 ? "[" : "", options_.address, v6 ? "]" : "", port_);
}

Task<void> MinerServer::accept_loop() {
  using Token = asio::use_awaitable_t<ReactorExecutor>;
  while (!closing_) {
    boost::system::error_code error;
    wire::TcpSocket socket =
        co_await acceptor_.async_accept(runtime_.executor(), asio::redirect_error(Token(), error));
    if (closing_) break;
    if (error) {
      // Out of descriptors, or the client left already: neither may end the loop, nor spin it.
      log_warn("accept: {}", error.message());
      co_await runtime_.sleep_for(std::chrono::milliseconds(50));
      continue;
    }
    if (sockets_ >= options_.connections_max) {
      refused_.add();
      boost::system::error_code ignored;
      socket.close(ignored);
      continue;
    }
    ++sockets_;
    connections_gauge_.set(sockets_);
    tasks_.spawn(serve(std::move(socket)));
  }
}

Task<void> MinerServer::serve(wire::TcpSocket socket) {
  {
    MinerConnection connection(*this, std::move(socket));
    co_await connection.run();
  }
  --sockets_;
  connections_gauge_.set(sockets_);
}

std::shared_ptr<MinerServer::Tenant> MinerServer::tenant_of(const std::optional<VolumeId>& volume) {
  std::erase_if(tenants_, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<Tenant>& known = tenants_[volume];
  std::shared_ptr<Tenant> tenant = known.lock();
  if (tenant) return tenant;
  const std::uint64_t answers = volume ? options_.answer_bytes_max / 2 : options_.answer_bytes_strangers_max;
  tenant.reset(new Tenant{Semaphore(runtime_, options_.put_bytes_max / 2), Semaphore(runtime_, answers)});
  known = tenant;
  return tenant;
}

Task<void> MinerServer::close() {
  closing_ = true;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  for (MinerConnection* connection : connections_) connection->say_goodbye();
  const TimePoint until = runtime_.now() + options_.goodbye_timeout;
  while (!connections_.empty() && runtime_.now() < until)
    co_await runtime_.sleep_for(std::chrono::milliseconds(5));
  for (MinerConnection* connection : connections_) connection->cut();
  co_await tasks_.join();
}

}  // namespace cumulus
