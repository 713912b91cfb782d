// `cumulus-miner run`: serves until SIGTERM or SIGINT; SIGHUP re-reads the allow list.
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <cstdio>

#include "objectstore/base/log.h"
#include "tools/error_line.h"
#include "tools/miner/commands.h"
#include "tools/miner/miner.h"

namespace cumulus::miner_commands {

Task<int> run(Reactor& reactor, FileSystem& files, Run arguments) {
  MinerOptions options;
  const auto endpoint = parse_endpoint(arguments.listen);
  if (!endpoint) {
    print_error(kProgram, endpoint.error());
    co_return kExitUsage;
  }
  options.server.address = endpoint->first;
  options.server.port = endpoint->second;
  if (!arguments.metrics.empty()) {
    const auto metrics = parse_endpoint(arguments.metrics);
    if (!metrics) {
      print_error(kProgram, metrics.error());
      co_return kExitUsage;
    }
    options.metrics = *metrics;
  }
  if (arguments.open) options.open_quota = arguments.quota_per_volume;

  boost::asio::basic_signal_set<ReactorExecutor> signals(reactor.executor(), SIGTERM, SIGINT, SIGHUP);
  auto miner = co_await Miner::start(reactor, files, arguments.directory, options);
  if (!miner) co_return print_error(kProgram, miner.error());
  std::printf("ready %s\n", (*miner)->endpoint().c_str());
  std::fflush(stdout);
  for (;;) {
    using Token = asio::use_awaitable_t<ReactorExecutor>;
    boost::system::error_code error;
    const int number = co_await signals.async_wait(asio::redirect_error(Token(), error));
    if (error || number != SIGHUP) break;
    const cumulus::Status reloaded = co_await (*miner)->reload();
    if (!reloaded) log_warn("{}; nothing changed", reloaded.error().message());
  }
  log_info("stopping");
  co_await (*miner)->close();
  co_return kExitDone;
}

}  // namespace cumulus::miner_commands
