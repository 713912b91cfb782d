#include "objectstore/store/slice_fetcher.h"

#include <algorithm>
#include <array>
#include <set>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/crypto/merkle.h"
#include "objectstore/crypto/sign.h"
#include "objectstore/erasure/geometry.h"
#include "objectstore/manifest.h"
#include "objectstore/store/lost_slices.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kLargeRead = 256u << 10;
constexpr Duration kHedgeMin = std::chrono::milliseconds(5);
constexpr Duration kRetryMin = std::chrono::milliseconds(200);
constexpr Duration kRetryMax = std::chrono::seconds(5);
// However short an outage is waited for: a miner that is only slow is heard out for so long.
constexpr Duration kSilenceMin = std::chrono::seconds(10);
constexpr std::uint64_t kAskSlowMinerEvery = 32;
// Attempts whose reads, which nobody waits for any more, may go on.
constexpr std::size_t kLeftMax = 256;

// Of a manifest whose version is not known: the key that signed it (its last but 64 bytes) is the volume's.
bool ends_with_key_of(ByteView manifest, const VolumeId& volume) {
  constexpr std::size_t kKeySize = 32;
  constexpr std::size_t kSignatureSize = 64;
  if (manifest.size() < kKeySize + kSignatureSize) return false;
  std::array<std::uint8_t, kKeySize> key;
  copy_bytes(manifest.last(kKeySize + kSignatureSize).first(kKeySize), key.data());
  return volume_id_of(key) == volume;
}

}  // namespace

// Slices are equal ranges [low, high) of their own bytes. A slot's memory is written by its read only, so a
// late answer never touches bytes that were handed on: what is handed on while a read is still under way is a
// copy.
//
// state    | means
// idle     | not asked
// asked    | a read is under way into `bytes`
// good     | `bytes` holds what the miner answered
// failed   | no answer in time, or no connection: may come back
// gone     | the miner answered: it has no such slice, or a wrong one
struct SliceFetcher::Stripe {
  enum class State : std::uint8_t { idle, asked, good, failed, gone };
  struct Slot {
    State state = State::idle;
    std::shared_ptr<Buffer> owner;
    MutableByteView bytes;
    std::uint64_t stored = 0;  // bytes of [low, high) that the miner holds; the rest are zeros
  };

  explicit Stripe(Runtime& runtime) : changed(runtime) {}

  change::Placed placed;
  SliceGeometry geometry;
  FetchTrust trust = FetchTrust::plain;
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  std::vector<std::uint16_t> wanted;  // data slices
  std::vector<Slot> slots;            // k + m
  std::optional<Error> unknown;       // proven reads: the owner signed what this program does not know
  bool over = false;                  // nobody waits for it any more
  Signal changed;

  std::uint64_t length() const { return high - low; }
  std::size_t count(State state) const {
    return static_cast<std::size_t>(std::ranges::count(slots, state, &Slot::state));
  }
  bool wanted_good() const {
    return std::ranges::all_of(wanted, [this](std::uint16_t i) { return slots[i].state == State::good; });
  }
  bool asked_in_vain(std::uint16_t i) const {
    return slots[i].state != State::idle && slots[i].state != State::good;
  }
  bool decodable() const { return count(State::good) >= placed.k; }
};

SliceFetcher::SliceFetcher(Runtime& runtime, SliceTransport& transport, VolumeId volume,
                           std::uint32_t segment_size, Duration request_deadline, const MemoryShares& memory,
                           Metrics& metrics)
    : runtime_(runtime),
      transport_(transport),
      volume_(volume),
      request_deadline_(request_deadline),
      metrics_(metrics),
      hedges_(metrics.counter("cumulus_read_hedges_total")),
      decodes_(metrics.counter("cumulus_read_decodes_total")),
      liars_(metrics.counter("cumulus_read_wrong_answers_total")),
      left_bytes_max_(memory.reads_left),
      segments_(segment_size, std::max<std::size_t>(1, memory.segments_recent / segment_size)),
      closed_(runtime),
      tasks_(runtime) {}

SliceFetcher::~SliceFetcher() = default;

void SliceFetcher::stop() {
  closing_ = true;
  closed_.notify_all();
}

Task<void> SliceFetcher::close() {
  stop();
  co_await tasks_.join();
}

