#include "objectstore/log/log_writer.h"

#include <algorithm>
#include <deque>
#include <map>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/io/sync.h"
#include "objectstore/log/open_segment.h"
#include "objectstore/log/sync_barrier.h"
#include "objectstore/log/undurable_segment.h"

namespace cumulus {
namespace {

// Below it, waking a worker costs more than the cipher.
constexpr std::uint32_t kInlineSealMax = 128u << 10;
// Segments whose bytes are not all durable yet; a writer that would start one more waits.
constexpr std::size_t kUndurableSegmentsMax = 4;
// Small groups behind a write in flight wait for its end and go together.
constexpr std::uint32_t kSmallWriteMax = 128u << 10;
// Ahead of small groups that are synced one by one, a segment file is filled with zeros for so many bytes.
// Where the file system has never written it must note, with its journal, what each of them made true:
// measured on ext4, a 4 KiB append and fdatasync takes two thirds of the time and half of the processor over
// bytes that exist.
constexpr std::uint32_t kZeroAhead = 256u << 10;
constexpr Duration kSyncInterval = std::chrono::seconds(1);

class LogWriterImpl final : public LogWriter {
 public:
  LogWriterImpl(Runtime& runtime, SegmentFiles& files, const KeyTree& keys, VolumeId volume, LogStart start,
                LogOptions options, Metrics& metrics, SealedSink sink);
  ~LogWriterImpl() override;

  Task<Result<WrittenGroup>> append(GroupDraft draft) override;
  Task<Status> make_durable(LogPosition position) override;
  Status make_durable_blocking() override { return barrier_.sync_all_blocking(); }
  Task<Status> seal() override;
  Task<Status> close() override;

  const std::optional<Error>& failure() const override { return failure_; }
  LogPosition written() const override { return written_; }
  LogPosition durable() const override { return durable_; }
  std::uint64_t open_bytes() const override;
  std::optional<TimePoint> waiting_since() const override { return waiting_since_; }
  std::shared_ptr<const Buffer> memory_of(const SegmentId& segment) const override;
  std::optional<SegmentHeader> header_of(const SegmentId& segment) const override;
  std::uint32_t group_room() const override {
    return OpenSegment::room(options_.segment_size, files_.align_log2());
  }

 private:
  using Segment = UndurableSegment;
  using SegmentPtr = std::shared_ptr<Segment>;
  struct Recent {
    SegmentHeader header;
    std::weak_ptr<const Buffer> memory;
  };

  Status check_open() const;
  Task<Status> start_segment(bool bookkeeping);
  void seal_open();
  OpenSegment::Place reserve(const GroupDraft& draft, std::uint32_t cells_length);
  bool can_issue(const Segment& segment) const;
  Task<void> issue(SegmentPtr segment);
  bool goes_through(const Segment& segment, std::uint32_t begin, std::uint32_t end) const;
  Task<Status> write(SegmentPtr segment, std::uint32_t begin, std::uint32_t end, bool through);
  Task<Status> zero_ahead(SegmentPtr segment, std::uint32_t begin, std::uint32_t end);
  void advance();

  bool sync_wanted() const;
  SegmentPtr broken_segment() const;
  Task<void> sync_step();
  Task<void> sync_front(SegmentPtr segment);
  Task<void> rescue(SegmentPtr segment);
  Task<Result<std::shared_ptr<SegmentSlot>>> write_elsewhere(const SegmentPtr& segment, std::uint32_t upto);
  void hand_on();
  Task<void> sync_in_background();
  void look_again();
  void fail_with(const Error& error);

  Runtime& runtime_;
  SegmentFiles& files_;
  const KeyTree& keys_;
  const VolumeId volume_;
  const LogOptions options_;
  const SealedSink sink_;
  Counter& groups_total_;
  Counter& bytes_total_;
  Counter& syncs_total_;
  Counter& rescues_total_;
  BufferPool pool_;
  Buffer zeros_;  // when first wanted

