// One segment of the log from its first group until all of it is durable and it was handed on: which groups
// wait for a write, which writes are under way, how far its file is written and durable. Bookkeeping only;
// log_writer.cc does the I/O. Reactor thread.
//
//   state     reserved by append   written to disk        left by
//   open      yes                  as groups are filled   seal: does not fit, seal(), close()
//   sealed    no                   until written == end   datasync of all of it: handed to the sink
//   broken    as before            nothing                rescue: same bytes in a new file; else read-only
//
// 0 <= durable_end <= written_end <= issued_end <= content.end(); [0, issued_end) never changes.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>

#include "objectstore/log/open_segment.h"
#include "objectstore/log/segment_files.h"

namespace cumulus {

struct UndurableSegment {
  struct Group {
    LogPosition number;
    std::uint32_t end;
    bool filled;
    bool awaited;
  };
  struct Write {
    std::uint32_t end;
    bool done;
  };

  UndurableSegment(const KeyTree& keys, const SegmentHeader& header, std::shared_ptr<Buffer> memory,
                   std::uint32_t size, std::shared_ptr<SegmentSlot> taken)
      : content(keys, header, std::move(memory), size), slot(std::move(taken)) {}

  Sequence sequence() const { return content.header().id.sequence; }
  bool all_written() const { return written_end == content.end(); }
  bool all_durable() const { return durable_end == content.end(); }

  void mark_filled(LogPosition number);
  // Up to where everything behind the last write is sealed.
  std::uint32_t ready_end() const;
  // Somebody waits for a group before `end` that is not written.
  bool awaited(std::uint32_t end) const;
  // The last group before `end`, of those that are not written; 0 without one.
  LogPosition last_group_before(std::uint32_t end) const;
  // All up to `end` is on its way.
  void begin_write(std::uint32_t end);
  // It is over. written_end moves over writes in order; a broken file's writes count for nothing until it is
  // rescued.
  void end_write(std::uint32_t end, bool succeeded);
  // Lets go of the groups that are written.
  void drop_written_groups();

  OpenSegment content;
  std::shared_ptr<SegmentSlot> slot;
  bool sealed = false;
  bool broken = false;
  bool rescued = false;
  bool zeroing = false;      // zeros are being written behind issued_end
  bool gathering = false;    // a write begins when all that can run now has run
  std::deque<Group> groups;  // reserved and not written
  std::deque<Write> writes;  // in flight, or done behind one that is
  std::uint32_t issued_end = 0;
  std::uint32_t written_end = 0;
  std::uint32_t durable_end = 0;
  std::uint32_t zeroed_end = 0;
  LogPosition written_last = 0;
  LogPosition durable_last = 0;
  unsigned writes_in_flight = 0;
};

}  // namespace cumulus
