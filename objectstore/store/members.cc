// StoreVolume: who the volume's miners are, and how that changes.
//
// The list of the newest record is the truth. While a change is under way the transport reaches everybody of
// the old list and the new one, so that the holders can move, but nothing new is placed on a miner that is
// not on both: what fails to be agreed on must leave nothing behind, and what leaves must not be given more.
#include <algorithm>

#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/miner_sets.h"
#include "objectstore/store/holder_survey.h"
#include "objectstore/store/segment_audit.h"
#include "objectstore/store/store_volume.h"

namespace cumulus {
namespace {

constexpr Duration kPatienceOfChange = std::chrono::seconds(30);
constexpr Duration kPatienceOfGreeting = std::chrono::seconds(5);
constexpr Duration kForEver = std::chrono::hours(24 * 365);

}  // namespace

// A home that opened offline claims later, and may then find a list that it did not know.
Task<void> StoreVolume::follow_claimed_list() {
  const Status claimed = co_await tail_->wait_claimed();
  if (claimed && list_changes_ == 0) follow_list(transport_, parts_.keys, tail_->accepted(), true);
}

std::vector<MinerEntry> StoreVolume::miners() const {
  return at_addresses_of(tail_->miners(), transport_.miners());
}

Task<Status> StoreVolume::set_miners(std::vector<MinerEntry> miners, bool lost,
                                     std::optional<std::vector<MinerEntry>> expected) {
  const Semaphore::Hold turn = co_await list_turn_.acquire();
  if (!read_only_reason_.empty()) co_return fail(ErrorKind::fenced, read_only_reason_);
  const Miners before = this->miners();
  if (expected && *expected != before)
    co_return fail(ErrorKind::exists, "another command has just changed the list of miners");
  const Miners gone = only_in(before, miners);
  if (!gone.empty() && miners.size() < shape_.miners_min())
    co_return fail(ErrorKind::invalid,
                   format("{} miners would be left, and {}+{} slices need at least {}: add others first",
                          miners.size(), shape_.k, shape_.m, shape_.miners_min()));
  ++list_changes_;
  // Those that stay take slices all the while; those that come or go are reached, and are given nothing. So
  // are guests of a change before this one that is still being taken back.
  const Miners reached = transport_.miners();
  Miners staying;
  std::ranges::copy_if(miners, std::back_inserter(staying),
                       [&](const MinerEntry& miner) { return names(before, miner.id); });
  transport_.set_miners(with_guests(with_guests(staying, reached), miners));
  Status may = co_await may_come(only_in(miners, before));
  if (may && !gone.empty() && !lost) may = co_await may_go(gone);
  if (!may) {
    transport_.set_miners(reached);
    co_return may;
  }
  const Status settled = co_await tail_->set_miners(miners, kPatienceOfChange);
  if (!settled) {
    tasks_.spawn(take_back(before, list_changes_));
    co_return fail(
        Error(settled.error().kind(),
              "the list was not changed, and goes on being the old one if the miners answer while the "
              "volume is open ('cumulus miner ls' shows it): " +
                  settled.error().message()));
  }
  transport_.set_miners(std::move(miners));
  co_return Status();
}

// Some holder may have the change already, so the old list is proposed after it.
Task<void> StoreVolume::take_back(std::vector<MinerEntry> before, std::uint64_t change) {
  if (change != list_changes_) co_return;
  transport_.set_miners(with_guests(before, transport_.miners()));
  const Status settled = co_await tail_->set_miners(before, kForEver);
  if (settled && change == list_changes_) transport_.set_miners(std::move(before));
}

// A holder that nobody has heard of would be waited for by every record from then on.
Task<Status> StoreVolume::may_come(std::vector<MinerEntry> fresh) {
  std::string silent;
  TaskGroup asking(parts_.runtime);
  for (const MinerEntry& miner : fresh) {
    asking.spawn([this, &silent, miner]() -> Task<void> {
      const TimePoint deadline = parts_.runtime.now() + kPatienceOfGreeting;
      const auto status = co_await asked_.status(miner.id, deadline);
      if (!status) silent += format("; {}: {}", miner.address, status.error().message());
    });
  }
  co_await asking.join();
  if (silent.empty()) co_return Status();
  co_return fail(ErrorKind::unavailable,
                 "miners that are to be added do not answer, and nothing was changed" + silent);
}

// Nothing of the volume may be on them, nor on its way to them.
Task<Status> StoreVolume::may_go(std::vector<MinerEntry> gone) {
  if (repairing_)
    co_return fail(ErrorKind::unavailable, "a repair of this volume is under way: wait until it is through");
  CO_TRY_OK(co_await pusher_->wait_for_those_under_way(kPatienceOfChange));
  CO_TRY(const std::vector<change::Placed> placed, co_await placed_segments(*index_));
  for (const MinerEntry& miner : gone) {
    const auto held = std::ranges::count_if(placed, [&](const change::Placed& segment) {
      return std::ranges::find(segment.miners, miner.id) != segment.miners.end();
    });
    if (held != 0)
      co_return fail(ErrorKind::denied, format("miner {} holds slices of {} of {} segments", miner.id.brief(),
                                               held, placed.size()));
  }
  co_return Status();
}

}  // namespace cumulus
