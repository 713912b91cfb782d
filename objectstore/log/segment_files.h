// SegmentFiles: the local segment files, "slots": full-size files made or recycled ahead of need, whose
// directory entry is durable before first use, so that starting a segment creates nothing. The header inside
// names the segment; a slot keeps its file name for life. Log segments live here from their first group until
// they are evicted; the cache keeps fetched segments in the same slots. Port: the real one is
// cache/slot_store.h. Reactor thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"
#include "objectstore/io/file.h"
#include "objectstore/io/task.h"
#include "objectstore/manifest.h"

namespace cumulus {

// A slot taken for writing. Releasing it unwritten gives it back.
class SegmentSlot {
 public:
  virtual ~SegmentSlot() = default;
  virtual File& file() = 0;
  virtual std::uint32_t number() const = 0;
  // Made ahead and never used: its file has room, but no bytes that were written.
  virtual bool is_new() const = 0;
};

class SegmentFiles {
 public:
  virtual ~SegmentFiles() = default;

  // A slot of full segment size for a new segment. Waits while the disk budget is exhausted (evicting what is
  // stored and clean first). `urgent` may use the reserve that keeps removal and bookkeeping going when full.
  virtual Task<Result<std::shared_ptr<SegmentSlot>>> take(bool urgent) = 0;
  // The slot now holds this (open or sealed, not yet stored) segment: it must not be evicted.
  virtual void assign(const SegmentSlot& slot, const SegmentId& segment) = 0;
  // Its writes failed: never used again; a replacement is made when the disk allows.
  virtual void abandon(std::shared_ptr<SegmentSlot> slot) = 0;
  // What direct I/O wants: groups are padded to it.
  virtual std::uint8_t align_log2() const = 0;
};

// What replay needs of the slots after a restart. Same implementer, same thread.
class LocalSegments {
 public:
  struct Found {
    SegmentHeader header;
    std::uint32_t slot = 0;
  };
  virtual ~LocalSegments() = default;

  // Log segments by their slots' headers, in no order; the headers are not verified.
  virtual std::vector<Found> log_segments() const = 0;
  // The whole slot: the segment's bytes, and whatever lies behind them.
  virtual Task<Result<std::shared_ptr<const Buffer>>> read_slot(std::uint32_t slot) = 0;
  // Writes a log segment to a fresh slot, zeros behind it to the slot's end, and makes all of it durable
  // there.
  virtual Task<Result<std::uint32_t>> restore(SegmentHeader header, std::shared_ptr<const Buffer> bytes,
                                              std::uint64_t length) = 0;
  // The slot's content is of no use: its header is wiped and the slot is free.
  virtual Task<Status> discard(std::uint32_t slot) = 0;
};

}  // namespace cumulus
