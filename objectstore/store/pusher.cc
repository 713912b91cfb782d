#include "objectstore/store/pusher.h"

#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/crypto/merkle.h"
#include "objectstore/crypto/sign.h"
#include "objectstore/erasure/codec.h"
#include "objectstore/erasure/geometry.h"
#include "objectstore/log/group.h"
#include "objectstore/log/replay.h"
#include "objectstore/store/segment_name.h"
#include "objectstore/store/slice_upload.h"

namespace cumulus {
namespace {

constexpr Duration kStatusInterval = std::chrono::seconds(30);
constexpr Duration kStatusIntervalMissing = std::chrono::seconds(2);
constexpr Duration kProgressInterval = std::chrono::milliseconds(200);
constexpr Duration kRetryMin = std::chrono::milliseconds(500);
constexpr Duration kRetryMax = std::chrono::seconds(15);

std::size_t parity_size(const VolumeShape& shape) {
  const auto geometry = SliceGeometry::of(std::uint64_t{1} << shape.segment_log2, shape.k, shape.m);
  return std::max<std::size_t>(1, geometry.slice_length * shape.m);
}

}  // namespace

// A segment ready to be sent: views of its slices, its parity, and its signed manifest.
struct Pusher::Prepared {
  std::shared_ptr<const Buffer> data;
  std::shared_ptr<Buffer> parity;
  std::vector<ByteView> slices;  // k + m, into `data` and `parity`
  Manifest manifest;
  std::shared_ptr<const Bytes> encoded;
};

Pusher::Pusher(Runtime& runtime, SliceTransport& transport, const KeyTree& keys, TailKeeper& tail,
               PusherOptions options, LoadSegment load, OnStored on_stored, Metrics& metrics)
    : runtime_(runtime),
      transport_(transport),
      keys_(keys),
      tail_(tail),
      options_(options),
      load_(std::move(load)),
      on_stored_(std::move(on_stored)),
      eligible_(runtime, transport),
      parity_(parity_size(options.shape), options.in_flight_max),
      segments_stored_(metrics.counter("cumulus_segments_stored_total")),
      bytes_sent_(metrics.counter("cumulus_slice_bytes_stored_total")),
      wake_(runtime),
      progress_(runtime),
      tasks_(runtime) {}

Pusher::~Pusher() = default;

void Pusher::start(Tail stored) {
  stored_ = stored;
  tasks_.spawn(watch_miners());
  tasks_.spawn(follow_tail());
  for (std::uint32_t i = 0; i < options_.in_flight_max; ++i) tasks_.spawn(work());
}

void Pusher::stop_waiting() {
  unwaited_ = true;
  progress_.notify_all();
}

Task<void> Pusher::close() {
  stopping_ = over_ = true;
  wake_.notify_all();
  progress_.notify_all();
  tail_.changed().notify_all();  // follow_tail() waits there
  co_await tasks_.join();
}

void Pusher::push(SealedSegment segment) { enqueue({std::move(segment), false}); }
void Pusher::push_again(SealedSegment segment) { enqueue({std::move(segment), true}); }

void Pusher::enqueue(Item item) {
  const SegmentId& id = item.segment.header.id;
  if (id.kind == SegmentKind::log && id.sequence > tail_.accepted().tail.through.sequence)
    dirty_[id.sequence] = item.segment.length;
  queue_.push_back(std::move(item));
  trim_memory();
  wake_.notify_all();
}

// Segments that wait longest are sent first: they keep their memory, the newest give theirs up.
void Pusher::trim_memory() {
  std::uint64_t held = 0;
  for (Item& item : queue_) {
    if (!item.segment.memory) continue;
    held += item.segment.memory->size();
    if (held > options_.queue_memory_max) item.segment.memory.reset();
  }
}

std::uint64_t Pusher::dirty_bytes() const {
  std::uint64_t bytes = 0;
  for (const auto& [sequence, length] : dirty_) bytes += length;
  return bytes;
}

// --- the tail ---

void Pusher::advance(const SealedSegment& segment) {
  const SegmentId& id = segment.header.id;
  if (id.kind != SegmentKind::log || id.sequence <= stored_.through.sequence) return;
  stored_ahead_[id.sequence] = {segment.header.previous_chain, {id, segment.chain, segment.last_group}};
  move_prefix();
}

// The prefix grows over whatever is stored next to it. A segment that does not continue the chain is of
// another history (a restored or cloned home): a tail that covered it could never be recovered, so it stops
// the tail for good.
void Pusher::move_prefix() {
  stored_ahead_.erase(stored_ahead_.begin(), stored_ahead_.upper_bound(stored_.through.sequence));
  while (!stored_ahead_.empty() && stored_ahead_.begin()->first == stored_.through.sequence + 1) {
    const Ahead& next = stored_ahead_.begin()->second;
    if (next.previous_chain != stored_.chain) {
      std::string& obstacle = obstacles_[next.tail.through];
      obstacle = name_of(next.tail.through) +
                 " does not continue what is stored: the log of this home is of another history";
      log_error("{}", obstacle);
      return;
    }
    stored_ = next.tail;
    stored_ahead_.erase(stored_ahead_.begin());
  }
  // What was adopted when the volume was claimed may be ahead of us.
  tail_.advance(stored_);
}

// Wakes those who wait for the accepted tail, and the workers when the volume is claimed or fenced.
Task<void> Pusher::follow_tail() {
  while (!stopping_) {
    const Tail& accepted = tail_.accepted().tail;
    dirty_.erase(dirty_.begin(), dirty_.upper_bound(accepted.through.sequence));
    if (tail_.claimed() && accepted.through.sequence > stored_.through.sequence) {
      stored_ = accepted;
      move_prefix();
    }
    over_ = over_ || tail_.fenced();
    progress_.notify_all();
    wake_.notify_all();
    co_await tail_.changed().wait();
  }
}

Task<Status> Pusher::wait_remote(LogPosition position, Progress progress) {
  const std::uint64_t total = dirty_bytes();
  const TailKeeper::Awaited awaited(tail_, position);
  while (remote() < position) {
    if (tail_.fenced()) co_return fail(*tail_.fenced());
    if (stopping_ || unwaited_) co_return fail(ErrorKind::closed, "the volume is being closed");
    const std::uint64_t dirty = std::min(dirty_bytes(), total);
    if (progress && !progress(total - dirty, total)) co_return fail(ErrorKind::closed, "interrupted");
    co_await progress_.wait_until(runtime_.now() + kProgressInterval);
  }
  if (progress) progress(total, total);
  co_return Status();
}

Task<Status> Pusher::wait_for_those_under_way(Duration patience) {
  const std::uint64_t last = begun_;
  const TimePoint deadline = runtime_.now() + patience;
  while (!under_way_.empty() && *under_way_.begin() <= last) {
    if (stopping_ || unwaited_) co_return fail(ErrorKind::closed, "the volume is being closed");
    if (runtime_.now() >= deadline)
      co_return fail(ErrorKind::unavailable,
                     "segments are on their way to the miners, and do not get there: " + obstacle());
    co_await progress_.wait_until(deadline);
  }
  co_return Status();
}

// --- sending ---

Task<void> Pusher::watch_miners() {
  while (!stopping_) {
    co_await eligible_.refresh(runtime_.now() + options_.request_deadline);
    wake_.notify_all();
    const TimePoint asked = runtime_.now();
    const auto next = [&] {
      return asked + (eligible_.any_missing() ? kStatusIntervalMissing : kStatusInterval);
    };
    while (!stopping_ && runtime_.now() < next()) co_await wake_.wait_until(next());
  }
}

Task<void> Pusher::work() {
  while (!stopping_) {
    if (queue_.empty() || !tail_.claimed()) {
      co_await wake_.wait();
      continue;
    }
    Item item = std::move(queue_.front());
    queue_.pop_front();
    const std::uint64_t number = ++begun_;
    under_way_.insert(number);
    Duration pause = kRetryMin;
    while (!over_) {
      const Status stored = co_await store(item);
      if (stored || over_ || tail_.fenced()) break;
      note_obstacle(item.segment.header.id, stored.error().message());
      log_warn("{}", obstacles_[item.segment.header.id]);
      const TimePoint until = runtime_.now() + pause;
      while (!over_ && runtime_.now() < until) co_await wake_.wait_until(until);
      pause = std::min(pause * 2, kRetryMax);
    }
    under_way_.erase(number);
    progress_.notify_all();
  }
}

void Pusher::note_obstacle(const SegmentId& segment, const std::string& reason) {
  obstacles_[segment] = name_of(segment) + ": " + reason;
}

// The prefix waits for its first segment: what keeps that one is the reason.
std::string Pusher::obstacle() const {
  return obstacles_.empty() ? tail_.obstacle() : obstacles_.begin()->second;
}

Task<Status> Pusher::store(Item& item) {
  SealedSegment& segment = item.segment;
  if (!segment.memory) CO_TRY_OK(co_await load_bytes(segment));
  CO_TRY(const std::shared_ptr<Prepared> prepared, co_await prepare(segment));

  UploadPlan plan;
  plan.segment = segment.header.id;
  plan.manifest = prepared->encoded;
  plan.request_deadline = options_.request_deadline;
  plan.volume = keys_.volume_id();
  plan.m = options_.shape.m;
  plan.on_destroyed = [this] { tail_.doubt(); };
  plan.on_waiting = [this, id = segment.header.id](const std::string& reason) { note_obstacle(id, reason); };
  plan.miners.resize(prepared->slices.size());
  if (item.again) plan.miners = co_await find_held(segment.header.id, *prepared);
  std::uint64_t sent = 0;
  for (const std::uint16_t i : slice_indices(prepared->slices.size())) {
    if (plan.miners[i] != MinerId{}) continue;
    SliceSource source;
    source.index = i;
    source.data = prepared->slices[i];
    source.owner = prepared;
    sent += source.data.size();
    plan.slices.push_back(std::move(source));
  }
  CO_TRY(std::vector<MinerId> miners,
         co_await upload_slices(runtime_, transport_, eligible_, std::move(plan), over_, wake_));
  if (tail_.fenced()) co_return fail(*tail_.fenced());

  change::Placed placed;
  placed.segment = segment.header.id;
  placed.salt = segment.header.salt;
  placed.length = static_cast<std::uint32_t>(segment.length);
  placed.k = options_.shape.k;
  placed.m = options_.shape.m;
  placed.miners = std::move(miners);
  if (is_crowded(placed.miners)) ++crowded_;
  const Status staged = co_await on_stored_(std::move(placed), prepared->manifest);
  if (!staged) log_warn("{}: noting its miners: {}", name_of(segment.header.id), staged.error().message());
  obstacles_.erase(segment.header.id);
  segments_stored_.add();
  bytes_sent_.add(sent);
  advance(segment);
  co_return Status();
}

// Bytes that left memory are trusted no more than any disk: every group must open before they are sent.
Task<Status> Pusher::load_bytes(SealedSegment& segment) {
  CO_TRY(std::shared_ptr<const Buffer> bytes, co_await load_(segment));
  if (bytes->size() < segment.length)
    co_return fail(ErrorKind::corrupt, "its local copy is shorter than it was sealed");
  // What lies between the parts is authenticated by nothing, and the manifest signs it too: zeros, as they
  // were written, or two homes that send this segment would sign two contents.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> gaps;
  std::uint32_t at = std::uint32_t{1} << segment.header.align_log2;
  gaps.emplace_back(SegmentHeader::kEncodedSize, at);
  GroupVisitor visit = [&](const ReplayedGroup& group) -> Task<Status> {
    const GroupLayout layout{at, group.header.records_length, group.header.cells_length,
                             segment.header.align_log2};
    at += group.header.total_length;
    gaps.emplace_back(layout.content_end(), at);
    co_return Status();
  };
  CO_TRY(const SegmentScan scan, co_await scan_segment(runtime_, keys_, bytes, segment.length, std::nullopt,
                                                       0, true, std::move(visit)));
  if (scan.header != segment.header || scan.good_length != segment.length ||
      scan.last_group_tag != segment.last_group_tag)
    co_return fail(
        ErrorKind::corrupt,
        format("its local copy has rotted at byte {} and it is not stored on the miners yet: the disk "
               "of the cache is failing",
               scan.bad_at));
  const auto rotten = [&](const auto& gap) {
    return std::ranges::any_of(bytes->view(gap.first, gap.second - gap.first),
                               [](std::uint8_t byte) { return byte != 0; });
  };
  if (std::ranges::any_of(gaps, rotten)) {
    auto mended = std::make_shared<Buffer>(segment.length);
    copy_bytes(bytes->view(0, segment.length), mended->data());
    for (const auto& [from, to] : gaps) std::ranges::fill(mended->view(from, to - from), std::uint8_t{0});
    log_warn("{}: its padding has rotted on the local disk, and is sent as it was",
             name_of(segment.header.id));
    bytes = std::move(mended);
  }
  segment.memory = std::move(bytes);
  co_return Status();
}

Task<Result<std::shared_ptr<Pusher::Prepared>>> Pusher::prepare(const SealedSegment& segment) {
  auto prepared = std::make_shared<Prepared>();
  prepared->data = segment.memory;
  prepared->parity = parity_.acquire();
  const VolumeShape& shape = options_.shape;
  const SliceGeometry geometry = SliceGeometry::of(segment.length, shape.k, shape.m);
  CHECK(geometry.slice_length * shape.m <= prepared->parity->size());
  const ByteView bytes = segment.memory->view(0, segment.length);
  std::vector<MutableByteView> parity;
  for (std::uint16_t i = 0; i < shape.k; ++i)
    prepared->slices.push_back(bytes.subspan(std::min<std::uint64_t>(geometry.slice_length * i, bytes.size()),
                                             geometry.stored_length(i)));
  for (std::uint16_t i = 0; i < shape.m; ++i) {
    parity.push_back(prepared->parity->view(geometry.slice_length * i, geometry.slice_length));
    prepared->slices.push_back(parity.back());
  }

  Manifest& manifest = prepared->manifest;
  manifest.header = segment.header;
  manifest.segment_length = segment.length;
  manifest.k = shape.k;
  manifest.m = shape.m;
  manifest.slice_length = geometry.slice_length;
  manifest.first_group = segment.first_group;
  manifest.last_group = segment.last_group;
  manifest.last_group_tag = segment.last_group_tag;
  co_await runtime_.offload([&] {
    ErasureCode::of(shape.k, shape.m).encode(std::span(prepared->slices).first(shape.k), parity);
    for (const ByteView slice : prepared->slices) manifest.roots.push_back(merkle_root(slice));
    sign_manifest(manifest, keys_.signing_key());
  });
  prepared->encoded = std::make_shared<const Bytes>(manifest.encode());
  co_return prepared;
}

// Which miners hold which slices of it already, by their word: a PUT of the rest completes it, and rot is the
// audit's.
Task<std::vector<MinerId>> Pusher::find_held(const SegmentId& segment, const Prepared& prepared) {
  std::vector<MinerId> held(prepared.slices.size());
  std::vector<SliceId> wanted;
  wanted.reserve(held.size());
  for (const std::uint16_t i : slice_indices(held.size())) wanted.push_back({segment, i});
  const std::vector<MinerEntry> miners = transport_.miners();
  // What a miner claims to hold is believed once, as in any push, when there are miners enough: m that lie
  // cost m slices.
  const bool enough = eligible_.candidates().size() >= held.size();
  const std::uint32_t per_miner_max = enough ? 1 : std::max<std::uint32_t>(1, options_.shape.m);
  TaskGroup asks(runtime_);
  for (const MinerEntry& entry : miners) {
    if (entry.weight <= 0) continue;  // it drains, or is about to go
    asks.spawn([&, miner = entry.id]() -> Task<void> {
      const TimePoint deadline = runtime_.now() + options_.request_deadline;
      auto answer = co_await transport_.have(miner, wanted, deadline);
      if (!answer || answer->size() != wanted.size()) co_return;
      for (std::size_t i = 0; i < held.size(); ++i)
        if (held[i] == MinerId{} && (*answer)[i] == prepared.manifest.roots[i] &&
            std::ranges::count(held, miner) < per_miner_max)
          held[i] = miner;
    });
  }
  co_await asks.join();
  co_return held;
}

}  // namespace cumulus
