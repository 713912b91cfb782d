// "host:port" and "[v6]:port": splitting, and names to addresses. Pure but for resolve(), which blocks for as
// long as the name servers are silent: NameLookups calls it, and commands that have nothing else to do.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "objectstore/base/result.h"
#include "objectstore/io/task.h"

namespace cumulus {

struct HostPort {
  std::string host;
  std::uint16_t port = 0;
  bool operator==(const HostPort&) const = default;
};
using Endpoints = std::vector<asio::ip::tcp::endpoint>;
// Asks for a name's addresses and may block; any thread, also after whoever asked is gone.
using Resolver = std::function<Result<Endpoints>(const HostPort&)>;
// invalid when there is no host or no port of 1..65535.
Result<HostPort> parse_host_port(std::string_view text);

// The endpoint when the host is a numeric address; not_found otherwise.
Result<asio::ip::tcp::endpoint> numeric_endpoint(const HostPort& address);
// Asks the system's resolver. unavailable when the name has no address now.
Result<Endpoints> resolve(const HostPort& address);

}  // namespace cumulus
