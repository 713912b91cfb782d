#include "objectstore/log/replay.h"

#include <algorithm>
#include <deque>
#include <map>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/log/segment_reader.h"

namespace cumulus {
namespace {

Task<Result<OpenedSegment>> open_on_worker(Runtime& runtime, const KeyTree& keys,
                                           std::shared_ptr<const Buffer> bytes, std::uint64_t length,
                                           std::optional<GroupTag> previous_tag, bool check_cells) {
  co_return co_await runtime.offload(
      [&] { return open_segment_bytes(keys, bytes->view(), length, previous_tag, check_cells); });
}

Task<Status> visit_groups(const std::vector<OpenedGroup>& groups, LogPosition after,
                          const GroupVisitor& visit) {
  for (const OpenedGroup& group : groups) {
    if (group.header.number <= after) continue;
    const ReplayedGroup replayed{group.header, group.records, group.area};
    CO_TRY_OK(co_await visit(replayed));
  }
  co_return Status();
}

// One recovery. The log is walked segment by segment; everything that could be the next one is opened, and
// the one that reaches farthest is it.
class Recovery {
  // Segments in memory that are not known to be durable; the writer starts none while several are not.
  static constexpr std::size_t kUnprovenMax = 4;

 public:
  Recovery(Runtime& runtime, const KeyTree& keys, LocalSegments& local, ReplayStart start, FetchSegment fetch,
           GroupVisitor visit)
      : runtime_(runtime),
        keys_(keys),
        local_(local),
        start_(start),
        fetch_(std::move(fetch)),
        visit_(std::move(visit)),
        sequence_(start.sequence),
        chain_(start.previous_chain),
        last_(start.previous),
        durable_upto_(start.durable_upto) {
    for (const LocalSegments::Found& found : local_.log_segments())
      if (found.header.volume == keys_.volume_id() && found.header.id.sequence >= sequence_)
        by_sequence_[found.header.id.sequence].push_back(found);
  }

  Task<Result<RecoveredLog>> run() {
    bool more = true;
    while (more) {
      CO_TRY(Candidate best, co_await best_local());
      const bool followed = best.good() && followed_by(best);
      bool healed = false;
      if (!followed) CO_TRY_OK(co_await learn_what_was_durable(best));
      if (!followed && durable_upto_ > reached(best)) {
        CO_TRY(best, co_await heal(std::move(best)));
        healed = true;
      }
      // Not the end of the log, as far as anybody can tell: another copy may go further, and what follows
      // must not be discarded.
      if (unknown_ && !followed && !healed)
        co_return fail(Error(
            unknown_->kind(),
            format("log segment {}: {}: it may hold the newest that was written here. When it stays so, move "
                   "that file away: the volume opens with what is in the others and on the miners",
                   sequence_, unknown_->message())));
      if (!best.good()) break;
      more = followed_by(best) || durable_upto_ > reached(best);
      if (!more && later_unread_)
        co_return fail(later_unread_->within(format("a log segment that may follow segment {}", sequence_)));
      CO_TRY_OK(co_await accept(std::move(best)));
    }
    while (!unproven_.empty()) CO_TRY_OK(co_await settle_oldest());
    CO_TRY_OK(co_await discard_the_rest());
    if (!last_)
      co_return fail(ErrorKind::invalid, "the log's last group is not known: no segment follows the start");
    result_.next.next_sequence = sequence_;
    result_.next.previous_chain = chain_;
    result_.next.next_group = last_->group + 1;
    result_.next.previous_tag = last_->tag;
    co_return std::move(result_);
  }

 private:
  struct Candidate {
    std::uint32_t slot = 0;
    OpenedSegment opened;
    std::shared_ptr<const Buffer> bytes;
    bool alone = true;  // no second copy: what was durable may have been so in the other one
    bool good() const { return opened.scan.last_group != 0; }
    Digest chain() const {
      return chain_value(opened.scan.header, opened.scan.last_group_tag, opened.scan.good_length);
    }
  };

  std::optional<GroupTag> known_tag() const {
    if (!last_) return std::nullopt;
    return last_->tag;
  }

  // The last group up to which the log is there with this segment.
  LogPosition reached(const Candidate& candidate) const {
    if (candidate.good()) return candidate.opened.scan.last_group;
    return last_ ? last_->group : 0;
  }

  bool fits(const OpenedSegment& opened) const {
    const SegmentScan& scan = opened.scan;
    if (scan.header.id.kind != SegmentKind::log || scan.header.id.sequence != sequence_ ||
        scan.header.previous_chain != chain_)
      return false;
    return scan.last_group == 0 || !last_ || scan.first_group == last_->group + 1;
  }

