#include "objectstore/store/slice_upload.h"

#include <algorithm>
#include <map>
#include <set>

#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/store/segment_name.h"

namespace cumulus {
namespace {

constexpr Duration kPauseMax = std::chrono::seconds(1);
constexpr Duration kSlowPut = std::chrono::seconds(3);  // then somebody may want to know whom it waits for

// slot   | means
// idle   | needs a miner
// busy   | a PUT is under way at miners[index]
// done   | acknowledged
enum class SlotState : std::uint8_t { idle, busy, done };

struct Slot {
  SliceSource source;
  SlotState state = SlotState::idle;
  bool preferred_failed = false;
};

struct Upload {
  Upload(Runtime& runtime, UploadPlan the_plan) : plan(std::move(the_plan)), changed(runtime), puts(runtime) {
    refused = plan.avoid;
    for (SliceSource& source : plan.slices) slots.push_back({std::move(source), SlotState::idle, false});
  }
  bool done() const {
    return std::ranges::all_of(slots, [](const Slot& slot) { return slot.state == SlotState::done; });
  }
  bool busy() const {
    return std::ranges::any_of(slots, [](const Slot& slot) { return slot.state == SlotState::busy; });
  }
  std::string slow_ones() const {
    std::set<MinerId> miners;
    for (const Slot& slot : slots)
      if (slot.state == SlotState::busy) miners.insert(plan.miners[slot.source.index]);
    std::string text;
    for (const MinerId& miner : miners) text += (text.empty() ? "" : ", ") + miner.brief();
    return (miners.size() == 1 ? "no answer yet from miner " : "no answer yet from miners ") + text;
  }
  UploadPlan plan;
  std::vector<Slot> slots;
  std::vector<MinerId> refused;  // failed for a slice since the last pause
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
    log_info("{}: slice {} on miner {}: {}", name_of(upload.plan.segment), slot.source.index, miner.brief(),
             error.message());
    // `exists` is about this segment only: the miner is well.
    if (error.kind() != ErrorKind::exists) eligible.note_failure(miner, error.kind());
    if (error.kind() == ErrorKind::fenced && upload.plan.on_destroyed) upload.plan.on_destroyed();
    upload.last_failure = said_by(miner, error);
    upload.refused.push_back(miner);
    slot.preferred_failed = slot.preferred_failed || miner == slot.source.preferred;
    slot.state = SlotState::idle;
    upload.plan.miners[slot.source.index] = MinerId{};
  }
  upload.changed.notify_all();
}

// Gives every idle slot a miner and starts its PUT; false when there are too few miners for that.
Status start_puts(Runtime& runtime, SliceTransport& transport, EligibleMiners& eligible, Upload& upload) {
  std::vector<MinerId> miners = upload.plan.miners;
  for (const Slot& slot : upload.slots)
    if (slot.state == SlotState::idle && !slot.preferred_failed && eligible.eligible(slot.source.preferred))
      miners[slot.source.index] = slot.source.preferred;
  const std::vector<Candidate> candidates = eligible.candidates(upload.refused);
  TRY(const Placement placement,
      place(upload.plan.volume, upload.plan.segment, upload.plan.m, std::move(miners), candidates));
  for (Slot& slot : upload.slots) {
    if (slot.state != SlotState::idle) continue;
    const MinerId miner = placement.miners[slot.source.index];
    slot.state = SlotState::busy;
    upload.plan.miners[slot.source.index] = miner;
    upload.puts.spawn(put_slice(runtime, transport, eligible, upload, slot, miner));
  }
  return {};
}

// Why others may not take a slice now: each reason with those that it is about.
std::string why_so_few(const SliceTransport& transport, const EligibleMiners& eligible) {
  constexpr std::size_t kNamed = 4;
  std::map<std::string, std::vector<MinerId>> reasons;
  for (const MinerEntry& miner : transport.miners())
    if (std::string reason = eligible.why_not(miner.id); !reason.empty())
      reasons[std::move(reason)].push_back(miner.id);
  std::string text;
  for (const auto& [reason, miners] : reasons) {
    text += "; " + reason + ":";
    for (std::size_t i = 0; i < std::min(kNamed, miners.size()); ++i) text += " " + miners[i].brief();
    if (miners.size() > kNamed) text += format(" and {} more", miners.size() - kNamed);
  }
  return text;
}

}  // namespace

bool is_crowded(const std::vector<MinerId>& miners) {
  return std::set<MinerId>(miners.begin(), miners.end()).size() < miners.size();
}

Task<Result<std::vector<MinerId>>> upload_slices(Runtime& runtime, SliceTransport& transport,
                                                 EligibleMiners& eligible, UploadPlan plan,
                                                 const bool& stopping, Signal& wake) {
  Upload upload(runtime, std::move(plan));
  Duration pause = std::chrono::milliseconds(200);
  bool given_up = false;
  while (!upload.done() && !stopping) {
    const Status started = start_puts(runtime, transport, eligible, upload);
    if (upload.busy()) {
      const bool woken = co_await upload.changed.wait_until(runtime.now() + kSlowPut);
      if (!woken && upload.plan.on_waiting) upload.plan.on_waiting(upload.slow_ones());
      continue;
    }
    if (started) continue;  // all of them failed, or were done, before they had to wait
    if (!upload.last_failure.empty()) upload.last_failure = "; the last to refuse: " + upload.last_failure;
    upload.last_failure = started.error().message() + why_so_few(transport, eligible) + upload.last_failure;
    if (upload.plan.once) {
      given_up = true;
      break;
    }
    if (upload.plan.on_waiting) upload.plan.on_waiting(upload.last_failure);
    // Nobody can take the rest now. Refusals are forgotten: whoever comes back is asked again.
    upload.refused.clear();
    for (Slot& slot : upload.slots) slot.preferred_failed = false;
    upload.last_failure.clear();
    const TimePoint until = runtime.now() + pause;
    while (!stopping && runtime.now() < until) co_await wake.wait_until(until);
    pause = std::min(pause * 2, kPauseMax);
  }
  co_await upload.puts.join();
  if (upload.done()) co_return std::move(upload.plan.miners);
  if (given_up) co_return fail(ErrorKind::unavailable, upload.last_failure);
  co_return fail(ErrorKind::closed, "the volume is being closed");
}

}  // namespace cumulus
