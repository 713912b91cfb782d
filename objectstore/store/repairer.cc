#include "objectstore/store/repairer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/crypto/merkle.h"
#include "objectstore/erasure/codec.h"
#include "objectstore/erasure/geometry.h"
#include "objectstore/store/segment_name.h"
#include "objectstore/store/slice_upload.h"

namespace cumulus {
namespace {

constexpr unsigned kParallel = 2;
constexpr unsigned kProbes = 3;
constexpr Duration kProbeDeadline = std::chrono::seconds(5);
constexpr Duration kProbePause = std::chrono::milliseconds(500);
constexpr Duration kKeepEvery = std::chrono::seconds(1);
constexpr std::size_t kProblemsMax = 100;

}  // namespace

Repairer::Repairer(Runtime& runtime, Index& index, SliceTransport& transport, VolumeId volume,
                   Duration request_deadline, Note note, Keep keep)
    : runtime_(runtime),
      index_(index),
      transport_(transport),
      volume_(volume),
      request_deadline_(request_deadline),
      note_(std::move(note)),
      keep_(std::move(keep)),
      eligible_(runtime, transport),
      audit_(runtime, transport, volume, request_deadline),
      never_(runtime) {}

Task<Result<RepairReport>> Repairer::repair(std::optional<SegmentId> after, Progress progress) {
  report_ = {};
  failure_.reset();
  stopping_ = false;
  unspread_.clear();
  undrained_.clear();
  damaged_.clear();
  co_await find_miners();
  CO_TRY_OK(co_await plan(after));
  TaskGroup workers(runtime_);
  for (unsigned i = 0; i < kParallel; ++i) workers.spawn(work(progress));
  co_await workers.join();
  if (!failure_ && !stopping_ && !unspread_.empty()) co_await try_unspread_again();
  segments_.clear();
  settled_.clear();
  if (failure_) co_return fail(*failure_);
  if (stopping_) co_return fail(ErrorKind::closed, "interrupted");
  co_await keep_(std::nullopt);
  note_unspread();
  co_return std::move(report_);
}

// A miner that is just starting gets a moment; one that stays silent is left out.
Task<void> Repairer::find_miners() {
  for (unsigned attempt = 0;; ++attempt) {
    transport_.try_now();
    eligible_.forget();
    co_await eligible_.refresh(runtime_.now() + std::min(request_deadline_, kProbeDeadline));
    const bool all = std::ranges::all_of(transport_.miners(), [this](const MinerEntry& miner) {
      return eligible_.eligible(miner.id) || eligible_.why_not(miner.id) != "does not answer";
    });
    if (all || attempt + 1 == kProbes) co_return;
    co_await runtime_.sleep_for(kProbePause);
  }
}

Task<Status> Repairer::plan(std::optional<SegmentId> after) {
  CO_TRY(std::vector<change::Placed> all, co_await placed_segments(index_));
  report_.segments = all.size();
  const std::vector<std::uint32_t> missing = co_await audit_.count_missing(all);
  std::vector<std::size_t> urgent;
  std::vector<std::size_t> rest;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (missing[i] > 0 || is_crowded(all[i].miners))
      urgent.push_back(i);
    else if (!after || all[i].segment > *after)
      rest.push_back(i);
  }
  std::ranges::sort(urgent, [&](std::size_t a, std::size_t b) {
    return missing[a] != missing[b] ? missing[a] > missing[b] : a < b;
  });
  std::ranges::sort(rest, {}, [&](std::size_t i) { return all[i].segment; });
  segments_.clear();
  for (const auto* order : {&urgent, &rest})
    for (const std::size_t i : *order) segments_.push_back(std::move(all[i]));
  report_.resumed = report_.segments - segments_.size();
  next_ = done_ = 0;
  in_order_ = kept_ = urgent.size();
  settled_.assign(segments_.size(), false);
  keep_at_ = runtime_.now() + kKeepEvery;
  co_return Status();
}

Task<void> Repairer::work(const Progress& progress) {
  while (!stopping_ && !failure_ && next_ < segments_.size()) {
    const std::size_t at = next_++;
    co_await repair_segment(segments_[at]);
    ++done_;
    if (!failure_) co_await settle(at);
    if (progress && !progress(done_, segments_.size())) stopping_ = true;
  }
}

Task<void> Repairer::settle(std::size_t at) {
  settled_[at] = true;
  while (kept_ < settled_.size() && settled_[kept_]) ++kept_;
  if (kept_ == in_order_ || runtime_.now() < keep_at_) co_return;
  keep_at_ = runtime_.now() + kKeepEvery;
  const std::optional<SegmentId> through = segments_[kept_ - 1].segment;
  co_await keep_(through);
}

