#include "objectstore/store/log_replayer.h"

#include "objectstore/base/format.h"
#include "objectstore/log/replay.h"

namespace cumulus {
namespace {
constexpr std::size_t kFetchAhead = 3;
}

LogReplayer::LogReplayer(Runtime& runtime, const KeyTree& keys, SliceFetcher& fetcher, SlotStore& slots,
                         Index& index)
    : runtime_(runtime), keys_(keys), fetcher_(fetcher), slots_(slots), index_(index) {}

std::shared_ptr<LogReplayer::Ahead> LogReplayer::start_fetch(TaskGroup& tasks,
                                                             const Inventory::Segment& segment,
                                                             FetchTrust trust,
                                                             std::optional<Duration> patience) {
  auto ahead = std::make_shared<Ahead>(runtime_);
  const change::Placed placed = segment.placed();
  tasks.spawn([this, ahead, placed, trust, patience]() -> Task<void> {
    ahead->fetched = co_await fetcher_.fetch(placed, 0, placed.length, trust, patience);
    ahead->ended = true;
    ahead->done.notify_all();
  });
  return ahead;
}

Task<Status> LogReplayer::replay(std::vector<const Inventory::Segment*> segments,
                                 std::optional<Duration> patience, Progress progress) {
  // What the index has already is neither fetched nor opened.
  std::erase_if(segments, [&](const Inventory::Segment* segment) {
    return segment->manifest.last_group <= index_.applied();
  });
  TaskGroup tasks(runtime_);
  std::deque<std::shared_ptr<Ahead>> ahead;
  std::size_t next = 0;
  Status status;
  for (std::size_t i = 0; i < segments.size() && status; ++i) {
    for (; next < segments.size() && ahead.size() < kFetchAhead; ++next)
      ahead.push_back(start_fetch(tasks, *segments[next], FetchTrust::plain, patience));
    const auto current = ahead.front();
    ahead.pop_front();
    while (!current->ended) co_await current->done.wait();
    const Inventory::Segment& segment = *segments[i];
    const change::Placed placed = segment.placed();
    if (!current->fetched) {
      status = fail(current->fetched.error());
      break;
    }
    std::shared_ptr<const Buffer> bytes = current->fetched->owner;
    status = co_await replay_one(segment, bytes);
    const bool wrong = !status && (status.error().kind() == ErrorKind::corrupt ||
                                   status.error().kind() == ErrorKind::unsupported);
    if (wrong) {
      // Some miner lied, or so it seems: again, with proofs.
      auto proven = co_await fetcher_.fetch(placed, 0, placed.length, FetchTrust::proven, patience);
      if (!proven) {
        status = fail(proven.error());
        break;
      }
      bytes = proven->owner;
      status = co_await replay_one(segment, bytes);
    }
    if (!status) break;
    last_ = &segment;
    co_await slots_.admit_whole(placed.segment, bytes, placed.length);
    if (progress && !progress(i + 1, segments.size())) status = fail(ErrorKind::closed, "interrupted");
  }
  co_await tasks.join();
  co_return status;
}

Task<Status> LogReplayer::replay_one(const Inventory::Segment& segment, std::shared_ptr<const Buffer> bytes) {
  const Manifest& manifest = segment.manifest;
  const auto visit = [this](const ReplayedGroup& group) -> Task<Status> {
    if (group.header.number <= index_.applied()) co_return Status();
    auto changes = decode_changes(group.records, group.area);
    if (!changes) co_return fail(changes.error());
    co_return co_await index_.replay(group.header.number, std::move(*changes));
  };
  // The index takes nothing of bytes that are not the manifest's.
  const ScanCheck agree = [&manifest](const SegmentScan& scan) -> Status {
    if (scan.header == manifest.header && scan.bad_at == 0 && scan.last_group == manifest.last_group &&
        scan.last_group_tag == manifest.last_group_tag)
      return {};
    return fail(ErrorKind::corrupt, format("log segment {}/{} is not what its manifest says",
                                           manifest.id().epoch, manifest.id().sequence));
  };
  const auto scan = co_await scan_segment(runtime_, keys_, bytes, manifest.segment_length, std::nullopt,
                                          index_.applied(), true, visit, agree);
  if (!scan) co_return fail(scan.error());
  co_return Status();
}

}  // namespace cumulus
