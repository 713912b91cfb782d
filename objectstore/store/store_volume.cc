#include "objectstore/store/store_volume.h"

#include <algorithm>
#include <set>
#include <utility>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/store/checker.h"
#include "objectstore/store/repairer.h"
#include "objectstore/store/segment_audit.h"
#include "objectstore/store/slice_upload.h"

namespace cumulus {
namespace {

// How long closing waits for the holders to note that it was clean.
constexpr Duration kFarewell = std::chrono::seconds(2);
constexpr Duration kPatienceOfDrain = std::chrono::seconds(30);

}  // namespace

StoreVolume::StoreVolume(VolumeParts parts, VolumeOptions options)
    : parts_(std::move(parts)),
      transport_(parts_.transport),
      asked_(parts_.transport),
      options_(options),
      id_(parts_.keys.volume_id()),
      home_(parts_.disk, parts_.directory),
      list_turn_(parts_.runtime, 1),
      mark_turn_(parts_.runtime, 1),
      house_(parts_.runtime),
      tasks_(parts_.runtime) {}

StoreVolume::~StoreVolume() = default;

// --- objects ---

Task<Result<Commit>> StoreVolume::commit(Transaction transaction) {
  return committer_->commit(std::move(transaction));
}
Task<Result<std::optional<ObjectStat>>> StoreVolume::stat(View view, ObjectId object) {
  return index_->stat(std::move(view), object);
}
Task<Result<std::size_t>> StoreVolume::read(View view, ObjectId object, std::uint64_t offset,
                                            MutableByteView into, Warming warming) {
  return reader_->read(std::move(view), object, offset, into, warming);
}
bool StoreVolume::try_read(const View& view, ObjectId object, std::uint64_t offset, MutableByteView into,
                           Result<std::size_t>& answer) {
  return reader_->try_read(view, object, offset, into, answer);
}

Task<Result<std::vector<Volume::Stretch>>> StoreVolume::stretches(View view, ObjectId object,
                                                                  std::uint64_t offset,
                                                                  std::uint64_t length) {
  CO_TRY(const auto extents, co_await index_->extents(std::move(view), object, offset, length));
  std::vector<Stretch> all;
  for (const Extent& extent : extents) {
    const auto kind = extent.kind == Extent::Kind::data   ? Stretch::Kind::data
                      : extent.kind == Extent::Kind::zero ? Stretch::Kind::zero
                                                          : Stretch::Kind::hole;
    if (!all.empty() && all.back().kind == kind) {
      all.back().length += extent.length;
    } else {
      all.push_back({extent.offset, extent.length, kind});
    }
  }
  co_return all;
}

Task<Result<std::optional<std::uint64_t>>> StoreVolume::next_written(View view, ObjectId object,
                                                                     std::uint64_t offset) {
  return index_->next_written(std::move(view), object, offset);
}
Task<Result<std::optional<Bytes>>> StoreVolume::xattr(View view, ObjectId object, Bytes name) {
  return index_->xattr(std::move(view), object, std::move(name));
}
Task<Result<std::vector<OmapEntry>>> StoreVolume::xattrs(View view, ObjectId object) {
  return index_->xattrs(std::move(view), object);
}
Task<Result<std::optional<Bytes>>> StoreVolume::omap(View view, ObjectId object, Bytes key) {
  return index_->omap(std::move(view), object, std::move(key));
}
Task<Result<std::vector<OmapEntry>>> StoreVolume::omap_list(View view, ObjectId object,
                                                            std::optional<Bytes> after, std::size_t limit) {
  return index_->omap_list(std::move(view), object, std::move(after), limit);
}
Task<Result<std::vector<ObjectId>>> StoreVolume::diff_objects(View older, View newer, ObjectId after,
                                                              std::size_t limit) {
  return index_->diff_objects(std::move(older), std::move(newer), after, limit);
}
Task<Result<std::vector<Volume::Range>>> StoreVolume::diff_ranges(View older, View newer, ObjectId object,
                                                                  std::uint64_t offset,
                                                                  std::uint64_t length) {
  CO_TRY(const auto ranges,
         co_await index_->diff_ranges(std::move(older), std::move(newer), object, offset, length));
  std::vector<Range> all;
  all.reserve(ranges.size());
  for (const auto& range : ranges) all.push_back({range.offset, range.length});
  co_return all;
}

// --- durability ---

Task<Status> StoreVolume::flush(Durability level, Progress progress) {
  if (level != Durability::remote) co_return co_await wait(Commit{committer_->accepted()}, level);
  const LogPosition data = committer_->accepted_data();
  CO_TRY_OK(co_await committer_->durable(data));
  co_return co_await remote(data, progress);
}

Task<Status> StoreVolume::wait(Commit commit, Durability level, Progress progress) {
  if (level == Durability::accepted) co_return co_await committer_->written(commit.position);
  CO_TRY_OK(co_await committer_->durable(commit.position));
  if (level == Durability::local) co_return Status();
  co_return co_await remote(commit.position, progress);
}

std::optional<Error> StoreVolume::loss() const {
  if (log_->failure() && log_->durable() < log_->written()) return log_->failure();
  const std::optional<Error>& failure = committer_->failure();
  if (!failure) return std::nullopt;
  const bool taken_over = failure->kind() == ErrorKind::fenced;
  if (committer_->lost() || (taken_over && tail_->remote_tail().position < committer_->accepted_data()))
    return failure;
  return std::nullopt;
}

// Remote: the accepted tail covers the position. What is still in the open segment is sealed early.
Task<Status> StoreVolume::remote(LogPosition position, const Progress& progress) {
  if (tail_->remote_tail().position >= position) co_return Status();
  if (pusher_->stored().position < position) CO_TRY_OK(co_await log_->seal());
  co_return co_await pusher_->wait_remote(position, progress);
}

// What only the network can give back is waited for; a disk that refuses is told.
Status StoreVolume::room_for(std::uint64_t bytes) const {
  if (slots_->has_room_for(bytes)) return {};
  if (const Error* refusal = slots_->refusal()) return fail(*refusal);
  return fail(ErrorKind::unavailable, "the local log is full of what the miners do not have yet");
}

void StoreVolume::segment_sealed(SealedSegment segment) {
  unplaced_.insert(segment.header.id.sequence);
  replay_marks_.push_back(
      {segment.header.id.sequence, segment.chain, segment.last_group, segment.last_group_tag});
  pusher_->push(std::move(segment));
}

// A segment is on k+m miners: write it down, and let it leave the disk once that is durable in the index.
Task<Status> StoreVolume::segment_stored(change::Placed placed) {
  const SegmentId segment = placed.segment;
  // Only the counters want to know, and what is not noted keeps its place on the disk until a restart.
  const auto known = co_await index_->placed(segment);
  if (known && !*known) {  // else it was sent again: its note was there when this opening counted
    ++stored_segments_;
    stored_bytes_ += placed.length;
  }
  const Committer::BuildChanges build = [&]() -> Result<std::vector<Change>> {
    return std::vector<Change>{placed};
  };
  const auto noted = co_await committer_->commit_changes(build, true);
  if (!noted) co_return fail(noted.error());
  evictable_.push_back({segment, noted->position});
  co_return Status();
}

Task<Result<std::shared_ptr<const Buffer>>> StoreVolume::load_segment(SealedSegment segment) {
  const auto slot = slots_->lookup(segment.header.id, 0, segment.length);
  if (!slot)
    co_return fail(ErrorKind::not_found,
                   format("log segment {} is not on the local disk any more", segment.header.id.sequence));
  auto read = co_await slot->read(0, segment.length);
  if (!read) co_return fail(read.error());
  // The pusher wants the bytes at the buffer's beginning.
  if (read->owner->data() == read->bytes.data()) co_return read->owner;
  auto copy = std::make_shared<Buffer>(segment.length);
  copy_bytes(read->bytes, copy->data());
  co_return copy;
}

Task<Result<bool>> StoreVolume::compare_bytes(const Transaction::Body::Compare& compare) {
  const DatasetInfo* info = index_->dataset(compare.object.dataset);
  if (info == nullptr)
    co_return fail(ErrorKind::not_found, format("dataset {} does not exist", compare.object.dataset));
  Bytes have(compare.expected.size());
  CO_TRY(const std::size_t got,
         co_await reader_->read(info->head, compare.object.object, compare.offset, have, Warming::small));
  have.resize(got);
  co_return have == compare.expected;
}

// What the durable index and the accepted tail have passed: stored segments may leave the disk, and replay
// begins later. A restart must find every segment beyond the tail, to offer it again: what it cannot find
// would stop the tail for good, and one whose Placed change was lost is found by nobody else.
void StoreVolume::release_stored() {
  while (!evictable_.empty() && evictable_.front().placed_at <= index_->durable() &&
         evictable_.front().segment.sequence <= tail_->accepted().tail.through.sequence) {
    slots_->mark_stored(evictable_.front().segment);
    unplaced_.erase(evictable_.front().segment.sequence);
    evictable_.pop_front();
  }
}

bool StoreVolume::may_begin_later() const {
  return replay_marks_.size() > 1 && replay_marks_[1].last_group <= index_->durable() &&
         !unplaced_.contains(replay_marks_[1].sequence);
}

// Again and again when the disk refuses: until the mark is saved nothing that is behind it can leave the
// cache.
Task<Status> StoreVolume::begin_later() {
  while (may_begin_later()) replay_marks_.pop_front();
  if (replay_marks_.front().sequence != saved_mark_) CO_TRY_OK(co_await save_replay_start());
  co_return Status();
}

Task<void> StoreVolume::keep_house() {
  bool told = false;  // once a trouble, however often it is tried
  const auto tell = [&told](std::string_view what, const Error& error) {
    if (!std::exchange(told, true)) log_warn("{}: {}", what, error.message());
  };
  while (!closing_) {
    release_stored();
    Status saved = co_await begin_later();
    if (!saved) tell("the replay mark cannot be saved", saved.error());
    // When the disk is short of room the index need not wait for its own pace.
    const SlotStats slots = slots_->stats();
    const bool tight = slots.dirty_bytes + (64u << 20) > slots.budget_bytes / 2;
    if (tight && !evictable_.empty() && index_->durable() < log_->durable()) {
      Status flushed = co_await index_->flush();
      if (!flushed)
        tell("the index cannot be flushed", flushed.error());
      else if (saved)
        told = false;
    }
    if (const auto since = log_->waiting_since()) {
      const Duration waited = parts_.runtime.now() - *since;
      const bool enough = waited >= options_.seal_after && log_->open_bytes() >= options_.seal_bytes_min;
      if (enough || waited >= options_.seal_after_max) {
        if (Status sealed = co_await log_->seal(); !sealed)
          log_warn("sealing failed: {}", sealed.error().message());
      }
    }
    if (!closing_) co_await house_.wait_until(parts_.runtime.now() + std::chrono::milliseconds(500));
  }
}

void StoreVolume::fenced(const Error& reason) {
  read_only_reason_ = reason.message();
  if (committer_) committer_->refuse(reason);
}

// --- care ---

Task<Result<VolumeStatus>> StoreVolume::status(bool ask_miners) {
  VolumeStatus status;
  status.id = id_;
  status.shape = shape_;
  status.epoch = epoch_;
  status.read_only_reason = read_only_reason_.empty() && committer_->failure()
                                ? committer_->failure()->message()
                                : read_only_reason_;
  status.writable = status.read_only_reason.empty();
  status.used = stored_bytes_;
  for (const DatasetInfo* info : index_->datasets()) {
    if (info->type == DatasetType::image) status.disks_uncounted = true;
    const auto tree = info->trees.find(0);
    if (tree != info->trees.end() && tree->second.bytes > 0)
      status.live += static_cast<std::uint64_t>(tree->second.bytes);
  }
  status.dirty = pusher_->dirty_bytes() + (log_->waiting_since() ? log_->open_bytes() : 0);
  status.garbage = status.used + status.dirty - std::min(status.live, status.used + status.dirty);
  status.segments = stored_segments_;
  status.accepted = committer_->accepted();
  status.written = log_->written();
  status.durable = log_->durable();
  status.tail = tail_->remote_tail();
  status.remote = status.tail.position;
  status.recovered = recovered_;
  const auto holders = static_cast<std::uint32_t>(tail_->accepted().holders.size());
  status.quorum = {holders, QuorumShape::quorum_of(holders, shape_.m)};
  const SlotStats slots = slots_->stats();
  status.cache_bytes = slots.dirty_bytes + slots.clean_bytes;
  if (!ask_miners) co_return status;
  CO_TRY(status.segments_crowded, co_await count_crowded());
  CO_TRY_OK(co_await count_degraded(status));

  TaskGroup asking(parts_.runtime);
  status.miners.resize(transport_.miners().size());
  for (std::size_t i = 0; i < status.miners.size(); ++i) {
    status.miners[i].entry = transport_.miners()[i];
    asking.spawn([this, &status, i]() -> Task<void> {
      MinerHealth& health = status.miners[i];
      auto answer = co_await asked_.status(health.entry.id, parts_.runtime.now() + std::chrono::seconds(5));
      health.answers = answer.has_value();
      if (answer) health.status = std::move(*answer);
      if (!answer) health.error = answer.error().message();
    });
  }
  co_await asking.join();
  std::uint64_t capacity = 0;
  std::uint64_t free = 0;
  for (const MinerHealth& miner : status.miners) {
    capacity += miner.answers ? miner.status.capacity : miner.entry.capacity;
    if (miner.answers && miner.status.capacity > miner.status.used)
      free += miner.status.capacity - miner.status.used;
  }
  const std::uint64_t n = std::uint64_t{shape_.k} + shape_.m;
  status.capacity = capacity / n * shape_.k;
  status.free = free / n * shape_.k;
  co_return status;
}

// Segments with a slice that its miner does not show, or that the last check or repair saw to be wrong.
Task<Status> StoreVolume::count_degraded(VolumeStatus& status) {
  CO_TRY(std::vector<change::Placed> placed, co_await placed_segments(*index_));
  SegmentAudit audit(parts_.runtime, asked_, id_,
                     std::min<Duration>(options_.request_deadline, std::chrono::seconds(5)));
  const std::vector<std::uint32_t> missing = co_await audit.count_missing(placed);
  for (std::size_t i = 0; i < placed.size(); ++i)
    if (missing[i] > 0 || damaged_.contains(placed[i].segment)) ++status.segments_degraded;
  co_return Status();
}

Task<Result<CheckReport>> StoreVolume::check(bool with_data, Progress progress) {
  Checker checker(parts_.runtime, *index_, asked_, id_, options_.request_deadline);
  auto report = co_await checker.check(with_data, std::move(progress));
  if (with_data && report) damaged_ = checker.damaged();
  co_return report;
}

Task<Result<RepairReport>> StoreVolume::repair(RepairOptions options, Progress progress) {
  if (!read_only_reason_.empty()) co_return fail(ErrorKind::fenced, read_only_reason_);
  if (repairing_)
    co_return fail(ErrorKind::exists, "another repair of this volume is under way: wait until it is through");
  repairing_ = true;
  Repairer::Note note = [this](change::Placed placed) -> Task<Status> {
    return commit_one(std::move(placed));
  };
  Repairer::Keep keep = [this](std::optional<SegmentId> through) -> Task<void> {
    return keep_repair_position(through);
  };
  // What is on its way to a miner that drains is not seen by a repair that begins before it has arrived.
  const bool drains =
      std::ranges::any_of(transport_.miners(), [](const auto& miner) { return miner.weight <= 0; });
  if (drains && !co_await pusher_->wait_for_those_under_way(kPatienceOfDrain))
    log_info("a drain begins although segments are still on their way");
  std::optional<SegmentId> after;
  if (!options.restart) after = co_await load_repair_position();
  Repairer repairer(parts_.runtime, *index_, asked_, id_, options_.request_deadline, std::move(note),
                    std::move(keep));
  auto report = co_await repairer.repair(after, std::move(progress));
  if (report) damaged_ = repairer.damaged();
  repairing_ = false;
  co_return report;
}

std::string StoreVolume::obstacle() const {
  if (slots_->refusal() != nullptr && (slots_->awaited() || committer_->awaits_room()))
    return slots_->refusal()->message();
  return pusher_->dirty_bytes() == 0 ? "" : pusher_->obstacle();
}

Task<Status> StoreVolume::drop_cache() {
  // Only what the durable index has passed may go: make it durable first, so that all that is stored goes.
  CO_TRY_OK(co_await committer_->durable(committer_->accepted()));
  CO_TRY_OK(co_await index_->flush());
  release_stored();
  Status saved = co_await begin_later();
  if (!saved && saved.error().kind() == ErrorKind::no_space) {
    // Who drops a cache may well do so because the disk is full: first what goes without a new mark.
    slots_->drop_clean();
    saved = co_await begin_later();
  }
  CO_TRY_OK(saved);
  cells_->forget_recent();
  slots_->drop_clean();
  co_return Status();
}

void StoreVolume::set_options(const VolumeOptions& options) {
  options_ = options;
  committer_->set_options(options);
  reader_->set_options(options);
  slots_->set_budget(options.cache_bytes);
}

void StoreVolume::stop_waiting() {
  if (fetcher_) fetcher_->stop();
  if (pusher_) pusher_->stop_waiting();
  if (tail_) tail_->stop_waiting();
  asked_.end(Calls::asked);
}

Task<Status> StoreVolume::close() {
  Status status;
  const auto keep_first = [&status](Status next) {
    if (status && !next) status = std::move(next);
  };
  if (committer_ && !committer_->failure()) keep_first(co_await committer_->durable(committer_->accepted()));
  if (pusher_ && status && read_only_reason_.empty()) co_await mark_closed();
  closing_ = true;
  house_.notify_all();
  // What is under way at miners is of no use any more: the log is whole, and the next opening goes on.
  if (fetcher_) fetcher_->stop();
  asked_.end(Calls::all);
  transport_.end(Calls::all);
  if (pusher_) co_await pusher_->close();
  if (tail_) co_await tail_->close();
  if (committer_) {
    const Status committed = co_await committer_->close();
    if (read_only_reason_.empty()) keep_first(committed);
  }
  co_await tasks_.join();
  if (cells_) co_await cells_->close();
  if (log_) keep_first(co_await log_->close());
  if (fetcher_) co_await fetcher_->close();
  if (index_) keep_first(co_await index_->close());
  barrier_.attach(nullptr);
  if (slots_) co_await slots_->close();
  co_return status;
}

// Closed cleanly: another home may then open without stealing. Only when everything is Remote, and never
// waited for long.
Task<void> StoreVolume::mark_closed() {
  if (tail_->wanted_tail().position >= committer_->accepted_data() && tail_->claimed())
    co_await tell_closed();
}

Task<void> StoreVolume::tell_closed() {
  const Status settled = co_await tail_->close_cleanly(kFarewell);
  if (!settled) log_warn("the miners were not told that the volume is closed: {}", settled.error().message());
}

Task<Result<std::uint64_t>> StoreVolume::count_crowded() {
  std::uint64_t crowded = 0;
  for (Sequence after = 0;;) {
    CO_TRY(const auto page, co_await index_->placed_list(SegmentKind::log, after, 4096));
    for (const PlacedSegment& segment : page) {
      if (is_crowded(segment.placed.miners)) ++crowded;
      after = segment.placed.segment.sequence;
    }
    if (page.size() < 4096) co_return crowded;
  }
}

}  // namespace cumulus