  Task<Result<Candidate>> best_local() {
    Candidate best;
    unknown_.reset();
    std::size_t copies = 0;
    for (const LocalSegments::Found& found : by_sequence_[sequence_]) {
      if (found.header.previous_chain != chain_) continue;
      ++copies;
      Candidate candidate;
      candidate.slot = found.slot;
      auto bytes = co_await local_.read_slot(found.slot);
      if (!bytes) {
        unknown_ = bytes.error();
        continue;
      }
      candidate.bytes = *std::move(bytes);
      const std::uint64_t size = candidate.bytes->size();
      auto opened = co_await open_on_worker(runtime_, keys_, candidate.bytes, size, known_tag(), true);
      // Nothing authenticates a header that does not parse: damage looks like the future.
      if (!opened && opened.error().kind() == ErrorKind::unsupported)
        unknown_ = opened.error().within(format("slot-{:06}", found.slot));
      if (!opened) continue;
      durable_upto_ = std::max(durable_upto_, opened->scan.durable_upto);
      if (!fits(*opened)) continue;
      candidate.opened = *std::move(opened);
      if (candidate.opened.scan.last_group > best.opened.scan.last_group) best = std::move(candidate);
    }
    best.alone = copies < 2;
    co_return best;
  }

  bool followed_by(const Candidate& candidate) {
    const Digest chain = candidate.chain();
    return std::ranges::any_of(by_sequence_[sequence_ + 1], [&](const LocalSegments::Found& found) {
      return found.header.previous_chain == chain;
    });
  }

  // The log seems to end here. What later segments say was durable decides whether it does.
  Task<Status> learn_what_was_durable(const Candidate&) {
    if (looked_beyond_) co_return Status();
    looked_beyond_ = true;
    for (const auto& [sequence, found] : by_sequence_) {
      if (sequence <= sequence_) continue;
      for (const LocalSegments::Found& later : found) {
        const auto bytes = co_await local_.read_slot(later.slot);
        if (!bytes) later_unread_ = bytes.error();
        if (!bytes) continue;
        const std::uint64_t size = (*bytes)->size();
        const auto opened = co_await open_on_worker(runtime_, keys_, *bytes, size, std::nullopt, false);
        if (opened) durable_upto_ = std::max(durable_upto_, opened->scan.durable_upto);
      }
    }
    co_return Status();
  }

  Task<Result<Candidate>> heal(Candidate rotten) {
    const std::uint64_t bad_at = rotten.good() ? rotten.opened.scan.good_length : 0;
    const std::string what = format(
        "log segment {} at offset {}: group {} was durable (the log was, up to group {}) and does not open{}",
        sequence_, bad_at, reached(rotten) + 1, durable_upto_,
        unknown_ ? " (" + unknown_->message() + ")" : "");
    if (!fetch_) co_return fail(ErrorKind::corrupt, what + "; the segment must be fetched from the miners");
    log_error("{}; fetching the segment from the miners", what);
    WantedSegment wanted{sequence_, chain_, {}, {}};
    for (const LocalSegments::Found& found : by_sequence_[sequence_])
      if (found.header.previous_chain == chain_) wanted.headers.push_back(found.header);
    for (const LocalSegments::Found& found : by_sequence_[sequence_ + 1])
      wanted.chains.push_back(found.header.previous_chain);
    auto fetched = co_await fetch_(std::move(wanted));
    if (!fetched) co_return fail(ErrorKind::corrupt, what + "; fetching it: " + fetched.error().message());
    auto opened =
        co_await open_on_worker(runtime_, keys_, fetched->bytes, fetched->length, known_tag(), true);
    if (!opened || !fits(*opened) || opened->scan.last_group < reached(rotten) ||
        opened->scan.last_group == 0)
      co_return fail(ErrorKind::corrupt, what + "; what the miners have of it does not continue the log");
    // The local copy is as long as what was sealed: the hole begins with the next segment.
    if (rotten.good() && opened->scan.last_group == reached(rotten)) co_return rotten;
    Candidate healed;
    healed.opened = *std::move(opened);
    healed.bytes = fetched->bytes;
    const SegmentHeader header = healed.opened.scan.header;
    CO_TRY(healed.slot, co_await local_.restore(header, healed.bytes, healed.opened.scan.good_length));
    healed.bytes.reset();  // durable in its slot
    result_.healed.push_back(sequence_);
    co_return healed;
  }