  LogStart next_;                    // of the next segment and the next group
  std::deque<SegmentPtr> segments_;  // not all durable and handed on; oldest first; the last may be open
  SegmentPtr open_;
  mutable std::map<SegmentId, Recent> recent_;  // handed on; kept by whoever holds the memory
  LogPosition written_;
  LogPosition durable_;
  LogPosition wanted_ = 0;  // somebody waits until it is durable
  std::optional<TimePoint> waiting_since_;
  std::optional<TimePoint> unsynced_since_;
  unsigned writes_in_flight_ = 0;
  unsigned appends_ = 0;
  bool syncing_ = false;
  bool small_syncs_ = false;  // the last sync found little to do
  bool alarm_set_ = false;    // the background sync wakes by itself: no need to disturb it for each group
  bool closing_ = false;
  std::optional<Error> failure_;

  Semaphore turn_;      // groups are numbered and placed one at a time, in order of the calls
  Signal progress_;     // written_, durable_, segments_, writes_in_flight_ or failure_ changed
  Signal synced_;       // a sync ended, or may begin for those who wait in make_durable()
  Signal sync_needed_;  // the background sync has something to do
  TaskGroup tasks_;
  std::shared_ptr<LogWriterImpl*> self_;  // null when destroyed: posted wake-ups may come later
  SyncBarrier barrier_;
};

LogWriterImpl::LogWriterImpl(Runtime& runtime, SegmentFiles& files, const KeyTree& keys, VolumeId volume,
                             LogStart start, LogOptions options, Metrics& metrics, SealedSink sink)
    : runtime_(runtime),
      files_(files),
      keys_(keys),
      volume_(volume),
      options_(options),
      sink_(std::move(sink)),
      groups_total_(metrics.counter("cumulus_log_groups_total")),
      bytes_total_(metrics.counter("cumulus_log_bytes_total")),
      syncs_total_(metrics.counter("cumulus_log_syncs_total")),
      rescues_total_(metrics.counter("cumulus_log_rescues_total")),
      pool_(options.segment_size, options.idle_buffers_max),
      next_(start),
      written_(start.next_group - 1),
      durable_(start.next_group - 1),
      turn_(runtime, 1),
      progress_(runtime),
      synced_(runtime),
      sync_needed_(runtime),
      tasks_(runtime),
      self_(std::make_shared<LogWriterImpl*>(this)),
      barrier_(runtime, [&runtime, self = std::weak_ptr(self_)] {
        runtime.post([self] {
          if (const auto writer = self.lock()) (*writer)->look_again();
        });
      }) {
  tasks_.spawn(sync_in_background());
}

LogWriterImpl::~LogWriterImpl() = default;

Status LogWriterImpl::check_open() const {
  if (failure_) return fail(*failure_);
  if (closing_) return fail(ErrorKind::closed, "the log is closed");
  return {};
}

Task<Result<WrittenGroup>> LogWriterImpl::append(GroupDraft draft) {
  CO_TRY_OK(check_open());
  std::uint64_t cells = 0;
  for (const CellSource& run : draft.runs) {
    CHECK(run.cell_log2 >= 9 && run.cell_log2 <= 20 && !run.plain.empty());
    if (run.plain.size() > options_.segment_size)
      co_return fail(ErrorKind::invalid, "a group is larger than a segment");
    cells += sealed_length_of(static_cast<std::uint32_t>(run.plain.size()), run.cell_log2);
  }
  if (draft.records.size() + cells > group_room())
    co_return fail(ErrorKind::invalid, "a group is larger than a segment");
  const auto cells_length = static_cast<std::uint32_t>(cells);
  const std::uint32_t records_length = OpenSegment::unit_length(draft);

  ++appends_;
  struct Leave {  // close() waits for it
    LogWriterImpl& writer;
    ~Leave() {
      if (--writer.appends_ == 0) writer.progress_.notify_all();
    }
  } const leave{*this};
  SegmentPtr segment;
  OpenSegment::Place place;
  {
    const Semaphore::Hold turn = co_await turn_.acquire();
    CO_TRY_OK(check_open());
    if (open_ && !open_->content.fits(records_length, cells_length)) seal_open();
    if (!open_) CO_TRY_OK(co_await start_segment(draft.bookkeeping));
    segment = open_;
    place = reserve(draft, cells_length);
  }
  if (records_length + cells_length <= kInlineSealMax) {
    segment->content.fill(place, draft);
  } else {
    co_await runtime_.offload([&] { segment->content.fill(place, draft); });
  }
  segment->mark_filled(place.number);

  while (written_ < place.number) {
    if (failure_) co_return fail(*failure_);
    if (segment->gathering || !can_issue(*segment)) {
      co_await progress_.wait();
      continue;
    }
    // Those whom the last sync woke together write together: each has its turn before the write goes.
    segment->gathering = true;
    co_await runtime_.yield();
    segment->gathering = false;
    if (can_issue(*segment)) co_await issue(segment);
  }
  co_return WrittenGroup{place.number, segment->content.header().id, place.layout.cells_at(), place.nonce};
}

// Under turn_. Bookkeeping makes room, so it may have a slot of the reserve.
Task<Status> LogWriterImpl::start_segment(bool bookkeeping) {
  while (!failure_ && segments_.size() >= kUndurableSegmentsMax) co_await progress_.wait();
  if (failure_) co_return fail(*failure_);
  CO_TRY(auto slot, co_await files_.take(bookkeeping));
  CO_TRY_OK(check_open());
  SegmentHeader header;
  header.align_log2 = files_.align_log2();
  header.volume = volume_;
  header.id = {SegmentKind::log, next_.epoch, next_.next_sequence};
  header.instance = next_.instance;
  runtime_.random().fill(header.salt);
  header.previous_chain = next_.previous_chain;
  files_.assign(*slot, header.id);
  barrier_.add(header.id.sequence, slot);
  open_ = std::make_shared<Segment>(keys_, header, pool_.acquire(), options_.segment_size, std::move(slot));
  segments_.push_back(open_);
  ++next_.next_sequence;
  co_return Status();
}

// Under turn_. The chain is known at once, so the next segment need not wait for this one's disk.
void LogWriterImpl::seal_open() {
  CHECK(open_ && !open_->content.empty());
  open_->sealed = true;
  next_.previous_chain = open_->content.chain();
  open_.reset();
  waiting_since_.reset();
  sync_needed_.notify_all();
}

// Under turn_.
OpenSegment::Place LogWriterImpl::reserve(const GroupDraft& draft, std::uint32_t cells_length) {
  GroupHeader group;
  group.number = next_.next_group++;
  group.written_at = runtime_.wall_now();
  group.durable_upto = durable_;
  group.bookkeeping = draft.bookkeeping;
  group.previous_tag = next_.previous_tag;
  const std::uint32_t records_length = OpenSegment::unit_length(draft);
  const OpenSegment::Place place =
      open_->content.reserve(group, records_length, cells_length, runtime_.random().u64());
  next_.previous_tag = place.tag;
  open_->groups.push_back({place.number, place.layout.end(), false, draft.awaited});
  if (!draft.bookkeeping && !waiting_since_) waiting_since_ = runtime_.now();
  groups_total_.add();
  return place;
}

bool LogWriterImpl::can_issue(const Segment& segment) const {
  if (segment.broken || segment.zeroing || failure_ || writes_in_flight_ >= options_.appends_in_flight_max)
    return false;
  const std::uint32_t end = segment.ready_end();
  if (end == segment.issued_end) return false;
  if (end - segment.issued_end >= kSmallWriteMax) return true;
  // What somebody waits for goes with its own sync, or with the others' when the one that runs has ended.
  const bool behind_sync = syncing_ && segments_.front().get() == &segment && segment.awaited(end);
  return segment.writes_in_flight == 0 && !behind_sync;
}

// Writes what stands ready behind the last write, as one write; whoever appends does it for the others too.
Task<void> LogWriterImpl::issue(SegmentPtr segment) {
  const std::uint32_t begin = segment->issued_end;
  const std::uint32_t end = segment->ready_end();
  const bool through = goes_through(*segment, begin, end);
  const LogPosition last = segment->last_group_before(end);
  segment->begin_write(end);
  ++writes_in_flight_;
  const Status status = co_await write(segment, begin, end, through);
  --writes_in_flight_;
  bytes_total_.add(end - begin);
  if (!status && !segment->broken) {
    segment->broken = true;
    barrier_.set_failed(segment->sequence(), status.error());
    sync_needed_.notify_all();
  }
  segment->end_write(end, status.has_value());
  if (through) {
    if (!segment->broken) {
      segment->durable_end = end;
      segment->durable_last = last;
      small_syncs_ = true;
    }
    hand_on();
    syncing_ = false;
    if (sync_wanted()) sync_needed_.notify_all();
  }
  advance();
}

// Whether the write is its own sync: somebody waits for a small group, and nothing before it wants one.
bool LogWriterImpl::goes_through(const Segment& segment, std::uint32_t begin, std::uint32_t end) const {
  return !syncing_ && segments_.front().get() == &segment && segment.durable_end == begin &&
         end - begin <= kSmallWriteMax && segment.awaited(end);
}

// With `through` it holds the place of a sync from beginning to end.
Task<Status> LogWriterImpl::write(SegmentPtr segment, std::uint32_t begin, std::uint32_t end, bool through) {
  const ByteView bytes = segment->content.memory()->view(begin, end - begin);
  if (!through) {
    CO_TRY_OK(co_await zero_ahead(segment, begin, end));
    co_return co_await segment->slot->file().write_at(begin, bytes);
  }
  const Sequence sequence = segment->sequence();
  syncing_ = true;
  barrier_.begin_reactor_sync(sequence);
  syncs_total_.add();
  Status status = co_await zero_ahead(segment, begin, end);
  if (status) status = co_await segment->slot->file().write_durable_at(begin, bytes);
  barrier_.end_reactor_sync(sequence, status);
  while (!barrier_.quiet(sequence)) co_await progress_.wait();
  if (barrier_.failed(sequence)) segment->broken = true;
  co_return status;
}

// Nothing was written behind `begin` yet, and nothing is until it returns.
Task<Status> LogWriterImpl::zero_ahead(SegmentPtr segment, std::uint32_t begin, std::uint32_t end) {
  if (!small_syncs_ || end - begin >= kSmallWriteMax || end <= segment->zeroed_end ||
      !segment->slot->is_new())
    co_return Status();
  if (zeros_.empty()) {
    zeros_ = Buffer(kZeroAhead);
    std::ranges::fill(zeros_.view(), std::uint8_t{0});
  }
  const std::uint32_t length = std::min(kZeroAhead, options_.segment_size - begin);
  segment->zeroing = true;
  const Status status = co_await segment->slot->file().write_at(begin, zeros_.view().first(length));
  segment->zeroing = false;
  segment->zeroed_end = begin + length;
  co_return status;
}

// Moves written_ and durable_ over the segments in order, and wakes who waits.
void LogWriterImpl::advance() {
  bool written_prefix = true;
  bool durable_prefix = true;
  for (const SegmentPtr& segment : segments_) {
    if (written_prefix) {
      segment->drop_written_groups();
      written_ = std::max(written_, segment->written_last);
      written_prefix = segment->sealed && segment->all_written();
    }
    if (durable_prefix) {
      durable_ = std::max(durable_, segment->durable_last);
      durable_prefix = segment->sealed && segment->all_durable();
    }
  }
  if (durable_ >= written_) {
    unsynced_since_.reset();
  } else if (!unsynced_since_) {
    unsynced_since_ = runtime_.now();
    if (!alarm_set_) sync_needed_.notify_all();
  }
  progress_.notify_all();
  if (!syncing_ && synced_.has_waiters()) synced_.notify_all();
  if (!syncing_ && !segments_.empty() && segments_.front()->sealed && segments_.front()->all_written())
    sync_needed_.notify_all();
}

std::uint64_t LogWriterImpl::open_bytes() const {
  return open_ ? open_->content.end() - (std::uint64_t{1} << open_->content.header().align_log2) : 0;
}

std::shared_ptr<const Buffer> LogWriterImpl::memory_of(const SegmentId& segment) const {
  for (const SegmentPtr& held : segments_)
    if (held->content.header().id == segment) return held->content.memory();
  const auto found = recent_.find(segment);
  return found == recent_.end() ? nullptr : found->second.memory.lock();
}

std::optional<SegmentHeader> LogWriterImpl::header_of(const SegmentId& segment) const {
  for (const SegmentPtr& held : segments_)
    if (held->content.header().id == segment) return held->content.header();
  const auto found = recent_.find(segment);
  if (found == recent_.end() || found->second.memory.expired()) return std::nullopt;
  return found->second.header;
}

Task<Status> LogWriterImpl::make_durable(LogPosition position) {
  if (position >= next_.next_group)
    co_return fail(ErrorKind::invalid, format("group {} does not exist yet", position));
  wanted_ = std::max(wanted_, position);
  while (durable_ < position) {
    if (failure_) co_return fail(*failure_);
    if (!syncing_ && sync_wanted())
      co_await sync_step();
    else
      co_await synced_.wait();
  }
  co_return Status();
}

LogWriterImpl::SegmentPtr LogWriterImpl::broken_segment() const {
  for (const SegmentPtr& segment : segments_)
    if (segment->broken) return segment;
  return nullptr;
}

// Whether sync_step() has something to do now.
bool LogWriterImpl::sync_wanted() const {
  if (failure_ || segments_.empty()) return false;
  if (broken_segment()) return true;
  const Segment& front = *segments_.front();
  if (front.sealed && front.all_durable()) return true;
  if (front.written_end == front.durable_end) return false;
  const bool overdue = unsynced_since_ && runtime_.now() >= *unsynced_since_ + kSyncInterval;
  return wanted_ > durable_ || overdue || (front.sealed && front.all_written());
}

// One step by whoever came first; all others wait for progress_.
Task<void> LogWriterImpl::sync_step() {
  CHECK(!syncing_);
  syncing_ = true;
  const TimePoint began = runtime_.now();
  if (const SegmentPtr broken = broken_segment())
    co_await rescue(broken);
  else
    co_await sync_front(segments_.front());
  hand_on();
  syncing_ = false;
  if (unsynced_since_) unsynced_since_ = began;  // what was written meanwhile is younger
  advance();
  if (sync_wanted() || (unsynced_since_ && !alarm_set_) || closing_) sync_needed_.notify_all();
}

Task<void> LogWriterImpl::sync_front(SegmentPtr segment) {
  if (segment->all_durable()) co_return;
  // Small writes that are on their way ride along: their callers would otherwise wait for the next sync.
  const std::uint32_t issued = segment->issued_end;
  if (issued - segment->written_end <= kSmallWriteMax)
    while (!failure_ && !segment->broken && segment->written_end < issued) co_await progress_.wait();
  if (failure_ || segment->broken) co_return;
  const std::uint32_t upto = segment->written_end;
  const LogPosition last = segment->written_last;
  const Sequence sequence = segment->sequence();
  barrier_.begin_reactor_sync(sequence);
  syncs_total_.add();
  const Status status = co_await segment->slot->file().datasync();
  barrier_.end_reactor_sync(sequence, status);
  while (!barrier_.quiet(sequence)) co_await progress_.wait();
  if (barrier_.failed(sequence)) {
    segment->broken = true;
    co_return;
  }
  small_syncs_ = upto - segment->durable_end < kSmallWriteMax;
  segment->durable_end = upto;
  segment->durable_last = last;
}

// "Sync again" would lie: the kernel may have dropped the pages that it could not write. The same bytes go to
// another file as a whole; a second failure of the same segment ends writing.
Task<void> LogWriterImpl::rescue(SegmentPtr segment) {
  while (segment->writes_in_flight != 0 || !barrier_.quiet(segment->sequence())) co_await progress_.wait();
  const std::optional<Error> cause = barrier_.failed(segment->sequence());
  CHECK(cause);
  if (segment->rescued) {
    fail_with(*cause);
    co_return;
  }
  log_warn("log segment {}: {}; writing it again to another file", segment->sequence(), cause->message());
  rescues_total_.add();
  segment->rescued = true;
  const std::uint32_t upto = segment->issued_end;
  auto slot = co_await write_elsewhere(segment, upto);
  if (!slot) {
    fail_with(slot.error());
    co_return;
  }
  files_.assign(**slot, segment->content.header().id);
  barrier_.replace(segment->sequence(), *slot);
  // Only now: until here the old file held what was durable before.
  files_.abandon(std::exchange(segment->slot, *slot));
  segment->broken = false;
  segment->zeroed_end = 0;
  segment->writes.clear();
  segment->written_end = segment->durable_end = upto;
  for (const Segment::Group& group : segment->groups)
    if (group.end <= upto) segment->durable_last = group.number;
  segment->durable_last = std::max(segment->durable_last, segment->written_last);
}

Task<Result<std::shared_ptr<SegmentSlot>>> LogWriterImpl::write_elsewhere(const SegmentPtr& segment,
                                                                          std::uint32_t upto) {
  CO_TRY(auto slot, co_await files_.take(true));
  Status status = co_await slot->file().write_at(0, segment->content.memory()->view(0, upto));
  if (status) status = co_await slot->file().datasync();
  if (!status) {
    files_.abandon(std::move(slot));
    co_return fail(status.error());
  }
  co_return slot;
}

void LogWriterImpl::hand_on() {
  while (!segments_.empty() && !segments_.front()->broken && segments_.front()->sealed &&
         segments_.front()->all_durable()) {
    advance();  // positions first: the sink may ask for them
    const SegmentPtr segment = segments_.front();
    segments_.pop_front();
    barrier_.remove(segment->sequence());
    std::erase_if(recent_, [](const auto& entry) { return entry.second.memory.expired(); });
    recent_[segment->content.header().id] = {segment->content.header(), segment->content.memory()};
    sink_(segment->content.sealed());
  }
}

Task<void> LogWriterImpl::sync_in_background() {
  while (!failure_ && !(closing_ && segments_.empty())) {
    if (!syncing_ && sync_wanted()) {
      co_await sync_step();
    } else if (unsynced_since_ && !syncing_ && runtime_.now() < *unsynced_since_ + kSyncInterval) {
      alarm_set_ = true;
      co_await sync_needed_.wait_until(*unsynced_since_ + kSyncInterval);
      alarm_set_ = false;
    } else {
      co_await sync_needed_.wait();
    }
  }
}

// After another thread's sync: it may have failed.
void LogWriterImpl::look_again() {
  for (const SegmentPtr& segment : segments_)
    if (barrier_.failed(segment->sequence())) segment->broken = true;
  progress_.notify_all();
  sync_needed_.notify_all();
}

void LogWriterImpl::fail_with(const Error& error) {
  if (failure_) return;
  failure_ =
      Error(ErrorKind::io, "the log cannot be written any more, the volume is read-only: " + error.message() +
                               "; check the disk, then open the volume again");
  barrier_.give_up(*failure_);
  log_error("{}", failure_->message());
  progress_.notify_all();
  synced_.notify_all();
  sync_needed_.notify_all();
}

Task<Status> LogWriterImpl::seal() {
  CO_TRY_OK(check_open());
  {
    const Semaphore::Hold turn = co_await turn_.acquire();
    CO_TRY_OK(check_open());
    if (open_) seal_open();
  }
  const Sequence last = next_.next_sequence - 1;
  while (!failure_ && !segments_.empty() && segments_.front()->sequence() <= last) co_await progress_.wait();
  if (failure_) co_return fail(*failure_);
  co_return Status();
}

Task<Status> LogWriterImpl::close() {
  closing_ = true;
  {
    const Semaphore::Hold turn = co_await turn_.acquire();
    if (open_ && !failure_) seal_open();
  }
  while (appends_ != 0) co_await progress_.wait();
  while (!failure_ && !segments_.empty()) co_await progress_.wait();
  sync_needed_.notify_all();
  co_await tasks_.join();
  while (syncing_) co_await progress_.wait();
  if (failure_) co_return fail(*failure_);
  co_return Status();
}

}  // namespace

std::unique_ptr<LogWriter> LogWriter::make(Runtime& runtime, SegmentFiles& files, const KeyTree& keys,
                                           VolumeId volume, LogStart start, LogOptions options,
                                           Metrics& metrics, SealedSink sink) {
  return std::make_unique<LogWriterImpl>(runtime, files, keys, volume, start, options, metrics,
                                         std::move(sink));
}

}  // namespace cumulus
