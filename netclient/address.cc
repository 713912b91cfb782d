#include "netclient/address.h"

#include <boost/asio/ip/address.hpp>
#include <charconv>
#include <cstring>
#include <memory>
#include <netdb.h>

namespace cumulus {

Result<HostPort> parse_host_port(std::string_view text) {
  const auto bad = [&](const char* why) {
    return fail(ErrorKind::invalid, "'" + std::string(text.substr(0, 200)) + "' is not HOST:PORT: " + why);
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad("no port");
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']'))
    host = host.substr(1, host.size() - 2);
  else if (host.find(':') != std::string_view::npos)
    return bad("write an IPv6 address in square brackets");
  if (host.empty() || host.size() > 253) return bad("no host");
  HostPort parsed{std::string(host), 0};
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), parsed.port);
  if (error != std::errc() || end != port.data() + port.size() || parsed.port == 0)
    return bad("the port is not a number from 1 to 65535");
  return parsed;
}

Result<asio::ip::tcp::endpoint> numeric_endpoint(const HostPort& address) {
  boost::system::error_code error;
  const auto numeric = asio::ip::make_address(address.host, error);
  if (error) return fail(ErrorKind::not_found, "not a numeric address");
  return asio::ip::tcp::endpoint(numeric, address.port);
}

Result<Endpoints> resolve(const HostPort& address) {
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  const int code = ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &wanted, &found);
  if (code != 0) return fail(ErrorKind::unavailable, "look up " + address.host + ": " + ::gai_strerror(code));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> hold(found, ::freeaddrinfo);
  Endpoints endpoints;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    asio::ip::tcp::endpoint endpoint;
    if (at->ai_addrlen > endpoint.capacity()) continue;
    std::memcpy(endpoint.data(), at->ai_addr, at->ai_addrlen);
    endpoint.resize(at->ai_addrlen);
    endpoints.push_back(endpoint);
  }
  if (endpoints.empty())
    return fail(ErrorKind::unavailable, "look up " + address.host + ": it has no address");
  return endpoints;
}

}  // namespace cumulus
