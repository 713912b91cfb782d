#include "objectstore/store/repairer.h"

#include <algorithm>
#include <numeric>

#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/crypto/merkle.h"
#include "objectstore/erasure/codec.h"
#include "objectstore/store/segment_name.h"
#include "objectstore/store/slice_upload.h"

namespace cumulus {
namespace {

constexpr unsigned kParallel = 2;
constexpr std::size_t kProblemsMax = 100;

}  // namespace

Repairer::Repairer(Runtime& runtime, Index& index, SliceTransport& transport, VolumeId volume,
                   Duration request_deadline, Note note)
    : runtime_(runtime),
      index_(index),
      transport_(transport),
      volume_(volume),
      request_deadline_(request_deadline),
      note_(std::move(note)),
      eligible_(runtime, transport),
      audit_(runtime, transport, volume, request_deadline),
      never_(runtime) {}

Task<Result<RepairReport>> Repairer::repair(Progress progress) {
  report_ = {};
  failure_.reset();
  next_ = done_ = 0;
  stopping_ = false;
  co_await eligible_.refresh(runtime_.now() + request_deadline_);
  CO_TRY(segments_, co_await order_by_danger());
  report_.segments = segments_.size();
  TaskGroup workers(runtime_);
  for (unsigned i = 0; i < kParallel; ++i) workers.spawn(work(progress));
  co_await workers.join();
  segments_.clear();
  if (failure_) co_return fail(*failure_);
  if (stopping_) co_return fail(ErrorKind::closed, "interrupted");
  co_return std::move(report_);
}

Task<Result<std::vector<change::Placed>>> Repairer::order_by_danger() {
  CO_TRY(std::vector<change::Placed> segments, co_await placed_segments(index_));
  const std::vector<std::uint32_t> missing = co_await audit_.count_missing(segments);
  std::vector<std::size_t> order(segments.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, [&](std::size_t a, std::size_t b) {
    return missing[a] != missing[b] ? missing[a] > missing[b] : a < b;
  });
  std::vector<change::Placed> sorted;
  sorted.reserve(order.size());
  for (const std::size_t i : order) sorted.push_back(std::move(segments[i]));
  co_return sorted;
}

Task<void> Repairer::work(const Progress& progress) {
  while (!stopping_ && !failure_ && next_ < segments_.size()) {
    co_await repair_segment(segments_[next_++]);
    ++done_;
    if (progress && !progress(done_, segments_.size())) stopping_ = true;
  }
}

Task<void> Repairer::repair_segment(change::Placed placed) {
  AuditedSegment audited = co_await audit_.examine(placed);
  const std::size_t good = audited.count(SliceState::good);
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
    miners = co_await put_slices(placed, audited, missing_of(placed, audited), true);
    if (miners.empty()) co_return;
    report_.rebuilt += audited.slices.size() - good;
  }
  co_await spread(placed, audited, miners);
  if (miners == placed.miners) co_return;
  placed.miners = std::move(miners);
  const Status noted = co_await note_(placed);
  if (!noted) failure_ = noted.error();
}

// Fills in the bytes of every slice that is not good, and believes them only when their root is the
// manifest's.
Task<bool> Repairer::rebuild(const change::Placed& placed, AuditedSegment& audited) {
  std::vector<PresentSlice> present;
  for (std::uint16_t i = 0; i < audited.slices.size() && present.size() < placed.k; ++i)
    if (audited.slices[i].state == SliceState::good) present.push_back({i, audited.slices[i].bytes});
  const Manifest& manifest = *audited.manifest;
  std::vector<std::pair<std::uint16_t, MutableByteView>> targets;
  for (std::uint16_t i = 0; i < audited.slices.size(); ++i) {
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
                                                std::vector<std::uint16_t> which, bool same_miner_first) {
  UploadPlan plan;
  plan.volume = volume_;
  plan.segment = placed.segment;
  plan.m = placed.m;
  plan.manifest = std::make_shared<const Bytes>(audited.manifest->encode());
  plan.miners = placed.miners;
  plan.request_deadline = request_deadline_;
  plan.once = true;
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
  for (std::uint16_t i = 0; i < placed.miners.size(); ++i)
    if (audited.slices[i].state != SliceState::good) missing.push_back(i);
  return missing;
}

// A crowded segment, when there are miners enough: the second and later slices on one miner go to others. The
// old copies stay where they are; nobody refers to them any more.
Task<void> Repairer::spread(const change::Placed& placed, const AuditedSegment& audited,
                            std::vector<MinerId>& miners) {
  if (!is_crowded(miners)) co_return;
  std::vector<std::uint16_t> doubled;
  std::vector<MinerId> kept;
  for (std::uint16_t i = 0; i < miners.size(); ++i) {
    if (std::ranges::find(kept, miners[i]) != kept.end())
      doubled.push_back(i);
    else
      kept.push_back(miners[i]);
  }
  std::vector<MinerId> trial = miners;
  for (const std::uint16_t index : doubled) trial[index] = MinerId{};
  const auto wider = place(volume_, placed.segment, placed.m, std::move(trial), eligible_.candidates());
  if (!wider || wider->crowded) co_return;  // too few miners still
  change::Placed now = placed;
  now.miners = miners;
  std::vector<MinerId> moved = co_await put_slices(now, audited, doubled, false);
  if (moved.empty()) co_return;
  report_.spread += doubled.size();
  miners = std::move(moved);
}

void Repairer::note_problem(const change::Placed& placed, std::string_view problem) {
  if (report_.problems.size() < kProblemsMax)
    report_.problems.push_back(format("{}: {}", name_of(placed.segment), problem));
}

}  // namespace cumulus
