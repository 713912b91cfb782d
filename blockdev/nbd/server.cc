#include "blockdev/nbd/server.h"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "blockdev/images.h"
#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"

namespace cumulus::nbd {
namespace {

constexpr std::uint64_t kMemoryAlone = 64u << 20;

constexpr int kBacklog = 1024;          // a burst of clients waits in the kernel
constexpr int kSilentMax = 300;         // seconds without a byte, after which a TCP client is asked for one
constexpr int kSocketBuffer = 1 << 20;  // a large read leaves in few system calls

bool parse_address(const std::string& text, std::array<std::uint8_t, 16>& into, bool& is_v4) {
  in_addr v4{};
  is_v4 = ::inet_pton(AF_INET, text.c_str(), &v4) == 1;
  if (!is_v4) return ::inet_pton(AF_INET6, text.c_str(), into.data()) == 1;
  into = {};
  into[10] = into[11] = 0xff;
  std::memcpy(into.data() + 12, &v4, 4);
  return true;
}

struct Peer {
  std::array<std::uint8_t, 16> address{};
  std::string name;
};

Peer peer_of(int socket, const sockaddr_storage& from) {
  Peer peer;
  char text[INET6_ADDRSTRLEN] = "";
  if (from.ss_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, &from, sizeof v4);
    peer.address[10] = peer.address[11] = 0xff;
    std::memcpy(peer.address.data() + 12, &v4.sin_addr, 4);
    ::inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    peer.name = format("{}:{}", text, ntohs(v4.sin_port));
  } else if (from.ss_family == AF_INET6) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, &from, sizeof v6);
    std::memcpy(peer.address.data(), &v6.sin6_addr, 16);
    ::inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    peer.name = format("[{}]:{}", text, ntohs(v6.sin6_port));
  } else {
    ucred who{};
    socklen_t size = sizeof who;
    const bool known = ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0;
    peer.name = known ? format("pid {}", who.pid) : "a local process";
  }
  return peer;
}

// A host that died would have its export in use for ever.
void keep_alive(int socket) {
  const int on = 1;
  const int interval = 30;  // seconds
  const int probes = 4;
  ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &kSilentMax, sizeof kSilentMax);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

}  // namespace

Status AllowList::add(const std::string& cidr) {
  const auto slash = cidr.find('/');
  Range range;
  bool is_v4 = false;
  const auto bad = [&] {
    return fail(ErrorKind::invalid, format("'{}' is not an address or ADDRESS/BITS", cidr));
  };
  if (!parse_address(cidr.substr(0, slash), range.address, is_v4)) return bad();
  const unsigned most = is_v4 ? 32 : 128;
  range.bits = most;
  if (slash != std::string::npos) {
    const char* end = cidr.data() + cidr.size();
    const auto parsed = std::from_chars(cidr.data() + slash + 1, end, range.bits);
    if (parsed.ec != std::errc() || parsed.ptr != end || range.bits > most) return bad();
  }
  if (is_v4) range.bits += 96;
  ranges_.push_back(range);
  return {};
}

bool AllowList::allows(const std::array<std::uint8_t, 16>& address) const {
  const auto holds = [&](const Range& range) {
    for (unsigned bit = 0; bit < range.bits; ++bit) {
      const unsigned mask = 0x80u >> (bit % 8);
      if (((address[bit / 8] ^ range.address[bit / 8]) & mask) != 0) return false;
    }
    return true;
  };
  return ranges_.empty() || std::ranges::any_of(ranges_, holds);
}

Server::Server(Runtime& runtime, Volume& volume, ServerOptions options)
    : runtime_(runtime),
      volume_(volume),
      options_(std::move(options)),
      shared_{runtime, options_.limits,
              options_.memory ? options_.memory : std::make_shared<Memory>(runtime, kMemoryAlone),
              options_.reconnect_safe},
      tasks_(runtime) {}

Server::~Server() { CHECK(listener_ < 0 && connections_.empty()); }

