// StoreVolume: making, opening and recovering a volume.
//
// Who may write is decided first, by the holders (TailKeeper); what is written so far comes from the local
// log when this home wrote it, and from the miners otherwise. A home that works offline opens what it has,
// and learns later.
#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/crypto/digest.h"
#include "objectstore/erasure/geometry.h"
#include "objectstore/log/replay.h"
#include "objectstore/memory_shares.h"
#include "objectstore/store/ending.h"
#include "objectstore/store/holder_survey.h"
#include "objectstore/store/inventory.h"
#include "objectstore/store/log_replayer.h"
#include "objectstore/store/sealed_label.h"
#include "objectstore/store/slice_upload.h"
#include "objectstore/store/store_volume.h"

namespace cumulus {
namespace {

constexpr Duration kPatienceAtOpen =
    std::chrono::seconds(4);  // an unreachable network must not delay a restart
constexpr Duration kPatienceToDecide =
    std::chrono::seconds(30);  // when nothing can be done without the holders
constexpr std::size_t kSegmentKeysKept = 1024;

template <class T>
Task<Result<std::unique_ptr<Volume>>> finish(std::unique_ptr<StoreVolume> volume, T opened) {
  const Status status = co_await std::move(opened);
  if (status) co_return std::unique_ptr<Volume>(std::move(volume));
  const Status closed = co_await volume->abandon();
  static_cast<void>(closed);  // the first error is the one to tell
  co_return fail(status.error());
}

}  // namespace

Task<Result<std::unique_ptr<Volume>>> Volume::create(VolumeParts parts, VolumeShape shape,
                                                     VolumeOptions options) {
  CO_TRY_OK(shape.validate());
  CO_TRY_OK(options.validate());
  auto volume = std::make_unique<StoreVolume>(std::move(parts), options);
  StoreVolume& opening = *volume;
  co_return co_await finish(std::move(volume), opening.create(shape));
}

Task<Result<std::unique_ptr<Volume>>> Volume::open(VolumeParts parts, VolumeOptions options, OpenMode mode) {
  CO_TRY_OK(options.validate());
  auto volume = std::make_unique<StoreVolume>(std::move(parts), options);
  StoreVolume& opening = *volume;
  co_return co_await finish(std::move(volume), opening.open(mode));
}

Task<Result<std::unique_ptr<Volume>>> Volume::recover(VolumeParts parts, VolumeOptions options, OpenMode mode,
                                                      bool accept_loss, Progress progress) {
  CO_TRY_OK(options.validate());
  auto volume = std::make_unique<StoreVolume>(std::move(parts), options);
  StoreVolume& opening = *volume;
  co_return co_await finish(std::move(volume), opening.recover(mode, accept_loss, std::move(progress)));
}

// --- making ---

Task<Status> StoreVolume::create(VolumeShape shape) {
  CO_TRY_OK(co_await home_.load(id_));
  Superblock first;
  first.volume = id_;
  first.sign_public_key = parts_.keys.signing_key().public_key();
  first.k = shape.k;
  first.m = shape.m;
  first.segment_log2 = shape.segment_log2;
  first.holders = choose_holders(transport_.miners(), shape.m, {});
  const Ballot ballot = home_.record().next_ballot({}, true, new_instance());
  CO_TRY_OK(co_await open_rooms(first, true));
  make_tail_keeper(first);
  CO_TRY_OK(co_await tail_->claim(ballot, Adopt::own, kPatienceToDecide));
  CO_TRY_OK(co_await tail_->known_at_home());
  LogStart start;
  start.epoch = ballot.epoch;
  start.instance = ballot.instance;
  co_return co_await start_writing(start, {}, Tail{});
}

// --- opening a home ---

Task<Status> StoreVolume::open(OpenMode mode) {
  CO_TRY_OK(co_await home_.load(id_));
  if (!home_.record().seen)
    co_return fail(
        ErrorKind::not_found,
        format("{} does not hold an opened volume: use 'cumulus volume recover'", parts_.directory));
  CO_TRY_OK(check_not_ending(parts_.disk, parts_.directory, home_.record()));
  Superblock known = *home_.record().seen;

  const Duration patience = mode == OpenMode::steal ? kPatienceToDecide : kPatienceAtOpen;
  CO_TRY(const Survey survey, co_await survey_members(parts_.runtime, transport_, parts_.keys, home_.record(),
                                                      false, patience, tasks_));
  if (survey.newest && survey.newest->destroyed) co_return fail(destroyed_error());
  if (survey.newest && survey.newest->version >= known.version && !home_.record().wrote(*survey.newest)) {
    if (!survey.newest->closed_cleanly && mode != OpenMode::steal)
      co_return fail(fenced_error(*survey.newest));
    co_return co_await take_over(*survey.newest, survey.highest,
                                 mode == OpenMode::steal ? Adopt::any : Adopt::own_or_closed);
  }
  if (survey.newest && survey.newest->version > known.version) known = *survey.newest;
  follow_list(transport_, parts_.keys, known, true);

  CO_TRY_OK(co_await open_rooms(known, false));
  if (co_await ends_before(known.tail)) {
    // An older copy of this home, or one that was interrupted while it took over: the miners know better.
    CO_TRY_OK(co_await close_rooms());
    co_return co_await take_over(known, survey.highest, Adopt::own);
  }
  LogStart start;
  std::vector<SealedSegment> segments;
  const Status replayed = co_await replay_local(known.tail, start, segments);
  for (const ReplayMark& mark : replay_marks_) own_chains_.emplace(mark.sequence, mark.chain);
  for (const SealedSegment& segment : segments)
    own_chains_.emplace(segment.header.id.sequence, segment.chain);
  if (replayed ? !belongs(known.tail) : parts_from(known.tail)) {
    // This home wrote that tail too, and an older copy of its disk, which was put back, went another way.
    CO_TRY_OK(co_await close_rooms());
    co_return co_await take_over(known, survey.highest, Adopt::own);
  }
  CO_TRY_OK(replayed);
  make_tail_keeper(known, [this](const Tail& tail) { return belongs(tail); });
  const Ballot ballot = home_.record().next_ballot(survey.highest, false, new_instance());
  start.epoch = ballot.epoch;
  start.instance = ballot.instance;
  // Offline, the claim goes on in the background, and nothing is Remote before it is granted.
  const Status claimed =
      co_await tail_->claim(ballot, Adopt::own, survey.quorum_reached ? kPatienceToDecide : Duration{});
  if (!claimed && claimed.error().kind() != ErrorKind::unavailable) co_return fail(claimed.error());
  co_return co_await start_writing(start, std::move(segments), known.tail);
}

// Does the local log lack segments that are stored already? The last one here, or the one before which replay
// begins, must reach the tail.
Task<bool> StoreVolume::ends_before(const Tail& tail) {
  const ReplayStart start = co_await load_replay_start();
  Sequence last = start.sequence - 1;
  for (const LocalSegments::Found& found : slots_->log_segments())
    last = std::max(last, found.header.id.sequence);
  co_return last < tail.through.sequence;
}

// A tail from before this opening, beside the local log: the same chain where it has that segment; older ones
// were compared when they were let go.
Status StoreVolume::belongs(const Tail& tail) const {
  if (own_chains_.empty() || tail.through.sequence < own_chains_.begin()->first) return {};
  const auto own = own_chains_.find(tail.through.sequence);
  if (own != own_chains_.end() && own->second == tail.chain) return {};
  return fail(ErrorKind::fenced,
              "the miners hold what this home wrote before an older copy of its disk was put back: what was "
              "written since then, without the miners, is of another history. Open the volume again: it goes "
              "on with the miners' state, and this one is set aside");
}

// Why a local log could not be replayed up to the tail: by its headers it goes on from another segment.
bool StoreVolume::parts_from(const Tail& tail) const {
  bool goes_on = false;
  for (const LocalSegments::Found& found : slots_->log_segments()) {
    if (found.header.id.sequence != tail.through.sequence + 1) continue;
    if (found.header.previous_chain == tail.chain) return false;
    goes_on = true;
  }
  return goes_on;
}

Task<Status> StoreVolume::close_rooms() {
  co_await fetcher_->close();
  CO_TRY_OK(co_await index_->close());
  co_await slots_->close();
  fetcher_.reset();
  index_.reset();
  slots_.reset();
  co_return Status();
}

// Another home wrote the newest record: what this home holds is of the past. It is set aside, not deleted.
Task<Status> StoreVolume::take_over(const Superblock& newest, Ballot highest, Adopt adopt) {
  std::string aside = parts_.directory + format("/superseded-{}", parts_.runtime.wall_now() / 1'000'000'000);
  for (bool taken = true; taken;) {
    CO_TRY(taken, parts_.disk.exists(aside));
    if (taken) aside += '+';
  }
  for (const std::string name : {"segments", "index", "replay"}) {
    const std::string from = format("{}/{}", parts_.directory, name);
    CO_TRY(const bool there, parts_.disk.exists(from));
    if (!there) continue;
    CO_TRY_OK(parts_.disk.create_directories(aside));
    CO_TRY_OK(parts_.disk.rename(from, format("{}/{}", aside, name)));
  }
  CO_TRY_OK(co_await parts_.disk.sync_directory(parts_.directory));
  log_warn("this home's copy of the volume is older than the miners': it was set aside in {}", aside);
  co_return co_await recover_from(newest, highest, adopt, false, {});
}

Task<Status> StoreVolume::recover(OpenMode mode, bool accept_loss, Progress progress) {
  CO_TRY_OK(co_await home_.load(id_));
  CO_TRY(const Survey survey, co_await survey_members(parts_.runtime, transport_, parts_.keys, home_.record(),
                                                      true, kPatienceToDecide, tasks_));
  if (!survey.newest) {
    std::string why;
    for (const auto& [miner, error] : survey.errors) why += "; " + said_by(miner, error);
    co_return fail(survey.errors.empty() ? ErrorKind::not_found : ErrorKind::unavailable,
                   "no miner holds a volume of this recovery code: check the code and the miners file" + why);
  }
  if (survey.newest->destroyed) co_return fail(destroyed_error());
  if (!survey.quorum_reached)
    co_return fail(ErrorKind::unavailable, format("only {} miners answer; {} must, to know the newest state",
                                                  survey.heard.size(), quorum_in_words(*survey.newest)));
  const bool own = home_.record().wrote(*survey.newest);
  if (!own && !survey.newest->closed_cleanly && mode != OpenMode::steal)
    co_return fail(fenced_error(*survey.newest));
  co_return co_await recover_from(*survey.newest, survey.highest,
                                  mode == OpenMode::steal || own ? Adopt::any : Adopt::own_or_closed,
                                  accept_loss, std::move(progress));
}

Task<Status> StoreVolume::recover_from(const Superblock& newest, Ballot highest, Adopt adopt,
                                       bool accept_loss, Progress progress) {
  CO_TRY_OK(co_await open_rooms(newest, true));
  make_tail_keeper(newest);
  // The ballot first: from here on nobody else can add to what is about to be read.
  const Ballot ballot = home_.record().next_ballot(highest, true, new_instance());
  CO_TRY_OK(co_await tail_->claim(ballot, adopt, kPatienceToDecide));
  CO_TRY_OK(co_await tail_->known_at_home());
  follow_list(transport_, parts_.keys, tail_->accepted(), true);
  Tail reached = tail_->accepted().tail;
  LogStart start;
  Status rebuilt = co_await rebuild_from_miners(reached, accept_loss, progress, start);
  // What was given up must be gone for everybody before anything is built on what is left.
  if (rebuilt && reached != tail_->accepted().tail)
    rebuilt = co_await tail_->cut_back(reached, kPatienceToDecide);
  if (!rebuilt) {
    // Interrupted, say. Nothing was written under this ballot: who comes next need not steal it.
    co_await tell_closed();
    co_return fail(rebuilt.error());
  }
  start.epoch = ballot.epoch;
  start.instance = ballot.instance;
  co_return co_await start_writing(start, {}, reached);
}

Error StoreVolume::fenced_error(const Superblock& newest) const {
  return {ErrorKind::fenced,
          format("the volume is in use by {}: close it there, or take it over with --steal",
                 describe_writer(parts_.keys, newest))};
}

// --- rooms ---

InstanceId StoreVolume::new_instance() const {
  InstanceId instance;
  parts_.runtime.random().fill(instance.bytes);
  return instance;
}

Task<Status> StoreVolume::open_rooms(const Superblock& record, bool fresh_index) {
  shape_ = {record.k, record.m, record.segment_log2};
  CO_TRY_OK(shape_.validate());
  if (options_.memory_bytes < shape_.memory_least())
    co_return fail(
        ErrorKind::invalid,
        format("segments of {}M need memory={}M, and this volume's daemon may take {}M: give it more "
               "('cumulus volume set NAME memory=SIZE', or --memory when it is made or recovered)",
               (std::uint64_t{1} << shape_.segment_log2) >> 20, shape_.memory_least() >> 20,
               options_.memory_bytes >> 20));
  const std::uint32_t segment_size = 1u << shape_.segment_log2;
  SlotStoreOptions slots;
  slots.segment_size = segment_size;
  slots.budget_bytes = options_.cache_bytes;
  CO_TRY(slots_, co_await SlotStore::open(parts_.runtime, parts_.disk, parts_.directory + "/segments", id_,
                                          slots, parts_.metrics));
  CO_TRY_OK(co_await open_index(fresh_index));
  keys_ = std::make_unique<SegmentKeys>(parts_.keys, kSegmentKeysKept);
  fetcher_ =
      std::make_unique<SliceFetcher>(parts_.runtime, asked_, id_, segment_size, options_.request_deadline,
                                     MemoryShares(options_.memory_bytes), parts_.metrics);
  co_return Status();
}

Task<Status> StoreVolume::open_index(bool fresh) {
  const auto barrier = [this] { return barrier_(); };
  const std::string directory = parts_.directory + "/index";
  auto engine = co_await parts_.open_engine(directory, barrier, fresh);
  if (!engine && engine.error().kind() == ErrorKind::corrupt && !fresh) {
    log_warn("the local index is damaged and is rebuilt from the log: {}", engine.error().message());
    engine = co_await parts_.open_engine(directory, barrier, true);
  }
  CO_TRY_OK(engine);
  IndexOptions rows;
  rows.row_cache_bytes = MemoryShares(options_.memory_bytes).index_rows;
  CO_TRY(index_, co_await Index::open(parts_.runtime, std::move(*engine), rows, parts_.metrics));
  co_return Status();
}

void StoreVolume::make_tail_keeper(const Superblock& known, std::function<Status(const Tail&)> belongs) {
  TailKeeper::Options options;
  options.belongs = std::move(belongs);
  options.request_deadline = options_.request_deadline;
  tail_ = std::make_unique<TailKeeper>(parts_.runtime, transport_, parts_.keys, home_, known,
                                       transport_.miners(), parts_.writer_label, options, parts_.metrics,
                                       [this](const Error& reason) { fenced(reason); });
}

// --- what is written so far ---

Task<Status> StoreVolume::replay_local(const Tail& tail, LogStart& next,
                                       std::vector<SealedSegment>& segments) {
  for (int attempt = 0;; ++attempt) {
    ReplayStart start = co_await load_replay_start();
    // The index needs every group after its position: from local segments, or else from the miners.
    const bool enough = start.previous && start.previous->group <= index_->applied() &&
                        (start.sequence > 1 || begins_here(tail));
    if (!enough) {
      Tail reached = tail;
      CO_TRY_OK(co_await rebuild_from_miners(reached, false, {}, next));
      start = {};
      start.sequence = next.next_sequence;
      start.previous_chain = next.previous_chain;
      start.previous = LastGroup{next.next_group - 1, next.previous_tag};
    }
    replay_marks_.assign(
        1, {start.sequence - 1, start.previous_chain, start.previous->group, start.previous->tag});
    start.after = index_->applied();
    start.durable_upto = std::max(tail.position, index_->durable());
    const GroupVisitor visit = [this](const ReplayedGroup& group) -> Task<Status> {
      auto changes = decode_changes(group.records, group.area);
      if (!changes) co_return fail(changes.error());
      co_return co_await index_->replay(group.header.number, std::move(*changes));
    };
    const FetchSegment fetch = [this](WantedSegment wanted) -> Task<Result<FetchedSegment>> {
      co_return co_await fetch_wanted(std::move(wanted));
    };
    CO_TRY(RecoveredLog log,
           co_await recover_local_log(parts_.runtime, parts_.keys, *slots_, start, fetch, visit));
    if (index_->applied() < log.next.next_group && attempt == 0) {
      next = log.next;
      segments = std::move(log.segments);
      CO_TRY_OK(co_await index_->flush());
      co_return Status();
    }
    if (attempt > 0) {
      next = log.next;
      segments = std::move(log.segments);
      co_return Status();
    }
    // R1 was not kept by whoever wrote this index (or the log was lost): it is ahead of the log and worth
    // nothing.
    log_warn("the local index is at group {}, the log ends before {}: the index is rebuilt",
             index_->applied(), log.next.next_group);
    CO_TRY_OK(co_await index_->close());
    CO_TRY_OK(co_await open_index(true));
  }
}

// Is the log's first segment here, or none stored yet? Else the mark that says where replay begins was lost,
// and what is behind it has left the cache.
bool StoreVolume::begins_here(const Tail& tail) const {
  const auto first = [](const LocalSegments::Found& found) { return found.header.id.sequence == 1; };
  return tail.through.sequence == 0 || std::ranges::any_of(slots_->log_segments(), first);
}

// A local segment that was damaged, from the miners: their listings say where it is. What local segments tell
// of it decides first, then the newest epoch.
Task<Result<FetchedSegment>> StoreVolume::fetch_wanted(WantedSegment wanted) {
  const Inventory inventory =
      co_await Inventory::list(parts_.runtime, transport_, id_, options_.request_deadline);
  std::vector<const Inventory::Segment*> candidates;
  for (const auto& [id, same] : inventory.segments())
    for (const auto& segment : same)
      if (id.kind == SegmentKind::log && id.sequence == wanted.sequence &&
          segment->manifest.header.previous_chain == wanted.previous_chain &&
          segment->slices_seen() >= segment->manifest.k)
        candidates.push_back(segment.get());
  const auto rank = [&](const Inventory::Segment* segment) {
    const Manifest& manifest = segment->manifest;
    const bool known = std::ranges::find(wanted.headers, manifest.header) != wanted.headers.end() ||
                       std::ranges::find(wanted.chains, manifest.chain()) != wanted.chains.end();
    return std::pair(known, manifest.id().epoch);
  };
  std::ranges::sort(candidates, std::greater<>(), rank);
  for (const Inventory::Segment* segment : candidates) {
    const change::Placed placed = segment->placed();
    auto fetched =
        co_await fetcher_->fetch(placed, 0, placed.length, FetchTrust::proven, options_.outage_wait);
    if (fetched) co_return FetchedSegment{fetched->owner, placed.length};
  }
  std::string message = format("log segment {} is on none of the miners that answer", wanted.sequence);
  for (const std::string& silent : inventory.unanswered()) message += "; " + silent;
  co_return fail(ErrorKind::not_found, std::move(message));
}

Task<Status> StoreVolume::rebuild_from_miners(Tail& tail, bool accept_loss, const Progress& progress,
                                              LogStart& next) {
  inventory_ = std::make_unique<Inventory>(
      co_await Inventory::list(parts_.runtime, transport_, id_, options_.request_deadline));
  Inventory::Chain chain = inventory_->chain_to(tail);
  if (!chain.missing.empty()) {
    std::string message = chain.missing;
    for (const std::string& silent : inventory_->unanswered()) message += "; " + silent;
    if (!accept_loss) {
      const ErrorKind kind = inventory_->unanswered().empty() ? ErrorKind::corrupt : ErrorKind::unavailable;
      co_return fail(kind, message + ". Bring those miners back, or lose what is missing with --accept-loss");
    }
    log_warn("recovering with loss: {}", message);
    chain = inventory_->longest_prefix(tail);
  }
  of_the_log_ = {chain.segments.begin(), chain.segments.end()};
  LogReplayer replayer(parts_.runtime, parts_.keys, *fetcher_, *slots_, *index_);
  Status replayed = co_await replayer.replay(chain.segments, options_.outage_wait, progress);
  if (!replayed &&
      !(accept_loss && replayed.error().kind() == ErrorKind::corrupt && replayer.last() != nullptr))
    co_return replayed;
  if (!replayed) log_warn("recovering with loss: {}", replayed.error().message());

  const Inventory::Segment* last =
      replayed ? (chain.segments.empty() ? nullptr : chain.segments.back()) : replayer.last();
  next = {};
  if (last != nullptr) {
    const Manifest& manifest = last->manifest;
    tail = {manifest.id(), manifest.chain(), manifest.last_group};
    next.next_sequence = manifest.id().sequence + 1;
    next.previous_chain = manifest.chain();
    next.next_group = manifest.last_group + 1;
    next.previous_tag = manifest.last_group_tag;
  } else {
    tail = {};
  }
  co_return co_await index_->flush();
}

// --- going to work ---

Task<Status> StoreVolume::start_writing(LogStart start, std::vector<SealedSegment> segments, Tail tail) {
  epoch_ = start.epoch;
  recovered_ = start.next_group - 1;
  const std::uint32_t segment_size = 1u << shape_.segment_log2;
  LogOptions log_options;
  log_options.segment_size = segment_size;
  log_options.idle_buffers_max =
      std::clamp<std::size_t>(MemoryShares(options_.memory_bytes).segments_idle / segment_size, 2, 8);
  log_ = LogWriter::make(parts_.runtime, *slots_, parts_.keys, id_, start, log_options, parts_.metrics,
                         [this](SealedSegment segment) { segment_sealed(std::move(segment)); });
  barrier_.attach(log_.get());
  committer_ = std::make_unique<Committer>(
      parts_.runtime, *index_, *log_, options_, [this](std::uint64_t bytes) { return room_for(bytes); },
      [this](const auto& compare) { return compare_bytes(compare); });
  cells_ = std::make_unique<CellReader>(parts_.runtime, *log_, *slots_, *index_, *fetcher_, *keys_,
                                        MemoryShares(options_.memory_bytes), parts_.metrics);
  reader_ = std::make_unique<Reader>(parts_.runtime, *index_, *committer_, *cells_, options_);
  committer_->start();
  if (!read_only_reason_.empty()) committer_->refuse({ErrorKind::fenced, read_only_reason_});

  CO_TRY_OK(co_await count_stored());
  PusherOptions pushing;
  pushing.shape = shape_;
  pushing.in_flight_max = options_.pushes_in_flight_max;
  pushing.request_deadline = options_.request_deadline;
  pushing.queue_memory_max = MemoryShares(options_.memory_bytes).segments_to_send;
  pusher_ = std::make_unique<Pusher>(
      parts_.runtime, transport_, parts_.keys, *tail_, pushing,
      [this](SealedSegment segment) { return load_segment(std::move(segment)); },
      [this](change::Placed placed, const Manifest&) { return segment_stored(std::move(placed)); },
      parts_.metrics);
  // Segments up to the tail are on the miners; a Placed change that was lost with the end of the log is made
  // again, and until then nobody else knows where the segment is.
  for (const SealedSegment& segment : segments) {
    const Sequence sequence = segment.header.id.sequence;
    CO_TRY(const auto placed, co_await index_->placed(segment.header.id));
    if (sequence > tail.through.sequence || !placed) unplaced_.insert(sequence);
  }
  slots_->classify([&](const SegmentHeader& header) {
    const Sequence sequence = header.id.sequence;
    return sequence <= tail.through.sequence && !unplaced_.contains(sequence) ? SlotUse::stored
                                                                              : SlotUse::dirty;
  });
  pusher_->start(tail);
  const bool nothing_local = segments.empty();
  if (nothing_local)
    replay_marks_.assign(
        1, {start.next_sequence - 1, start.previous_chain, start.next_group - 1, start.previous_tag});
  for (SealedSegment& segment : segments) {
    replay_marks_.push_back(
        {segment.header.id.sequence, segment.chain, segment.last_group, segment.last_group_tag});
    if (unplaced_.contains(segment.header.id.sequence)) pusher_->push_again(std::move(segment));
  }
  // Before the mark says that nothing older is needed: a crash in between must find the miners' listings
  // again.
  if (inventory_) CO_TRY_OK(co_await note_placements());
  if (replay_marks_.front().sequence != saved_mark_) CO_TRY_OK(co_await save_replay_start());
  slots_->set_replay_floor(saved_mark_ + 1);
  tasks_.spawn(keep_house());
  tasks_.spawn(follow_claimed_list());
  co_return Status();
}

Task<Status> StoreVolume::count_stored() {
  for (Sequence after = 0;;) {
    CO_TRY(const auto page, co_await index_->placed_list(SegmentKind::log, after, 4096));
    for (const PlacedSegment& segment : page) {
      ++stored_segments_;
      stored_bytes_ += segment.placed.length;
      after = segment.placed.segment.sequence;
    }
    if (page.size() < 4096) co_return Status();
  }
}

// After a rebuild the log's Placed changes may name miners that lost their slices since: the listings say
// where they are.
Task<Status> StoreVolume::note_placements() {
  // A group must fit in a segment, and there may be small ones.
  const std::size_t note_most = 128 + sizeof(MinerId) * (std::size_t{shape_.k} + shape_.m);
  const std::size_t notes_most = std::clamp<std::size_t>(log_->group_room() / 2 / note_most, 1, 256);
  std::vector<Change> changes;
  const auto commit = [&]() -> Task<Status> {
    const Committer::BuildChanges build = [&]() -> Result<std::vector<Change>> {
      return std::exchange(changes, {});
    };
    auto done = co_await committer_->commit_changes(build, true);
    if (!done) co_return fail(done.error());
    co_return Status();
  };
  for (const auto& [id, same] : inventory_->segments()) {
    for (const auto& segment : same) {
      // What a writer that was taken over left behind, perhaps half stored, is nobody's; nor is what a home
      // wrote before an older copy of its disk was put back, under the same name and salt. Of the log and
      // beyond the tail: what was given up.
      const bool of_the_log =
          of_the_log_.contains(segment.get()) && segment->manifest.last_group <= recovered_;
      if (id.kind == SegmentKind::log && !of_the_log) continue;
      CO_TRY(const auto known, co_await index_->placed(id));
      change::Placed found = segment->placed();
      if (known && known->placed.salt != found.salt) continue;  // another home's segment of the same name
      // A slice that nobody listed may be on a miner that is away: keep what the log says of it. Where its
      // miner still has it too: other copies are what a repair left behind.
      if (known)
        for (const std::uint16_t i : slice_indices(found.miners.size()))
          if (found.miners[i] == MinerId{} || segment->holds(i, known->placed.miners[i]))
            found.miners[i] = known->placed.miners[i];
      if (known && known->placed == found) continue;
      if (!known) {
        ++stored_segments_;
        stored_bytes_ += found.length;
      }
      changes.emplace_back(std::move(found));
      if (changes.size() >= notes_most) CO_TRY_OK(co_await commit());
    }
  }
  if (!changes.empty()) CO_TRY_OK(co_await commit());
  CO_TRY_OK(co_await committer_->durable(committer_->accepted()));
  of_the_log_.clear();
  inventory_.reset();
  co_return Status();
}

}  // namespace cumulus