Task<void> Repairer::repair_segment(change::Placed placed) {
  const std::vector<MinerId> noted_before = placed.miners;
  AuditedSegment audited = co_await audit_.examine(placed);
  const std::size_t good = audited.count(SliceState::good);
  if (good < placed.miners.size()) damaged_.insert(placed.segment);
  if (good < placed.k || !audited.manifest) {
    ++report_.unrepairable;
    note_problem(placed, format("{} good slices could be read and {} are needed: it cannot be rebuilt now",
                                good, placed.k));
    co_return;
  }
  std::vector<MinerId> miners = placed.miners;
  if (good < audited.slices.size()) {
    const bool rebuilt = co_await rebuild(placed, audited);
    if (!rebuilt) co_return;
    std::vector<std::uint16_t> missing = missing_of(placed, audited);
    std::vector<MinerId> nobody;
    miners = co_await put_slices(placed, audited, std::move(missing), true, std::move(nobody));
    if (miners.empty()) co_return;
    const bool believed = co_await replace_liars(placed, audited, miners);
    report_.rebuilt += audited.slices.size() - good;
    if (believed) damaged_.erase(placed.segment);
  }
  co_await spread(placed, audited, miners);
  if (miners == noted_before) co_return;
  placed.miners = std::move(miners);
  const Status noted = co_await note_(placed);
  if (!noted) failure_ = noted.error();
}

// A miner that took a slice back and still returns other bytes is not believed again: another gets the slice.
// False when there is no other.
Task<bool> Repairer::replace_liars(const change::Placed& placed, const AuditedSegment& audited,
                                   std::vector<MinerId>& miners) {
  change::Placed now = placed;
  now.miners = miners;
  std::vector<std::uint16_t> lied_about;
  std::vector<MinerId> liars;
  for (const std::uint16_t i : slice_indices(miners.size())) {
    if (audited.slices[i].state != SliceState::wrong || miners[i] != placed.miners[i]) continue;
    const SliceState state = co_await audit_.examine_slice(now, i);
    if (state != SliceState::wrong) continue;
    lied_about.push_back(i);
    liars.push_back(miners[i]);
  }
  if (lied_about.empty()) co_return true;
  std::vector<MinerId> avoid = liars;
  std::vector<MinerId> moved =
      co_await put_slices(now, audited, std::move(lied_about), false, std::move(avoid));
  if (moved.empty()) {
    note_problem(placed, format("miner {} returns wrong bytes for what it has just been given, and no other "
                                "miner can take it",
                                liars.front().brief()));
    co_return false;
  }
  miners = std::move(moved);
  co_return true;
}

// What could not be spread may have met a miner at a bad moment.
Task<void> Repairer::try_unspread_again() {
  co_await find_miners();
  const std::set<SegmentId> again = std::exchange(unspread_, {});
  for (const SegmentId& segment : again) {
    const auto known = co_await index_.placed(segment);
    if (known && *known && !failure_) co_await repair_segment((*known)->placed);
  }
}

// Fills in the bytes of every slice that is not good, and believes them only when their root is the
// manifest's.
Task<bool> Repairer::rebuild(const change::Placed& placed, AuditedSegment& audited) {
  std::vector<PresentSlice> present;
  for (std::uint16_t i = 0; i < audited.slices.size() && present.size() < placed.k; ++i)
    if (audited.slices[i].state == SliceState::good) present.push_back({i, audited.slices[i].bytes});
  const Manifest& manifest = *audited.manifest;
  std::vector<std::pair<std::uint16_t, MutableByteView>> targets;
  for (const std::uint16_t i : slice_indices(audited.slices.size())) {
    AuditedSlice& slice = audited.slices[i];
    if (slice.state == SliceState::good) continue;
    const std::uint64_t length = manifest.stored_length(i);
    slice.owner = audit_.slice_buffer(std::max<std::uint64_t>(1, length));
    slice.bytes = slice.owner->view(0, length);
    targets.emplace_back(i, slice.owner->view(0, length));
  }
  const bool right = co_await runtime_.offload([&] {
    const ErasureCode& code = ErasureCode::of(placed.k, placed.m);
    return std::ranges::all_of(targets, [&](const auto& target) {
      return code.reconstruct(present, target.first, manifest.slice_length, target.second) &&
             merkle_root(target.second) == manifest.roots[target.first];
    });
  });
  if (!right) {
    ++report_.unrepairable;
    note_problem(placed,
                 "its slices verify one by one but do not belong together: what would be rebuilt is wrong");
  }
  co_return right;
}