Status Server::listen_unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return fail(ErrorKind::invalid,
                format("the socket's path is longer than {} bytes: {}", sizeof address.sun_path - 1, path));
  std::memcpy(address.sun_path, path.c_str(), path.size());
  sockaddr_storage generic{};
  std::memcpy(&generic, &address, sizeof address);
  const auto* raw = reinterpret_cast<const sockaddr*>(&generic);
  const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (probe < 0) return fail(from_errno(errno, "make a socket"));
  const bool alive = ::connect(probe, raw, sizeof address) == 0;
  const int why = errno;
  ::close(probe);
  if (alive) return fail(ErrorKind::exists, format("another server listens on {}", path));
  struct stat info{};
  if (why == ECONNREFUSED && ::stat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode))
    ::unlink(path.c_str());
  const int made = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (made < 0) return fail(from_errno(errno, "make a socket"));
  const mode_t mask = ::umask(0177);  // the owner's alone; who wants more changes its mode
  const bool bound = ::bind(made, raw, sizeof address) == 0 && ::listen(made, kBacklog) == 0;
  const int error = errno;
  ::umask(mask);
  if (!bound) {
    ::close(made);
    return fail(from_errno(error, "listen on " + path));
  }
  listener_ = made;
  where_ = unlink_ = path;
  return {};
}

Status Server::listen_tcp(const std::string& address) {
  const auto colon = address.rfind(':');
  if (colon == std::string::npos) return fail(ErrorKind::invalid, format("'{}' is not ADDR:PORT", address));
  std::string host = address.substr(0, colon);
  const std::string port = address.substr(colon + 1);
  std::uint16_t number = 0;  // the resolver would cut off a larger one
  const auto parsed = std::from_chars(port.data(), port.data() + port.size(), number);
  if (parsed.ec != std::errc() || parsed.ptr != port.data() + port.size())
    return fail(ErrorKind::invalid, format("'{}' is not ADDR:PORT: a port is 0 to 65535", address));
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV;  // the runtime never waits for name servers
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(host.empty() ? nullptr : host.c_str(), port.c_str(), &hints, &found);
      error != 0)
    return fail(ErrorKind::invalid, format("'{}' is not ADDR:PORT: {}", address, ::gai_strerror(error)));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, ::freeaddrinfo);
  const int made = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int on = 1;
  if (made >= 0) ::setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (made < 0 || ::bind(made, found->ai_addr, found->ai_addrlen) != 0 || ::listen(made, kBacklog) != 0) {
    const int error = errno;
    if (made >= 0) ::close(made);
    return fail(from_errno(error, "listen on " + address));
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  ::getsockname(made, reinterpret_cast<sockaddr*>(&bound), &size);
  listener_ = made;
  where_ = peer_of(made, bound).name;
  return {};
}

void Server::start() {
  CHECK(listener_ >= 0);
  readiness_ = std::make_unique<Readiness>(runtime_, listener_);
  tasks_.spawn(accept_loop());
}

void Server::adopt(int socket, std::string peer) {
  CHECK(listener_ < 0);
  ::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) | O_NONBLOCK);
  where_ = peer;
  admit(socket, std::move(peer));
}

Task<void> Server::accept_loop() {
  while (!closing_) {
    sockaddr_storage from{};
    socklen_t size = sizeof from;
    const int socket =
        ::accept4(listener_, reinterpret_cast<sockaddr*>(&from), &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (socket < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) {
        co_await readiness_->readable();
      } else if (errno != EINTR && errno != ECONNABORTED) {
        co_await runtime_.sleep_for(std::chrono::milliseconds(100));  // out of descriptors: some come back
      }
      continue;
    }
    const Peer peer = peer_of(socket, from);
    if (from.ss_family != AF_UNIX && !options_.allowed.allows(peer.address)) {
      log_warn("nbd client {} is not on the allow list", peer.name);
      ::close(socket);
      continue;
    }
    const int on = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &kSocketBuffer, sizeof kSocketBuffer);
    if (from.ss_family != AF_UNIX) keep_alive(socket);
    admit(socket, peer.name);
  }
}