Task<Result<FetchedRange>> SliceFetcher::fetch(change::Placed placed, std::uint32_t offset,
                                               std::uint32_t length, FetchTrust trust,
                                               std::optional<Duration> patience) {
  const TimePoint give_up = patience ? runtime_.now() + *patience : TimePoint::max();
  Duration pause = kRetryMin;
  for (;;) {
    if (closing_) co_return fail(ErrorKind::closed, "the volume is being closed");
    const TimePoint began = runtime_.now();
    const Duration left = patience ? std::max(give_up - began, kSilenceMin) : Duration::max();
    const TimePoint until = began + std::min<Duration>(left, request_deadline_ + std::chrono::seconds(1));
    std::vector<std::uint16_t> lost;
    auto fetched = co_await attempt(placed, offset, length, trust, until, lost);
    if (fetched) co_return fetched;
    auto elsewhere = co_await fetch_elsewhere(placed, std::move(lost), offset, length, trust, until);
    if (elsewhere) co_return elsewhere;
    const TimePoint now = runtime_.now();
    if (fetched.error().kind() != ErrorKind::unavailable || now >= give_up) co_return fetched;
    if (closing_) continue;
    co_await closed_.wait_until(std::min(give_up, now + pause));
    pause = std::min(pause * 2, kRetryMax);
  }
}

// From others than those who are named, as long as there are any. What they do not have, or have wrong, says
// nothing about the segment.
Task<Result<FetchedRange>> SliceFetcher::fetch_elsewhere(change::Placed placed,
                                                         std::vector<std::uint16_t> lost,
                                                         std::uint32_t offset, std::uint32_t length,
                                                         FetchTrust trust, TimePoint until) {
  TriedHolders tried;
  for (;;) {
    const bool learned =
        co_await find_lost_slices(runtime_, transport_, placed, std::move(lost), tried, until);
    if (!learned || closing_) co_return fail(ErrorKind::unavailable, "nobody else has its slices");
    lost.clear();
    const TimePoint again = std::max(until, runtime_.now() + kSilenceMin);
    auto fetched = co_await attempt(placed, offset, length, trust, again, lost);
    if (fetched) co_return fetched;
  }
}

Task<Result<FetchedRange>> SliceFetcher::attempt(change::Placed placed, std::uint32_t offset,
                                                 std::uint32_t length, FetchTrust trust, TimePoint until,
                                                 std::vector<std::uint16_t>& lost) {
  const SliceGeometry geometry = SliceGeometry::of(placed.length, placed.k, placed.m);
  CHECK(offset <= placed.length && length <= placed.length - offset);
  FetchedRange out;
  out.owner = length > segments_.buffer_size() / 2 ? segments_.acquire() : std::make_shared<Buffer>(length);
  const MutableByteView target = out.owner->view(0, length);

  // Whole slices share one stripe (they are read and decoded together); the ragged ends are stripes of their
  // own.
  std::vector<std::shared_ptr<Stripe>> stripes;
  std::shared_ptr<Stripe> whole;
  std::vector<SlicePiece> pieces = geometry.pieces(offset, length);
  for (const SlicePiece& piece : pieces) {
    const bool is_whole =
        piece.offset == 0 && piece.length == geometry.stored_length(piece.slice) && pieces.size() > 1;
    std::shared_ptr<Stripe> stripe = is_whole ? whole : nullptr;
    if (!stripe) {
      stripe = std::make_shared<Stripe>(runtime_);
      stripe->placed = placed;
      stripe->geometry = geometry;
      stripe->trust = trust;
      stripe->low = is_whole ? 0 : piece.offset;
      stripe->high = is_whole ? geometry.slice_length : piece.offset + piece.length;
      stripe->slots.resize(std::size_t{placed.k} + placed.m);
      for (const std::uint16_t i : slice_indices(stripe->slots.size())) {
        const std::uint64_t stored = geometry.stored_length(i);
        stripe->slots[i].stored = std::clamp(stored, stripe->low, stripe->high) - stripe->low;
      }
      stripes.push_back(stripe);
      if (is_whole) whole = stripe;
    }
    stripe->wanted.push_back(piece.slice);
    stripe->slots[piece.slice].owner = out.owner;
    stripe->slots[piece.slice].bytes = target.subspan(piece.target_offset, piece.length);
  }

  auto gathered = co_await gather(stripes, pieces, std::move(out), length, until);
  const bool spoiled = !gathered && gathered.error().kind() != ErrorKind::unsupported;
  for (const std::uint16_t i : slice_indices(spoiled ? placed.miners.size() : 0))
    if (std::ranges::any_of(stripes, [i](const auto& stripe) { return stripe->asked_in_vain(i); }))
      lost.push_back(i);
  leave(std::move(stripes));
  co_return gathered;
}

