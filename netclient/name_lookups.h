// NameLookups: host names to addresses, for all links of one transport, in a lane of its own: the system's
// resolver blocks for as long as the name servers are silent, and the ordinary workers seal and decrypt. One
// look-up at a time; who asks for a name that is being looked up gets the same answer. Reactor thread.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "netclient/address.h"
#include "objectstore/io/detached_lane.h"
#include "objectstore/io/sync.h"

namespace cumulus {

class NameLookups {
 public:
  NameLookups(Runtime& runtime, Resolver resolver)
      : runtime_(runtime), resolver_(std::move(resolver)), lane_(runtime) {}

  // The addresses, or what the resolver says; unavailable at `deadline`, closed after shut(). A look-up that
  // nobody waits for when its turn comes is skipped.
  Task<Result<Endpoints>> look_up(HostPort where, TimePoint deadline);
  // Ends every wait, at once. A look-up that runs is left to itself.
  void shut();

 private:
  struct LookUp {
    LookUp(Runtime& runtime, HostPort name) : where(std::move(name)), answered(runtime) {}
    HostPort where;
    std::size_t waiting = 0;
    std::optional<Result<Endpoints>> answer;
    Signal answered;
  };
  std::shared_ptr<LookUp> find(const HostPort& where) const;
  void start_next();

  Runtime& runtime_;
  Resolver resolver_;
  bool shut_ = false;
  std::deque<std::shared_ptr<LookUp>> queue_;  // the first one runs
  bool running_ = false;
  DetachedLane lane_;
};

}  // namespace cumulus