void Server::admit(int socket, std::string peer) {
  const auto shaking = [](const std::shared_ptr<Connection>& one) { return !one->in_transmission(); };
  if (static_cast<std::size_t>(std::ranges::count_if(connections_, shaking)) >=
      options_.limits.handshakes_max)
    (*std::ranges::find_if(connections_, shaking))->cut();
  if (connections_.size() >= options_.limits.connections_max) {
    ::close(socket);
    return;
  }
  auto stream = std::make_unique<Stream>(runtime_, socket);
  auto connection = std::make_shared<Connection>(shared_, *this, std::move(stream), std::move(peer));
  connections_.push_back(connection);
  tasks_.spawn(serve(connection));
}

Task<void> Server::serve(std::shared_ptr<Connection> connection) {
  co_await connection->serve();
  connections_.remove(connection);
}

void Server::end() {
  closing_ = true;
  if (readiness_) readiness_->cancel();
  const std::vector<std::shared_ptr<Connection>> now(connections_.begin(), connections_.end());
  for (const auto& connection : now) connection->end();
}

Task<void> Server::close() {
  end();
  co_await tasks_.join();
  readiness_.reset();
  if (listener_ >= 0) ::close(std::exchange(listener_, -1));
  if (!unlink_.empty()) ::unlink(unlink_.c_str());
}

bool Server::writes(DatasetId dataset) const {
  return std::ranges::any_of(devices_, [&](const auto& entry) {
    const auto device = entry.second.lock();
    return device && device->dataset() == dataset && !device->read_only();
  });
}

std::vector<Server::Client> Server::clients() const {
  std::vector<Client> all;
  for (const auto& connection : connections_) {
    const auto& device = connection->device();
    const DatasetInfo* info = device ? volume_.find_dataset(device->dataset()) : nullptr;
    all.push_back({connection->peer(), info == nullptr ? "" : info->name});
  }
  return all;
}

std::vector<std::string> Server::export_names() const {
  std::vector<std::string> names;
  for (const DatasetInfo& info : volume_.datasets()) {
    if (info.type != DatasetType::image) continue;
    if (!options_.image.empty() && info.name != options_.image) continue;
    names.push_back(info.name);
    for (const SnapshotInfo& snapshot : info.snapshots) names.push_back(info.name + "@" + snapshot.name);
  }
  return names;
}

Task<Result<std::shared_ptr<BlockDevice>>> Server::open_export(std::string name, std::string peer) {
  if (name.empty()) name = options_.image;
  const auto at = name.rfind('@');
  const std::string image = name.substr(0, at);
  const std::string snapshot = at == std::string::npos ? "" : name.substr(at + 1);
  if (name.empty() || (!options_.image.empty() && image != options_.image)) {
    log_warn("nbd client {} asked for an export '{}' that is not served", peer, name);
    co_return fail(ErrorKind::not_found, format("there is no export '{}' here", name));
  }
  std::erase_if(devices_, [](const auto& entry) { return entry.second.expired(); });
  if (const auto known = devices_.find(name); known != devices_.end()) {
    const auto open = known->second.lock();
    CO_TRY_OK(co_await open->refresh());
    co_return open;
  }
  const DatasetInfo* info = volume_.find_dataset(image);
  if (info != nullptr && snapshot.empty() && !options_.unfinished)
    CO_TRY_OK(co_await check_import_done(volume_, info->id));
  info = volume_.find_dataset(image);
  if (info != nullptr && snapshot.empty() && !options_.read_only && options_.may_attach)
    CO_TRY_OK(options_.may_attach(info->id, image));
  CO_TRY(auto device, co_await BlockDevice::open(volume_, image, snapshot, options_.read_only));
  std::weak_ptr<BlockDevice>& place = devices_[name];
  if (auto meanwhile = place.lock()) co_return meanwhile;
  place = device;
  co_return device;
}

}  // namespace cumulus::nbd
