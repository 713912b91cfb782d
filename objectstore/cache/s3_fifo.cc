#include "objectstore/cache/s3_fifo.h"

#include <algorithm>

namespace cumulus {
namespace {
constexpr std::uint8_t kUsesMax = 3;
constexpr std::size_t kSmallShare = 10;  // the small queue's share is one tenth
}  // namespace

bool S3Fifo::Memory::take(const SegmentId& segment) {
  const auto found = places.find(segment);
  if (found == places.end()) return false;
  order.erase(found->second);
  places.erase(found);
  return true;
}

void S3Fifo::Memory::put(const SegmentId& segment, std::size_t most) {
  take(segment);
  order.push_front(segment);
  places[segment] = order.begin();
  if (order.size() > most) {
    places.erase(order.back());
    order.pop_back();
  }
}

void S3Fifo::insert(const SegmentId& segment) {
  if (entries_.contains(segment)) return touch(segment);
  Entry entry;
  if (ghosts_.take(segment)) entry.queue = Queue::main;
  auto& into = queue(entry.queue);
  into.push_front(segment);
  entry.place = into.begin();
  entries_.emplace(segment, entry);
}

void S3Fifo::touch(const SegmentId& segment) {
  const auto found = entries_.find(segment);
  if (found != entries_.end() && found->second.uses < kUsesMax) ++found->second.uses;
}

void S3Fifo::erase(const SegmentId& segment) {
  const auto found = entries_.find(segment);
  if (found == entries_.end()) return;
  queue(found->second.queue).erase(found->second.place);
  entries_.erase(found);
}

std::optional<SegmentId> S3Fifo::evict(const std::function<bool(const SegmentId&)>& evictable) {
  const bool small_first = small_.size() * kSmallShare >= entries_.size();
  for (const bool small : {small_first, !small_first})
    if (auto victim = small ? evict_small(evictable) : evict_main(evictable)) return victim;
  // What the small queue promoted on the way may be free to go now.
  return evict_main(evictable);
}

std::optional<SegmentId> S3Fifo::evict_small(const std::function<bool(const SegmentId&)>& evictable) {
  for (auto at = small_.end(); at != small_.begin();) {
    --at;
    const SegmentId segment = *at;
    if (!evictable(segment)) continue;
    Entry& entry = entries_.at(segment);
    const auto place = at++;
    if (entry.uses > 1) {
      main_.splice(main_.begin(), small_, place);
      entry.queue = Queue::main;
      entry.uses = 0;
      continue;
    }
    small_.erase(place);
    entries_.erase(segment);
    ghosts_.put(segment, ghosts_max_);
    return segment;
  }
  return std::nullopt;
}

std::optional<SegmentId> S3Fifo::evict_main(const std::function<bool(const SegmentId&)>& evictable) {
  // Each entry goes round at most kUsesMax times before it is a victim.
  std::size_t looks = main_.size() * (kUsesMax + 1);
  for (auto at = main_.end(); looks > 0 && !main_.empty(); --looks) {
    if (at == main_.begin()) at = main_.end();
    --at;
    const SegmentId segment = *at;
    if (!evictable(segment)) continue;
    Entry& entry = entries_.at(segment);
    if (entry.uses > 0) {
      --entry.uses;
      const auto place = at++;
      main_.splice(main_.begin(), main_, place);
      continue;
    }
    main_.erase(entry.place);
    entries_.erase(segment);
    return segment;
  }
  return std::nullopt;
}

bool S3Fifo::asked_again(const SegmentId& segment) {
  const bool again = asked_.places.contains(segment) || ghosts_.places.contains(segment);
  asked_.put(segment, ghosts_max_);
  return again;
}

}  // namespace cumulus
