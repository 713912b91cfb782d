#include "objectstore/index/chain_cache.h"

namespace cumulus {

std::size_t ChainCache::size_of(const Entry& entry) {
  std::size_t bytes = 160 + entry.prefix.size();
  for (const RowVersion& row : entry.chain) {
    bytes += sizeof row;
    if (const auto* chunk = std::get_if<ChunkRow>(&row.value)) bytes += chunk->memory();
    if (const auto* header = std::get_if<HeaderRow>(&row.value)) bytes += header->header.size();
    if (const auto* value = std::get_if<ValueRow>(&row.value)) bytes += value->value.size();
  }
  return bytes;
}

Chain* ChainCache::find(const std::string& prefix) {
  const auto found = by_prefix_.find(prefix);
  if (found == by_prefix_.end()) return nullptr;
  recent_.splice(recent_.begin(), recent_, found->second);
  return &found->second->chain;
}

void ChainCache::insert(std::string prefix, Chain chain) {
  const auto found = by_prefix_.find(prefix);
  if (found != by_prefix_.end()) {
    found->second->chain = std::move(chain);
    resized(prefix);
    return;
  }
  recent_.push_front({std::move(prefix), std::move(chain), 0});
  Entry& entry = recent_.front();
  entry.bytes = size_of(entry);
  bytes_ += entry.bytes;
  by_prefix_.emplace(entry.prefix, recent_.begin());
  trim();
}

void ChainCache::resized(const std::string& prefix) {
  const auto found = by_prefix_.find(prefix);
  if (found == by_prefix_.end()) return;
  Entry& entry = *found->second;
  bytes_ -= entry.bytes;
  entry.bytes = size_of(entry);
  bytes_ += entry.bytes;
  trim();
}

// The newest few stay whatever they weigh: prepare() has just loaded them for a change.
void ChainCache::trim() {
  while (bytes_ > bytes_max_ && recent_.size() > 64) {
    Entry& last = recent_.back();
    bytes_ -= last.bytes;
    by_prefix_.erase(last.prefix);
    recent_.pop_back();
  }
}

}  // namespace cumulus
