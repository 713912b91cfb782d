#include "objectstore/store/slice_upload.h"

#include <algorithm>
#include <set>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"

namespace cumulus {
namespace {

constexpr Duration kPauseMax = std::chrono::seconds(5);

// slot   | means
// idle   | needs a miner
// busy   | a PUT is under way at miners[index]
// done   | acknowledged
enum class SlotState : std::uint8_t { idle, busy, done };

struct Slot {
  SliceSource source;
  SlotState state = SlotState::idle;
  std::vector<MinerId> refused;  // failed for this slice since the last pause
};

struct Upload {
  Upload(Runtime& runtime, UploadPlan the_plan) : plan(std::move(the_plan)), changed(runtime), puts(runtime) {
    for (SliceSource& source : plan.slices) slots.push_back({std::move(source), SlotState::idle, {}});
  }
  bool done() const {
    return std::ranges::all_of(slots, [](const Slot& slot) { return slot.state == SlotState::done; });
  }
  bool busy() const {
    return std::ranges::any_of(slots, [](const Slot& slot) { return slot.state == SlotState::busy; });
  }
  // Miners of the other slices, those on their way included.
  std::vector<MinerId> holding(std::uint16_t except) const {
    std::vector<MinerId> held;
    for (std::size_t i = 0; i < plan.miners.size(); ++i)
      if (i != except && plan.miners[i] != MinerId{}) held.push_back(plan.miners[i]);
    return held;
  }

  UploadPlan plan;
  std::vector<Slot> slots;
  bool destroyed = false;
  std::string last_failure;
  Signal changed;
  TaskGroup puts;
};

Task<void> put_slice(Runtime& runtime, SliceTransport& transport, EligibleMiners& eligible, Upload& upload,
                     Slot& slot, MinerId miner) {
  SlicePut request;
  request.slice = {upload.plan.segment, slot.source.index};
  request.manifest = upload.plan.manifest;
  request.data = slot.source.data;
  request.owner = slot.source.owner;
  const TimePoint deadline = runtime.now() + upload.plan.request_deadline;
  const Status put = co_await transport.put(miner, std::move(request), deadline);
  if (put) {
    eligible.note_success(miner);
    slot.state = SlotState::done;
  } else {
    const Error& error = put.error();
    log_info("slice {}/{}.{} on miner {}: {}", upload.plan.segment.epoch, upload.plan.segment.sequence,
             slot.source.index, miner.brief(), error.message());
    // `exists` is about this slice only: the miner is well.
    if (error.kind() != ErrorKind::exists) eligible.note_failure(miner, error.kind());
    upload.destroyed = upload.destroyed || error.kind() == ErrorKind::fenced;
    upload.last_failure = "miner " + miner.brief() + ": " + error.message();
    slot.refused.push_back(miner);
    slot.state = SlotState::idle;
    upload.plan.miners[slot.source.index] = MinerId{};
  }
  upload.changed.notify_all();
}

std::optional<MinerId> choose_for(const EligibleMiners& eligible, const Upload& upload, const Slot& slot) {
  const std::vector<MinerId> holding = upload.holding(slot.source.index);
  const MinerId& preferred = slot.source.preferred;
  if (preferred != MinerId{} && eligible.eligible(preferred) &&
      std::ranges::find(slot.refused, preferred) == slot.refused.end() &&
      std::ranges::count(holding, preferred) < upload.plan.per_miner_max)
    return preferred;
  return eligible.choose(upload.plan.segment, holding, slot.refused, upload.plan.per_miner_max);
}

// Starts a PUT for every idle slot that somebody can take; false when one is left over.
bool start_puts(Runtime& runtime, SliceTransport& transport, EligibleMiners& eligible, Upload& upload) {
  bool all = true;
  for (Slot& slot : upload.slots) {
    if (slot.state != SlotState::idle) continue;
    const auto miner = choose_for(eligible, upload, slot);
    if (!miner) {
      all = false;
      continue;
    }
    slot.state = SlotState::busy;
    upload.plan.miners[slot.source.index] = *miner;
    upload.puts.spawn(put_slice(runtime, transport, eligible, upload, slot, *miner));
  }
  return all;
}

}  // namespace

bool is_crowded(const std::vector<MinerId>& miners) {
  return std::set<MinerId>(miners.begin(), miners.end()).size() < miners.size();
}

Task<Result<std::vector<MinerId>>> upload_slices(Runtime& runtime, SliceTransport& transport, EligibleMiners& eligible,
                                                 UploadPlan plan, const bool& stopping, Signal& wake) {
  Upload upload(runtime, std::move(plan));
  Duration pause = std::chrono::milliseconds(200);
  bool given_up = false;
  while (!upload.done() && !stopping && !upload.destroyed) {
    const bool all = start_puts(runtime, transport, eligible, upload);
    if (upload.busy()) {
      co_await upload.changed.wait();
      continue;
    }
    CHECK(!all || upload.done());
    if (upload.done()) break;
    if (upload.plan.once) {
      given_up = true;
      break;
    }
    // Nobody can take the rest now. Refusals are forgotten: whoever comes back is asked again.
    for (Slot& slot : upload.slots) slot.refused.clear();
    const TimePoint until = runtime.now() + pause;
    while (!stopping && runtime.now() < until) co_await wake.wait_until(until);
    pause = std::min(pause * 2, kPauseMax);
  }
  co_await upload.puts.join();
  if (upload.done()) co_return std::move(upload.plan.miners);
  if (upload.destroyed) co_return fail(ErrorKind::fenced, "the miners say that the volume was destroyed");
  if (given_up) co_return fail(ErrorKind::unavailable, "no miner can take a slice now; " + upload.last_failure);
  co_return fail(ErrorKind::closed, "the volume is being closed");
}

}  // namespace cumulus
