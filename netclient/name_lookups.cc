#include "netclient/name_lookups.h"

#include <algorithm>

namespace cumulus {

std::shared_ptr<NameLookups::LookUp> NameLookups::find(const HostPort& where) const {
  const auto found = std::ranges::find_if(queue_, [&](const auto& one) { return one->where == where; });
  return found == queue_.end() ? nullptr : *found;
}

Task<Result<Endpoints>> NameLookups::look_up(HostPort where, TimePoint deadline) {
  std::shared_ptr<LookUp> mine = find(where);
  if (!mine && !shut_) {
    mine = std::make_shared<LookUp>(runtime_, where);
    queue_.push_back(mine);
  }
  bool in_time = true;
  if (mine) ++mine->waiting;
  if (!running_) start_next();
  while (!shut_ && !mine->answer && in_time) in_time = co_await mine->answered.wait_until(deadline);
  if (mine) --mine->waiting;
  if (shut_) co_return fail(ErrorKind::closed, "the transport was closed");
  if (!mine->answer)
    co_return fail(ErrorKind::unavailable, "look up " + where.host + ": no name server answers in time");
  co_return *mine->answer;
}

void NameLookups::shut() {
  shut_ = true;
  for (const auto& one : queue_) one->answered.notify_all();
}

void NameLookups::start_next() {
  std::erase_if(queue_, [](const auto& one) { return one->waiting == 0; });
  if (shut_ || queue_.empty()) return;
  running_ = true;
  const auto answer = std::make_shared<std::optional<Result<Endpoints>>>();
  // The work may outlive this transport: it holds copies of all that it needs.
  auto work = [resolver = resolver_, where = queue_.front()->where, answer] { *answer = resolver(where); };
  auto done = [this, answer] {
    running_ = false;
    const std::shared_ptr<LookUp> mine = std::move(queue_.front());
    queue_.pop_front();
    mine->answer = std::move(*answer);
    mine->answered.notify_all();
    start_next();
  };
  lane_.start(std::move(work), std::move(done));
}

}  // namespace cumulus