// Fills the stripes; what the miners that were asked first do not give is decoded.
Task<Result<FetchedRange>> SliceFetcher::gather(const std::vector<std::shared_ptr<Stripe>>& stripes,
                                                const std::vector<SlicePiece>& pieces, FetchedRange out,
                                                std::uint32_t length, TimePoint until) {
  std::vector<std::shared_ptr<Status>> ends;
  TaskGroup parts(runtime_);
  for (const auto& stripe : stripes) {
    auto end = ends.emplace_back(std::make_shared<Status>());
    parts.spawn([this, stripe, end, until]() -> Task<void> { *end = co_await fill(stripe, until); });
  }
  co_await parts.join();
  bool late = false;
  for (std::size_t i = 0; i < stripes.size(); ++i) {
    CO_TRY_OK(*ends[i]);
    for (const std::uint16_t slice : stripes[i]->wanted)
      late = late || stripes[i]->slots[slice].state != Stripe::State::good;
  }
  if (!late) {
    out.bytes = out.owner->view(0, length);
    co_return out;
  }

  // Some wanted slice must be decoded. Reads that are still under way may write into the first buffer: use
  // another.
  decodes_.add();
  FetchedRange decoded;
  decoded.owner =
      length > segments_.buffer_size() / 2 ? segments_.acquire() : std::make_shared<Buffer>(length);
  decoded.bytes = decoded.owner->view(0, length);
  std::size_t at = 0;
  const bool right = co_await runtime_.offload([&] {
    const change::Placed& placed = stripes.front()->placed;
    const ErasureCode& code = ErasureCode::of(placed.k, placed.m);
    bool all = true;
    for (const SlicePiece& piece : pieces) {
      const auto& stripe = [&]() -> const Stripe& {
        for (const auto& candidate : stripes)
          if (std::ranges::find(candidate->wanted, piece.slice) != candidate->wanted.end()) return *candidate;
        check_failed("every piece has a stripe", __FILE__, __LINE__);
      }();
      const MutableByteView into = decoded.owner->view(piece.target_offset, piece.length);
      ++at;
      if (stripe.slots[piece.slice].state == Stripe::State::good) {
        copy_bytes(stripe.slots[piece.slice].bytes, into.data());
        continue;
      }
      std::vector<PresentSlice> present;
      for (std::uint16_t i = 0; i < stripe.slots.size() && present.size() < placed.k; ++i)
        if (stripe.slots[i].state == Stripe::State::good)
          present.push_back({i, stripe.slots[i].bytes.first(stripe.slots[i].stored)});
      all = all && code.reconstruct(present, piece.slice, stripe.length(), into);
    }
    return all;
  });
  if (!right) co_return fail(ErrorKind::corrupt, "the slices of a segment do not decode");
  co_return decoded;
}

// Everything but what reads under way write into is let go of; when those hold too much the oldest are called
// off, and how long they took is what is known of their miners.
void SliceFetcher::leave(std::vector<std::shared_ptr<Stripe>> stripes) {
  const auto asked = [](const Stripe::Slot& slot) { return slot.state == Stripe::State::asked; };
  for (const auto& stripe : stripes) {
    stripe->over = true;
    for (Stripe::Slot& slot : stripe->slots)
      if (!asked(slot)) slot.owner.reset();
  }
  left_.push_back(std::move(stripes));
  std::uint64_t held = 0;
  std::size_t count = 0;
  for (auto at = std::prev(left_.end());;) {  // from the newest
    std::set<std::shared_ptr<Buffer>> owners;
    for (const auto& stripe : *at)
      for (const Stripe::Slot& slot : stripe->slots)
        if (asked(slot)) owners.insert(slot.owner);
    for (const auto& owner : owners) held += owner->size();
    ++count;
    const bool first = at == left_.begin();
    const auto older = first ? at : std::prev(at);
    if (owners.empty() || held > left_bytes_max_ || count > kLeftMax) {
      left_.erase(at);
      for (const auto& owner : owners) transport_.interrupt_reads(owner.get());
    }
    if (first) break;
    at = older;
  }
}

