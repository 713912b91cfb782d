#include "objectstore/store/checker.h"

#include "objectstore/base/format.h"
#include "objectstore/store/segment_name.h"

namespace cumulus {
namespace {

constexpr unsigned kParallel = 2;

}  // namespace

Checker::Checker(Runtime& runtime, Index& index, SliceTransport& transport, VolumeId volume,
                 Duration request_deadline)
    : index_(index), runtime_(runtime), audit_(runtime, transport, volume, request_deadline) {}

Task<Result<CheckReport>> Checker::check(bool with_data, Progress progress) {
  report_ = {};
  damaged_.clear();
  interrupted_ = false;
  next_ = done_ = 0;
  const Status index_sound = co_await index_.check([&](std::uint64_t rows) {
    report_.rows = rows;
    if (progress && !progress(rows, 0)) interrupted_ = true;
  });
  if (!index_sound) note_problem("index: " + index_sound.error().message());
  CO_TRY(segments_, co_await placed_segments(index_));
  report_.segments = segments_.size();
  if (with_data && !interrupted_) {
    TaskGroup workers(runtime_);
    for (unsigned i = 0; i < kParallel; ++i) workers.spawn(work(progress));
    co_await workers.join();
  }
  segments_.clear();
  if (interrupted_) co_return fail(ErrorKind::closed, "interrupted");
  co_return std::move(report_);
}

Task<void> Checker::work(const Progress& progress) {
  while (!interrupted_ && next_ < segments_.size()) {
    change::Placed placed = segments_[next_++];
    const AuditedSegment audited = co_await audit_.examine(placed);
    note_segment(placed, audited);
    ++done_;
    if (progress && !progress(done_, segments_.size())) interrupted_ = true;
  }
}

void Checker::note_segment(const change::Placed& placed, const AuditedSegment& audited) {
  report_.slices += audited.slices.size();
  for (std::size_t i = 0; i < audited.slices.size(); ++i) {
    const AuditedSlice& slice = audited.slices[i];
    if (slice.state == SliceState::good) continue;
    // A miner that cannot be asked counts as missing: nobody knows better.
    if (slice.state == SliceState::wrong) damaged_.insert(placed.segment);
    ++(slice.state == SliceState::wrong ? report_.slices_wrong : report_.slices_missing);
    const bool known = placed.miners[i] != MinerId{};
    note_problem(format("{}: slice {}{} is {}: {}", name_of(placed.segment), i,
                        known ? " on miner " + placed.miners[i].brief() : "", to_string(slice.state),
                        slice.detail));
  }
  if (audited.count(SliceState::good) < placed.k)
    note_problem(format("{}: only {} good slices could be read, {} are needed: its data cannot be read now",
                        name_of(placed.segment), audited.count(SliceState::good), placed.k));
}

void Checker::note_problem(std::string problem) {
  if (report_.problems.size() < kProblemsMax) report_.problems.push_back(std::move(problem));
}

}  // namespace cumulus
