// What one GiB costs through our TlsStream, both ends in one process on loopback, beside the same loop
// written on bare OpenSSL with blocking sockets. Prints MiB/s and CPU seconds for each GiB (user + system,
// both ends), and the price of a small round trip. A measurement, not a test: nothing is asserted.
#include <boost/asio/connect.hpp>
#include <boost/asio/redirect_error.hpp>
#include <cstdio>
#include <cstdlib>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "netclient/wire/tls_stream.h"
#include "objectstore/base/check.h"
#include "objectstore/crypto/tls_identity.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/sync.h"
#include "tests/bench/machine.h"

namespace cumulus {
namespace {

using wire::TcpSocket;
using wire::TlsContext;
using wire::TlsStream;
using Token = asio::use_awaitable_t<ReactorExecutor>;

constexpr std::size_t kMessage = 2 * 1024 * 1024;  // a slice
constexpr std::size_t kTotal = std::size_t{1536} * 1024 * 1024;
constexpr int kTrips = 20000;

double cpu_seconds(int who) {
  rusage usage{};
  ::getrusage(who, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

TlsIdentity identity(std::uint8_t seed) {
  std::array<std::uint8_t, 32> bytes{};
  bytes[0] = seed;
  return TlsIdentity::from_seed(bytes);
}

std::pair<int, int> socket_pair() {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* raw = reinterpret_cast<sockaddr*>(&address);
  CHECK(::bind(listener, raw, size) == 0 && ::listen(listener, 1) == 0);
  CHECK(::getsockname(listener, raw, &size) == 0);
  const int client = ::socket(AF_INET, SOCK_STREAM, 0);
  CHECK(::connect(client, raw, size) == 0);
  const int server = ::accept(listener, nullptr, nullptr);
  CHECK(server >= 0);
  ::close(listener);
  return {client, server};
}

Task<void> receive(TlsStream& stream, std::size_t total, Buffer& into) {
  for (std::size_t got = 0; got < total; got += into.size()) CHECK(co_await stream.read_exactly(into.view()));
}

Task<void> echo(TlsStream& stream, int trips, std::size_t size) {
  Buffer buffer(size);
  for (int i = 0; i < trips; ++i) {
    CHECK(co_await stream.read_exactly(buffer.view()));
    CHECK(co_await stream.write_all(buffer.view()));
  }
}

Task<void> ours(Reactor& reactor, TlsStream& client, TlsStream& server) {
  TaskGroup group(reactor);
  const TimePoint deadline = reactor.now() + std::chrono::seconds(5);
  group.spawn([&]() -> Task<void> { CHECK(co_await server.handshake(deadline, std::nullopt)); });
  CHECK(co_await client.handshake(deadline, std::nullopt));
  co_await group.join();

  Buffer from(kMessage);
  Buffer into(kMessage);
  std::fill_n(from.data(), from.size(), std::uint8_t{7});
  const TimePoint begin = reactor.now();
  const double cpu = cpu_seconds(RUSAGE_SELF);
  group.spawn([&]() -> Task<void> { co_await receive(server, kTotal, into); });
  for (std::size_t sent = 0; sent < kTotal; sent += kMessage) CHECK(co_await client.write_all(from.view()));
  co_await group.join();
  const double wall = std::chrono::duration<double>(reactor.now() - begin).count();
  const double gib = static_cast<double>(kTotal) / (1 << 30);
  std::printf("ours, one reactor thread\t%.0f MiB/s\t%.3f CPU s/GiB\n", gib * 1024 / wall,
              (cpu_seconds(RUSAGE_SELF) - cpu) / gib);

  const double trips_cpu = cpu_seconds(RUSAGE_SELF);
  group.spawn([&]() -> Task<void> { co_await echo(server, kTrips, 4096); });
  Buffer small(4096);
  for (int i = 0; i < kTrips; ++i) {
    CHECK(co_await client.write_all(small.view()));
    CHECK(co_await client.read_exactly(small.view()));
  }
  co_await group.join();
  std::printf("ours, 4 KiB round trip\t%.1f CPU us\n", (cpu_seconds(RUSAGE_SELF) - trips_cpu) / kTrips * 1e6);
}

SSL_CTX* bare_context(const SSL_METHOD* method, const TlsIdentity& id) {
  SSL_CTX* context = SSL_CTX_new(method);
  const std::uint8_t* at = id.certificate_der().data();
  SSL_CTX_use_certificate(context, d2i_X509(nullptr, &at, static_cast<long>(id.certificate_der().size())));
  at = id.private_key_der().data();
  SSL_CTX_use_PrivateKey(context,
                         d2i_AutoPrivateKey(nullptr, &at, static_cast<long>(id.private_key_der().size())));
  SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
  SSL_CTX_set_num_tickets(context, 0);  // unread ones would turn the sender's close into a reset
  return context;
}

void bare() {
  const auto [client, server] = socket_pair();
  const TlsIdentity id = identity(1);
  const double cpu = cpu_seconds(RUSAGE_CHILDREN);
  if (::fork() == 0) {
    SSL* ssl = SSL_new(bare_context(TLS_server_method(), id));
    SSL_set_fd(ssl, server);
    ::close(client);
    Buffer into(kMessage);
    if (SSL_accept(ssl) != 1) ::_exit(1);
    for (std::size_t got = 0; got < kTotal;) {
      const int n = SSL_read(ssl, into.data(), static_cast<int>(into.size()));
      if (n <= 0) ::_exit(1);
      got += static_cast<std::size_t>(n);
    }
    ::_exit(0);
  }
  if (::fork() == 0) {
    SSL* ssl = SSL_new(bare_context(TLS_client_method(), id));
    SSL_set_fd(ssl, client);
    ::close(server);
    Buffer from(kMessage);
    std::fill_n(from.data(), from.size(), std::uint8_t{7});
    if (SSL_connect(ssl) != 1) ::_exit(1);
    for (std::size_t sent = 0; sent < kTotal; sent += kMessage)
      if (SSL_write(ssl, from.data(), static_cast<int>(kMessage)) <= 0) ::_exit(1);
    ::_exit(0);
  }
  ::close(client);
  ::close(server);
  const auto begin = std::chrono::steady_clock::now();
  int status = 0;
  while (::wait(&status) > 0) CHECK(status == 0);
  const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const double gib = static_cast<double>(kTotal) / (1 << 30);
  std::printf("bare OpenSSL, two processes\t%.0f MiB/s\t%.3f CPU s/GiB\n", gib * 1024 / wall,
              (cpu_seconds(RUSAGE_CHILDREN) - cpu) / gib);
}

void run() {
  bare();
  Reactor reactor(0);
  const auto [client_fd, server_fd] = socket_pair();
  TcpSocket client_socket(reactor.executor());
  TcpSocket server_socket(reactor.executor());
  client_socket.assign(asio::ip::tcp::v4(), client_fd);
  server_socket.assign(asio::ip::tcp::v4(), server_fd);
  TlsStream client(reactor, std::move(client_socket), *TlsContext::make(identity(1)),
                   TlsStream::Role::client);
  TlsStream server(reactor, std::move(server_socket), *TlsContext::make(identity(2)),
                   TlsStream::Role::server);
  reactor.run(ours(reactor, client, server));
}

}  // namespace
}  // namespace cumulus

int main() {
  cumulus::print_machine();
  cumulus::run();
}