Duration SliceFetcher::pace_of(const MinerId& miner, std::uint64_t length) const {
  const auto found = pace_.find(miner);
  const Duration seen = found == pace_.end()   ? Duration{}
                        : length >= kLargeRead ? found->second.large
                                               : found->second.small;
  return std::max(seen, transport_.expected_latency(miner));
}

void SliceFetcher::note_pace(const MinerId& miner, std::uint64_t length, Duration took) {
  MinerPace& pace = pace_[miner];
  Duration& smoothed = length >= kLargeRead ? pace.large : pace.small;
  smoothed = smoothed == Duration{} ? took : (smoothed * 3 + took) / 4;
}

// Twice what the median miner of this segment takes: a slower one is not worth waiting for.
Duration SliceFetcher::hedge_delay(const Stripe& stripe) const {
  std::vector<Duration> paces;
  paces.reserve(stripe.placed.miners.size());
  for (const MinerId& miner : stripe.placed.miners) paces.push_back(pace_of(miner, stripe.length()));
  std::ranges::sort(paces);
  return std::max(kHedgeMin, paces[paces.size() / 2] * 2);
}

bool SliceFetcher::is_slow(const Stripe& stripe, std::uint16_t index) const {
  return pace_of(stripe.placed.miners[index], stripe.length()) > hedge_delay(stripe) * 2;
}

Task<Status> SliceFetcher::fill(std::shared_ptr<Stripe> stripe, TimePoint deadline) {
  using State = Stripe::State;
  const std::size_t k = stripe->placed.k;
  for (const std::uint16_t index : stripe->wanted) {
    // A miner known to be slow is passed over when others can stand in for it; now and then it gets another
    // chance.
    if (is_slow(*stripe, index) && ++pace_[stripe->placed.miners[index]].skipped % kAskSlowMinerEvery != 0 &&
        ask_another(stripe))
      continue;
    ask(stripe, index);
  }
  TimePoint hedge_at = runtime_.now() + hedge_delay(*stripe);
  for (;;) {
    if (stripe->wanted_good() || stripe->decodable()) co_return Status();
    // Ask as many others as failures need; slowness asks for one more at a time.
    while (stripe->count(State::good) + stripe->count(State::asked) < std::min(k, stripe->slots.size())) {
      if (stripe->wanted.size() == 1 && stripe->slots[stripe->wanted[0]].state == State::asked) break;
      if (!ask_another(stripe)) break;
    }
    if (stripe->count(State::asked) == 0) break;
    if (runtime_.now() >= deadline) break;
    const bool woken = co_await stripe->changed.wait_until(std::min(deadline, hedge_at));
    if (!woken && runtime_.now() >= hedge_at) {
      hedges_.add();
      // One wanted slice that does not come needs k others.
      std::size_t more = stripe->wanted.size() == 1 ? k : 1;
      while (more > 0 && ask_another(stripe)) --more;
      hedge_at = runtime_.now() + hedge_delay(*stripe);
    }
  }
  const std::size_t gone = stripe->count(State::gone);
  const std::string what =
      format("segment {}/{}: {} of {} slices answered well, {} are needed; {} are missing or wrong",
             stripe->placed.segment.epoch, stripe->placed.segment.sequence, stripe->count(State::good),
             stripe->slots.size(), k, gone);
  if (stripe->unknown) co_return fail(stripe->unknown->within(what));
  if (stripe->slots.size() - gone < k) co_return fail(ErrorKind::corrupt, what);
  co_return fail(ErrorKind::unavailable, what + "; the other miners do not answer");
}

// Asks the fastest slice that was not asked yet; false when there is none.
bool SliceFetcher::ask_another(const std::shared_ptr<Stripe>& stripe) {
  std::optional<std::uint16_t> best;
  Duration best_pace{};
  for (const std::uint16_t i : slice_indices(stripe->slots.size())) {
    if (stripe->slots[i].state != Stripe::State::idle) continue;
    const Duration pace = pace_of(stripe->placed.miners[i], stripe->length());
    if (best && pace >= best_pace) continue;
    best = i;
    best_pace = pace;
  }
  if (best) ask(stripe, *best);
  return best.has_value();
}

void SliceFetcher::ask(const std::shared_ptr<Stripe>& stripe, std::uint16_t index) {
  Stripe::Slot& slot = stripe->slots[index];
  if (slot.state != Stripe::State::idle) return;
  if (!slot.owner) {
    slot.owner = stripe->length() > segments_.buffer_size() / 2 ? segments_.acquire()
                                                                : std::make_shared<Buffer>(stripe->length());
    slot.bytes = slot.owner->view(0, slot.stored);
  }
  if (slot.stored == 0) {
    slot.state = Stripe::State::good;  // zeros that no miner stores
    return;
  }
  slot.state = Stripe::State::asked;
  tasks_.spawn(read_slice(stripe, index));
}

