// SegmentKeys: the key of each segment, derived once and kept while it is used. Bounded; reactor thread (the
// keys themselves may be used by workers).
#pragma once

#include <list>
#include <memory>
#include <unordered_map>

#include "objectstore/base/ids.h"
#include "objectstore/crypto/aead.h"
#include "objectstore/crypto/key_tree.h"

namespace cumulus {

class SegmentKeys {
 public:
  SegmentKeys(const KeyTree& keys, std::size_t kept_max) : keys_(keys), kept_max_(kept_max) {}

  std::shared_ptr<const AeadKey> key(const SegmentId& segment, const std::array<std::uint8_t, 16>& salt);
  // The key that was last asked for under this identity, if it is still kept; of whatever salt, so that
  // cells which it does not open prove nothing.
  std::shared_ptr<const AeadKey> kept(const SegmentId& segment);

 private:
  struct Entry {
    SegmentId segment;
    std::array<std::uint8_t, 16> salt;
    std::shared_ptr<const AeadKey> key;
  };
  const KeyTree& keys_;
  std::size_t kept_max_;
  std::list<Entry> recent_;  // newest first
  std::unordered_map<SegmentId, std::list<Entry>::iterator> by_segment_;
};

}  // namespace cumulus