  Task<Status> accept(Candidate candidate) {
    const SegmentScan& scan = candidate.opened.scan;
    bool bookkeeping = true;
    for (const OpenedGroup& group : candidate.opened.groups)
      bookkeeping = bookkeeping && group.header.bookkeeping;
    result_.segments.push_back({.header = scan.header,
                                .length = scan.good_length,
                                .chain = candidate.chain(),
                                .last_group_tag = scan.last_group_tag,
                                .first_group = scan.first_group,
                                .last_group = scan.last_group,
                                .bookkeeping_only = bookkeeping,
                                .memory = nullptr});
    result_.cut_whole_groups = scan.whole_groups_after_bad;
    const bool may_be_proven = candidate.alone && !scan.whole_groups_after_bad;
    slots_.push_back(candidate.slot);
    chain_ = candidate.chain();
    last_ = LastGroup{scan.last_group, scan.last_group_tag};
    ++sequence_;
    unproven_.push_back({result_.segments.size() - 1, may_be_proven, std::move(candidate)});
    CO_TRY_OK(co_await visit_proven());
    // A copy that nothing can prove would hold up all that follow it in memory.
    while (unproven_.size() > kUnprovenMax) CO_TRY_OK(co_await settle_oldest());
    co_return Status();
  }

  // R1: nobody is shown a group that is not durable, or the index would have it when the next power cut takes
  // it.
  Task<Status> visit_proven() {
    while (!unproven_.empty()) {
      const Unproven& oldest = unproven_.front();
      if (!oldest.may_be_proven || oldest.candidate.opened.scan.last_group > durable_upto_) break;
      CO_TRY_OK(co_await visit_groups(oldest.candidate.opened.groups, start_.after, visit_));
      unproven_.pop_front();
    }
    co_return Status();
  }

  // A file's bytes may be in the page cache only, and after a failed sync that the process before us saw they
  // never reach the disk, whatever a sync says now. So what nothing proves to be durable is written again,
  // the same bytes to another slot, before anything is built on it. So is a segment that was cut before whole
  // groups: what made the torn one unreadable may pass, and the cut must last.
  Task<Status> settle_oldest() {
    Unproven& oldest = unproven_.front();
    // What came from the miners was restored, and synced, when it was healed.
    if (oldest.candidate.bytes) {
      const SealedSegment& segment = result_.segments[oldest.index];
      const std::uint32_t old = slots_[oldest.index];
      CO_TRY(slots_[oldest.index],
             co_await local_.restore(segment.header, oldest.candidate.bytes, segment.length));
      CO_TRY_OK(co_await local_.discard(old));
    }
    CO_TRY_OK(co_await visit_groups(oldest.candidate.opened.groups, start_.after, visit_));
    unproven_.pop_front();
    co_return co_await visit_proven();
  }

  Task<Status> discard_the_rest() {
    for (const auto& [sequence, found] : by_sequence_)
      for (const LocalSegments::Found& each : found) {
        if (std::ranges::find(slots_, each.slot) != slots_.end()) continue;
        log_info("log segment {} in slot {} is not part of the log; its slot is freed", sequence, each.slot);
        CO_TRY_OK(co_await local_.discard(each.slot));
      }
    co_return Status();
  }

  struct Unproven {
    std::size_t index = 0;      // in result_.segments and slots_
    bool may_be_proven = true;  // a claim that its groups are durable is about this very copy
    Candidate candidate;
  };

  Runtime& runtime_;
  const KeyTree& keys_;
  LocalSegments& local_;
  const ReplayStart start_;
  const FetchSegment fetch_;
  const GroupVisitor visit_;

  std::map<Sequence, std::vector<LocalSegments::Found>> by_sequence_;
  Sequence sequence_;
  Digest chain_;
  std::optional<LastGroup> last_;
  LogPosition durable_upto_;
  bool looked_beyond_ = false;
  std::optional<Error>
      unknown_;  // a copy of this segment cannot be read, or says that a newer Cumulus wrote it
  std::optional<Error> later_unread_;
  std::vector<std::uint32_t> slots_;  // of result_.segments
  std::deque<Unproven> unproven_;     // accepted, and not yet visited
  RecoveredLog result_;
};

}  // namespace

Task<Result<SegmentScan>> scan_segment(Runtime& runtime, const KeyTree& keys,
                                       std::shared_ptr<const Buffer> bytes, std::uint64_t length,
                                       std::optional<GroupTag> previous_tag, LogPosition after,
                                       bool check_cells, GroupVisitor visit, ScanCheck agree) {
  CO_TRY(const OpenedSegment opened,
         co_await open_on_worker(runtime, keys, bytes, length, previous_tag, check_cells));
  if (agree) CO_TRY_OK(agree(opened.scan));
  CO_TRY_OK(co_await visit_groups(opened.groups, after, visit));
  co_return opened.scan;
}

Task<Result<RecoveredLog>> recover_local_log(Runtime& runtime, const KeyTree& keys, LocalSegments& segments,
                                             ReplayStart start, FetchSegment fetch, GroupVisitor visit) {
  Recovery recovery(runtime, keys, segments, start, std::move(fetch), std::move(visit));
  co_return co_await recovery.run();
}

}  // namespace cumulus
