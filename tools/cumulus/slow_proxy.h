// SlowProxy: forwards TCP connections with a delay each way and a bounded rate: what `devnet slow` puts
// before a miner.
#pragma once

#include <string>

#include "objectstore/base/clock.h"
#include "objectstore/base/result.h"

namespace cumulus {

// Serves until it is killed; prints "ready ADDR:PORT" when it listens. `rate` bytes a second each way, 0:
// unlimited.
Result<int> run_slow_proxy(const std::string& listen, const std::string& to, Duration delay,
                           std::uint64_t rate);

}  // namespace cumulus
