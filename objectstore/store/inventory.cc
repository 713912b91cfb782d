#include "objectstore/store/inventory.h"

#include <algorithm>

#include "objectstore/base/format.h"
#include "objectstore/base/log.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kStrangersMax = 1024;  // entries of one miner that are not this volume's

}  // namespace

change::Placed Inventory::Segment::placed() const {
  return {.segment = manifest.id(),
          .salt = manifest.header.salt,
          .length = static_cast<std::uint32_t>(manifest.segment_length),
          .k = manifest.k,
          .m = manifest.m,
          .miners = miners};
}

bool Inventory::Segment::holds(std::uint16_t index, const MinerId& miner) const {
  return miners[index] == miner || std::ranges::find(copies, std::pair(index, miner)) != copies.end();
}

std::size_t Inventory::Segment::slices_seen() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(miners, [](const MinerId& id) { return id != MinerId{}; }));
}

Task<Inventory> Inventory::list(Runtime& runtime, SliceTransport& transport, VolumeId volume,
                                Duration request_deadline) {
  Inventory inventory;
  TaskGroup miners(runtime);
  for (const MinerEntry& miner : transport.miners())
    miners.spawn(list_miner(inventory, transport, runtime, volume, miner, request_deadline));
  co_await miners.join();
  co_return inventory;
}

Task<void> Inventory::list_miner(Inventory& inventory, SliceTransport& transport, Runtime& runtime,
                                 VolumeId volume, MinerEntry miner, Duration request_deadline) {
  const auto leave_out = [&](std::string_view why) {
    inventory.unanswered_.push_back(format("miner {} ({}): {}", miner.id.brief(), miner.address, why));
  };
  std::optional<Bytes> from;
  std::optional<SliceId> last;
  std::uint64_t strangers = 0;
  do {
    auto page = co_await transport.list(miner.id, from, runtime.now() + request_deadline);
    if (!page) {
      leave_out(page.error().message());
      co_return;
    }
    // Slices come in order, and only the owner can sign a manifest: so even a miner that means to has an end.
    for (const SliceListing& slice : page->slices) {
      auto manifest = Manifest::decode(slice.manifest);
      if (!manifest || manifest->header.volume != volume || slice.index >= manifest->roots.size()) {
        if (strangers++ == 0)
          log_warn("miner {} lists a slice with a manifest that is not this volume's", miner.id.brief());
        if (strangers <= kStrangersMax) continue;
        leave_out("it lists what is not this volume's");
        co_return;
      }
      const SliceId id{manifest->id(), slice.index};
      if (last && id <= *last) {
        leave_out("its listing goes back");
        co_return;
      }
      last = id;
      inventory.add(miner.id, slice.index, *std::move(manifest));
    }
    from = std::move(page->next);
  } while (from);
}

void Inventory::add(const MinerId& miner, std::uint16_t index, Manifest manifest) {
  auto& same = segments_[manifest.id()];
  const auto found =
      std::ranges::find_if(same, [&](const auto& segment) { return segment->manifest == manifest; });
  Segment* segment = nullptr;
  if (found != same.end()) {
    segment = found->get();
  } else {
    segment = same.emplace_back(std::make_unique<Segment>()).get();
    segment->miners.resize(manifest.roots.size());
    segment->manifest = std::move(manifest);
  }
  MinerId& first = segment->miners[index];
  if (first == MinerId{}) {
    first = miner;
    return;
  }
  // A segment that was crowded once and then spread shows both: a miner for each slice is the better half.
  const bool better = std::ranges::count(segment->miners, first) > 1 &&
                      std::ranges::find(segment->miners, miner) == segment->miners.end();
  segment->copies.emplace_back(index, better ? std::exchange(first, miner) : miner);
}

// Down from the tail, each by the chain value that the one after it names, as far as manifests are listed.
Inventory::History Inventory::history_of(const Tail& tail) const {
  std::map<Digest, const Segment*> by_chain;
  for (const auto& [id, same] : segments_)
    if (id.kind == SegmentKind::log)
      for (const auto& segment : same) by_chain.emplace(segment->manifest.chain(), segment.get());
  History history{{}, tail.through.sequence, tail.chain};
  while (history.below != 0) {
    const auto found = by_chain.find(history.chain);
    if (found == by_chain.end() || found->second->manifest.id().sequence != history.below) break;
    history.segments.push_back(found->second);
    history.chain = found->second->manifest.header.previous_chain;
    --history.below;
  }
  std::ranges::reverse(history.segments);
  return history;
}

Inventory::Chain Inventory::chain_to(const Tail& tail) const {
  Chain chain;
  if (tail.through.sequence == 0) return chain;
  History history = history_of(tail);
  if (history.below != 0) {
    chain.missing = format("log segment {} (of {}) is on none of the miners that answered", history.below,
                           tail.through.sequence);
    return chain;
  }
  chain.segments = std::move(history.segments);
  for (const Segment* segment : chain.segments) {
    if (segment->slices_seen() >= segment->manifest.k) continue;
    chain.missing =
        format("log segment {} (of {}): {} slices found, {} are needed", segment->manifest.id().sequence,
               tail.through.sequence, segment->slices_seen(), segment->manifest.k);
    break;
  }
  if (history.chain != Digest{}) chain.missing = "the log's first segment does not begin the log";
  return chain;
}

// Of two histories that part: the newer writer's. It went on from what was accepted, or from what was left
// when the owner gave the rest up; the other one was fenced.
bool Inventory::is_newer(const std::vector<const Segment*>& one, const std::vector<const Segment*>& other) {
  const auto [a, b] = std::ranges::mismatch(one, other);
  if (a != one.end() && b != other.end()) {
    const Epoch epoch = (*a)->manifest.id().epoch;
    const Epoch other_epoch = (*b)->manifest.id().epoch;
    if (epoch != other_epoch) return epoch > other_epoch;
  }
  return one.size() > other.size();
}

Inventory::Chain Inventory::longest_prefix(const Tail& tail) const {
  Chain best;
  const History history = history_of(tail);
  if (history.below == 0 && history.chain == Digest{}) {
    for (const Segment* segment : history.segments) {
      if (segment->slices_seen() < segment->manifest.k) break;
      best.segments.push_back(segment);
    }
    return best;
  }
  // Nobody lists segment `below`: what came before it is any history that ends there.
  std::map<std::pair<Sequence, Digest>, std::vector<const Segment*>> after;
  for (const auto& [id, same] : segments_)
    if (id.kind == SegmentKind::log && id.sequence < history.below)
      for (const auto& segment : same)
        if (segment->slices_seen() >= segment->manifest.k)
          after[{id.sequence, segment->manifest.header.previous_chain}].push_back(segment.get());
  // Depth first over forks (two homes): they are few, and each ends at the loser's last segment.
  std::vector<std::vector<const Segment*>> forks = {{}};
  while (!forks.empty()) {
    std::vector<const Segment*> path = std::move(forks.back());
    forks.pop_back();
    for (;;) {
      const Digest chain = path.empty() ? Digest{} : path.back()->manifest.chain();
      const auto next = after.find({path.size() + 1, chain});
      if (next == after.end()) break;
      for (std::size_t other = 1; other < next->second.size(); ++other) {
        forks.push_back(path);
        forks.back().push_back(next->second[other]);
      }
      path.push_back(next->second.front());
    }
    if (is_newer(path, best.segments)) best.segments = std::move(path);
  }
  return best;
}

}  // namespace cumulus
