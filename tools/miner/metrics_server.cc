// The only include of Boost.Beast.
#include "tools/miner/metrics_server.h"

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "objectstore/base/format.h"

namespace cumulus {

namespace http = boost::beast::http;
using Token = asio::use_awaitable_t<ReactorExecutor>;

namespace {
constexpr std::size_t kConnectionsMax = 16;
constexpr Duration kTimeLimit = std::chrono::seconds(5);
constexpr std::size_t kRequestMax = 8 * 1024;
}  // namespace

Status MetricsServer::listen(const std::string& address, std::uint16_t port) {
  boost::system::error_code error;
  const auto numeric = asio::ip::make_address(address, error);
  if (error) return fail(ErrorKind::invalid, "metrics on '" + address + "': not a numeric address");
  const asio::ip::tcp::endpoint endpoint(numeric, port);
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(16, error);
  if (error) {
    const std::string why = error.message();
    acceptor_.close(error);
    return fail(ErrorKind::io,
                cumulus::format("metrics on {}:{}: {}; choose another port", address, port, why));
  }
  port_ = acceptor_.local_endpoint().port();
  tasks_.spawn(accept_loop());
  return {};
}

Task<void> MetricsServer::accept_loop() {
  while (!closing_) {
    boost::system::error_code error;
    Socket socket =
        co_await acceptor_.async_accept(runtime_.executor(), asio::redirect_error(Token(), error));
    if (closing_) break;
    if (error) {
      co_await runtime_.sleep_for(std::chrono::milliseconds(50));
      continue;
    }
    if (connections_ >= kConnectionsMax) continue;  // closes it
    ++connections_;
    tasks_.spawn(serve(std::move(socket)));
  }
}

Task<void> MetricsServer::serve(Socket socket) {
  const TimerId limit = runtime_.start_timer(runtime_.now() + kTimeLimit, [&socket] {
    boost::system::error_code ignored;
    socket.close(ignored);
  });
  boost::beast::flat_buffer buffer(kRequestMax);
  http::request<http::empty_body> request;
  boost::system::error_code error;
  co_await http::async_read(socket, buffer, request, asio::redirect_error(Token(), error));
  if (!error) {
    http::response<http::string_body> response(http::status::ok, request.version());
    response.set(http::field::content_type, "text/plain; version=0.0.4");
    response.keep_alive(false);
    if (request.method() != http::verb::get) {
      response.result(http::status::method_not_allowed);
    } else if (request.target() != "/metrics" && request.target() != "/") {
      response.result(http::status::not_found);
      response.body() = "see /metrics\n";
    } else {
      response.body() = metrics_.prometheus_text();
    }
    response.prepare_payload();
    co_await http::async_write(socket, response, asio::redirect_error(Token(), error));
  }
  runtime_.cancel_timer(limit);
  --connections_;
}

Task<void> MetricsServer::close() {
  closing_ = true;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  co_await tasks_.join();
}

}  // namespace cumulus