Task<void> SliceFetcher::read_slice(std::shared_ptr<Stripe> stripe, std::uint16_t index) {
  using State = Stripe::State;
  Stripe::Slot& slot = stripe->slots[index];
  const MinerId miner = stripe->placed.miners[index];
  const TimePoint began = runtime_.now();
  Result<SliceReadAnswer> answer = fail(ErrorKind::unavailable, "the miner is not in the volume's list");
  if (is_listed(transport_, miner)) {
    if (stripe->trust == FetchTrust::proven) {
      answer = co_await read_proven(*stripe, index, slot.bytes);
    } else {
      SliceRead request;
      request.slice = {stripe->placed.segment, index};
      request.offset = stripe->low;
      request.length = slot.stored;
      request.into = slot.bytes.first(slot.stored);
      request.owner = slot.owner;
      answer = co_await transport_.read(miner, std::move(request), began + request_deadline_);
    }
  }
  if (answer) {
    note_pace(miner, slot.stored, runtime_.now() - began);
    slot.state = State::good;
  } else if (stripe->over && answer.error().kind() == ErrorKind::closed) {
    const Duration so_far = runtime_.now() - began;
    if (so_far > pace_of(miner, slot.stored)) note_pace(miner, slot.stored, so_far);
    slot.state = State::failed;
  } else {
    const ErrorKind kind = answer.error().kind();
    const bool gone = kind == ErrorKind::not_found || kind == ErrorKind::corrupt;
    slot.state = gone ? State::gone : State::failed;
    if (kind == ErrorKind::corrupt) liars_.add();
    if (kind == ErrorKind::unsupported && stripe->trust == FetchTrust::proven)
      stripe->unknown = answer.error();
    metrics_.counter("cumulus_miner_read_failures_total{miner=\"" + miner.brief() + "\"}").add();
  }
  if (stripe->over) slot.owner.reset();
  stripe->changed.notify_all();
}

Task<Result<SliceReadAnswer>> SliceFetcher::read_proven(const Stripe& stripe, std::uint16_t index,
                                                        MutableByteView into) {
  const Stripe::Slot& slot = stripe.slots[index];
  const change::Placed& placed = stripe.placed;
  SliceRead request;
  request.slice = {placed.segment, index};
  request.offset = stripe.low;
  request.length = slot.stored;
  request.with_proof = true;
  request.with_manifest = true;
  request.owner = slot.owner;
  const TimePoint deadline = runtime_.now() + request_deadline_;
  auto answer = co_await transport_.read(placed.miners[index], std::move(request), deadline);
  if (!answer) co_return answer;
  const auto decoded = Manifest::decode(answer->manifest);
  if (!decoded && decoded.error().kind() == ErrorKind::unsupported &&
      !ends_with_key_of(answer->manifest, volume_))
    co_return fail(ErrorKind::corrupt, "the miner answers with a manifest that the owner did not sign");
  CO_TRY_OK(decoded);
  const Manifest& manifest = *decoded;
  if (manifest.header.volume != volume_ || manifest.id() != placed.segment ||
      manifest.header.salt != placed.salt || manifest.k != placed.k || manifest.m != placed.m ||
      manifest.segment_length != placed.length)
    co_return fail(ErrorKind::corrupt, "the miner answers with another segment's manifest");
  const std::uint64_t leaf = std::uint64_t{1} << Manifest::kLeafLog2;
  const std::uint64_t first_leaf = stripe.low / leaf;
  const std::uint64_t stored = stripe.geometry.stored_length(index);
  const std::uint64_t skip = stripe.low - first_leaf * leaf;
  const bool proven =
      answer->leaves_offset == first_leaf * leaf && answer->leaves.size() >= skip + slot.stored &&
      co_await runtime_.offload([&] {
        return merkle_verify(manifest.roots[index], stored, first_leaf, answer->leaves, answer->proof);
      });
  if (!proven) co_return fail(ErrorKind::corrupt, "the miner's answer does not match the signed manifest");
  copy_bytes(ByteView(answer->leaves).subspan(skip, slot.stored), into.data());
  co_return answer;
}

}  // namespace cumulus
