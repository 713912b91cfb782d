// S3Fifo: which cached segment goes first. S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi, "FIFO queues are all you
// need for cache eviction", SOSP 2023): a small queue that what is used once only passes through, a main
// queue in which used entries go round again, and a ghost queue of names that were pushed out of the small
// one and come back straight into the main one. So one long scan pushes out scanned segments, not the working
// set.
//
// Holds names only. Pure; reactor thread of its owner.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <unordered_map>

#include "objectstore/base/ids.h"

namespace cumulus {

class S3Fifo {
 public:
  // `ghosts_max` bounds the names remembered after eviction.
  explicit S3Fifo(std::size_t ghosts_max = 4096) : ghosts_max_(ghosts_max) {}

  void insert(const SegmentId& segment);
  void touch(const SegmentId& segment);
  void erase(const SegmentId& segment);  // left for another reason than eviction
  // Takes the next victim out; only what `evictable` allows (the others stay where they are).
  std::optional<SegmentId> evict(const std::function<bool(const SegmentId&)>& evictable);

  // Admission: true when this segment was asked for not long ago, in vain; remembers that it was asked for
  // now.
  bool asked_again(const SegmentId& segment);
  std::size_t size() const { return entries_.size(); }

 private:
  enum class Queue : std::uint8_t { small, main };
  struct Entry {
    Queue queue = Queue::small;
    std::uint8_t uses = 0;  // up to 3
    std::list<SegmentId>::iterator place;
  };
  // Names in order of arrival, the oldest forgotten first.
  struct Memory {
    std::list<SegmentId> order;
    std::unordered_map<SegmentId, std::list<SegmentId>::iterator> places;
    bool take(const SegmentId& segment);
    void put(const SegmentId& segment, std::size_t most);
  };

  std::optional<SegmentId> evict_small(const std::function<bool(const SegmentId&)>& evictable);
  std::optional<SegmentId> evict_main(const std::function<bool(const SegmentId&)>& evictable);
  std::list<SegmentId>& queue(Queue which) { return which == Queue::small ? small_ : main_; }

  const std::size_t ghosts_max_;
  std::list<SegmentId> small_;  // newest first
  std::list<SegmentId> main_;
  std::unordered_map<SegmentId, Entry> entries_;
  Memory ghosts_;
  Memory asked_;
};

}  // namespace cumulus