// Puts these slices (their bytes are in `audited`) on miners; empty when it could not be done now.
Task<std::vector<MinerId>> Repairer::put_slices(const change::Placed& placed, const AuditedSegment& audited,
                                                std::vector<std::uint16_t> which, bool same_miner_first,
                                                std::vector<MinerId> avoid) {
  UploadPlan plan;
  plan.volume = volume_;
  plan.segment = placed.segment;
  plan.m = placed.m;
  plan.manifest = std::make_shared<const Bytes>(audited.manifest->encode());
  plan.miners = placed.miners;
  plan.request_deadline = request_deadline_;
  plan.once = true;
  plan.avoid = std::move(avoid);
  for (const std::uint16_t index : which) {
    SliceSource source;
    source.index = index;
    source.data = audited.slices[index].bytes;
    source.owner = audited.slices[index].owner;
    // A miner that answers verifies what it has when it is given the slice again, and replaces a rotten one.
    if (same_miner_first && audited.slices[index].state != SliceState::unreached)
      source.preferred = placed.miners[index];
    plan.miners[index] = MinerId{};
    plan.slices.push_back(std::move(source));
  }
  auto put = co_await upload_slices(runtime_, transport_, eligible_, std::move(plan), stopping_, never_);
  if (put) co_return *std::move(put);
  note_problem(placed, put.error().message());
  co_return std::vector<MinerId>();
}

std::vector<std::uint16_t> Repairer::missing_of(const change::Placed& placed,
                                                const AuditedSegment& audited) const {
  std::vector<std::uint16_t> missing;
  for (const std::uint16_t i : slice_indices(placed.miners.size()))
    if (audited.slices[i].state != SliceState::good) missing.push_back(i);
  return missing;
}

// A crowded segment, when there are miners enough: the second and later slices on one miner go to others, and
// so does all that a draining miner holds. The old copies stay where they are; nobody refers to them any
// more.
Task<void> Repairer::spread(const change::Placed& placed, const AuditedSegment& audited,
                            std::vector<MinerId>& miners) {
  std::vector<std::uint16_t> moving;
  std::vector<MinerId> kept;
  for (const std::uint16_t i : slice_indices(miners.size())) {
    if (std::ranges::find(kept, miners[i]) != kept.end() || eligible_.draining(miners[i]))
      moving.push_back(i);
    else
      kept.push_back(miners[i]);
  }
  if (moving.empty()) co_return;
  std::vector<MinerId> trial = miners;
  for (const std::uint16_t index : moving) trial[index] = MinerId{};
  const auto wider = place(volume_, placed.segment, placed.m, std::move(trial), eligible_.candidates());
  if (!wider || wider->crowded) {  // too few miners still
    if (list_is_wide_enough(placed))
      unspread_.insert(placed.segment);
    else if (std::ranges::any_of(miners, [&](const MinerId& id) { return eligible_.draining(id); }))
      undrained_.insert(placed.segment);
    co_return;
  }
  change::Placed now = placed;
  now.miners = miners;
  const std::size_t count = moving.size();
  std::vector<MinerId> nobody;
  std::vector<MinerId> moved = co_await put_slices(now, audited, std::move(moving), false, std::move(nobody));
  if (moved.empty()) co_return;
  report_.spread += count;
  miners = std::move(moved);
  if (is_crowded(miners)) unspread_.insert(placed.segment);
}

// Would every slice have a miner of its own if all that the owner lists were well?
bool Repairer::list_is_wide_enough(const change::Placed& placed) const {
  std::vector<Candidate> all;
  for (const MinerEntry& entry : transport_.miners())
    if (entry.weight > 0) all.push_back({entry.id, entry.domain, entry.weight});
  const auto best = place(volume_, placed.segment, placed.m, std::vector<MinerId>(placed.miners.size()), all);
  return best && !best->crowded;
}

void Repairer::note_unspread() {
  if (!undrained_.empty())
    report_.problems.push_back(format(
        "{} segments stay on miners that drain: without them the list has no miner for each slice; add "
        "miners and repair again",
        undrained_.size()));
  report_.unspread = unspread_.size();
  if (unspread_.empty()) return;
  std::string why;
  for (const MinerEntry& miner : transport_.miners()) {
    const std::string reason = eligible_.why_not(miner.id);
    if (!reason.empty()) why += format("{}miner {} {}", why.empty() ? "" : ", ", miner.id.brief(), reason);
  }
  report_.problems.push_back(
      format("{} segments could not be given a miner for each slice: {}; repair again when that has changed",
             unspread_.size(), why.empty() ? "miners failed meanwhile" : why));
}

void Repairer::note_problem(const change::Placed& placed, std::string_view problem) {
  if (report_.problems.size() < kProblemsMax)
    report_.problems.push_back(format("{}: {}", name_of(placed.segment), problem));
}

}  // namespace cumulus
