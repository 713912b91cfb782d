// ChainCache: decoded rows of the engine, bounded by bytes, least recently used out. A chain is every version
// of one row, newest first; an empty chain is the knowledge that the engine has none. Write-through: what is
// applied to the engine is applied here too. Reactor thread.
#pragma once

#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "objectstore/base/ids.h"
#include "objectstore/index/rows.h"

namespace cumulus {

using RowValue = std::variant<HeaderRow, ValueRow, ChunkRow>;

struct RowVersion {
  Version version = 0;
  RowValue value;
  std::uint32_t operands = 0;  // merged into the engine's row since it was put whole
};
using Chain = std::vector<RowVersion>;  // newest first

class ChainCache {
 public:
  explicit ChainCache(std::size_t bytes_max) : bytes_max_(bytes_max) {}

  // Valid until the next call that changes the cache.
  Chain* find(const std::string& prefix);
  void insert(std::string prefix, Chain chain);
  // After a chain was changed in place; may drop others.
  void resized(const std::string& prefix);
  std::size_t bytes() const { return bytes_; }

 private:
  struct Entry {
    std::string prefix;
    Chain chain;
    std::size_t bytes = 0;
  };
  static std::size_t size_of(const Entry& entry);
  void trim();

  std::size_t bytes_max_;
  std::size_t bytes_ = 0;
  std::list<Entry> recent_;                                                     // newest first
  std::unordered_map<std::string_view, std::list<Entry>::iterator> by_prefix_;  // views into the entries
};

}  // namespace cumulus
