// LeafCache: leaf digests of recently proven slices, so that a second proof costs one ranged read. Least
// recently used out first; bounded in bytes. Reactor thread.
#pragma once

#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "objectstore/base/bytes.h"
#include "tools/miner/store/slice_key.h"

namespace cumulus {

class LeafCache {
 public:
  using Leaves = std::shared_ptr<const std::vector<Digest>>;

  explicit LeafCache(std::size_t bytes_max) : bytes_max_(bytes_max) {}

  // Empty when it has none for this key and root.
  Leaves find(const SliceKey& key, const Digest& root) {
    const auto found = by_key_.find(key);
    if (found == by_key_.end() || found->second->root != root) return nullptr;
    rows_.splice(rows_.begin(), rows_, found->second);
    return rows_.front().leaves;
  }

  void insert(const SliceKey& key, const Digest& root, Leaves leaves) {
    erase(key);
    bytes_ += weight(*leaves);
    rows_.push_front({key, root, std::move(leaves)});
    by_key_[key] = rows_.begin();
    while (bytes_ > bytes_max_) erase(SliceKey(rows_.back().key));
  }

  void erase(const SliceKey& key) {
    const auto found = by_key_.find(key);
    if (found == by_key_.end()) return;
    bytes_ -= weight(*found->second->leaves);
    rows_.erase(found->second);
    by_key_.erase(found);
  }

  std::size_t bytes() const { return bytes_; }

 private:
  struct Row {
    SliceKey key;
    Digest root;
    Leaves leaves;
  };
  static std::size_t weight(const std::vector<Digest>& leaves) {
    return 256 + leaves.size() * sizeof(Digest);
  }

  std::size_t bytes_max_;
  std::size_t bytes_ = 0;
  std::list<Row> rows_;
  std::unordered_map<SliceKey, std::list<Row>::iterator> by_key_;
};

}  // namespace cumulus
