#include "objectstore/store/segment_keys.h"

namespace cumulus {

std::shared_ptr<const AeadKey> SegmentKeys::key(const SegmentId& segment,
                                                const std::array<std::uint8_t, 16>& salt) {
  const auto found = by_segment_.find(segment);
  if (found != by_segment_.end()) {
    recent_.splice(recent_.begin(), recent_, found->second);
    if (found->second->salt == salt) return found->second->key;
    // Another home's segment of the same identity: its salt, and so its key, differ.
    recent_.erase(found->second);
    by_segment_.erase(found);
  }
  recent_.push_front({segment, salt, std::make_shared<const AeadKey>(keys_.segment_key(segment, salt))});
  by_segment_[segment] = recent_.begin();
  if (recent_.size() > kept_max_) {
    by_segment_.erase(recent_.back().segment);
    recent_.pop_back();
  }
  return recent_.front().key;
}

std::shared_ptr<const AeadKey> SegmentKeys::kept(const SegmentId& segment) {
  const auto found = by_segment_.find(segment);
  if (found == by_segment_.end()) return nullptr;
  recent_.splice(recent_.begin(), recent_, found->second);
  return found->second->key;
}

}  // namespace cumulus
