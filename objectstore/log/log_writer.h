// LogWriter: the open segment. Takes groups in order, seals them (AEAD), writes each by one write to the open
// segment's file, makes them durable when asked, and hands full segments on. The journal of everything: fsync
// is a wait here.
//
// What it must never do: append to a segment of an earlier run; write to a file again after a failed write or
// sync (the file is abandoned and the same ciphertext goes to a new one; when that fails too the log is
// read-only); report a group durable before every byte ahead of it is. Thread rule: reactor, except
// make_durable_blocking().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/ids.h"
#include "objectstore/base/metrics.h"
#include "objectstore/base/result.h"
#include "objectstore/io/file.h"
#include "objectstore/io/runtime.h"
#include "objectstore/log/run.h"
#include "objectstore/log/segment_files.h"
#include "objectstore/manifest.h"

namespace cumulus {

class KeyTree;

// Plain bytes to be sealed as one run of cells.
struct CellSource {
  ByteView plain;
  std::uint8_t cell_log2 = 14;
  std::shared_ptr<const void> owner;  // keeps `plain` until the group is written
};

// One commit. records + sealed cells must fit in a segment: see LogWriter::group_room().
struct GroupDraft {
  Bytes records;                 // encoded changes (change.h)
  std::vector<CellSource> runs;  // run i begins at the sum of the sealed lengths before it, in the cell area
  bool bookkeeping = false;      // only Placed and the like: does not start the early-sealing clock
  bool awaited = false;          // somebody waits until it is durable, or will
};

struct WrittenGroup {
  LogPosition number = 0;
  SegmentId segment;
  std::uint32_t cells_base = 0;  // offset of the cell area in the segment
  std::uint64_t nonce = 0;
};

// A full (or early sealed) segment on its way to the miners. Durable locally when it is handed on.
struct SealedSegment {
  SegmentHeader header;
  std::uint64_t length = 0;
  Digest chain{};
  std::array<std::uint8_t, 16> last_group_tag{};
  LogPosition first_group = 0;
  LogPosition last_group = 0;
  bool bookkeeping_only = false;
  // The sealed bytes, when still in memory; otherwise they are in SegmentFiles and are re-verified when read.
  std::shared_ptr<const Buffer> memory;
};

// Where the next group goes: what replay found, or all zeros for a new volume.
struct LogStart {
  Epoch epoch = 1;
  InstanceId instance;
  Sequence next_sequence = 1;
  Digest previous_chain{};
  LogPosition next_group = 1;
  std::array<std::uint8_t, 16> previous_tag{};  // of the last group's header
};

struct LogOptions {
  std::uint32_t segment_size = 8u << 20;
  std::uint32_t appends_in_flight_max = 4;  // written in order; more wait
  std::size_t idle_buffers_max = 2;         // a segment's size each, kept for the next segments
};

class LogWriter {
 public:
  using SealedSink = std::function<void(SealedSegment)>;

  // `files` and `keys` outlive the writer. The sink is called on the reactor, in order of sequence, after the
  // segment's fdatasync.
  static std::unique_ptr<LogWriter> make(Runtime& runtime, SegmentFiles& files, const KeyTree& keys,
                                         VolumeId volume, LogStart start, LogOptions options,
                                         Metrics& metrics, SealedSink sink);
  virtual ~LogWriter() = default;

  // Writes one group; groups are numbered in the order of these calls. When it returns, the bytes survive a
  // crash of this process. Waits for local space. Errors: io (the log is read-only from now on; every later
  // call says the same), closed.
  virtual Task<Result<WrittenGroup>> append(GroupDraft draft) = 0;
  // Returns when every group up to `position` is durable (power loss); one fdatasync serves all who wait.
  virtual Task<Status> make_durable(LogPosition position) = 0;
  // Everything written so far, from any thread, blocking it (R1's barrier).
  virtual Status make_durable_blocking() = 0;
  // Seals the open segment early when it has a group; returns when it was handed to the sink.
  virtual Task<Status> seal() = 0;
  // Seals, waits for all that is in flight; later calls fail with closed.
  virtual Task<Status> close() = 0;

  // Why it takes nothing any more; nullopt while all is well.
  virtual const std::optional<Error>& failure() const = 0;
  virtual LogPosition written() const = 0;
  virtual LogPosition durable() const = 0;
  // Bytes of groups in the open segment, and since when it waits to be sealed (bookkeeping does not count).
  virtual std::uint64_t open_bytes() const = 0;
  virtual std::optional<TimePoint> waiting_since() const = 0;
  // The segment's bytes while they are in memory (open, or sealed and not yet released): null otherwise.
  // Bytes beyond what append() returned for are undefined.
  virtual std::shared_ptr<const Buffer> memory_of(const SegmentId& segment) const = 0;
  // The header of the open segment or of one whose memory is still here.
  virtual std::optional<SegmentHeader> header_of(const SegmentId& segment) const = 0;
  // Largest records + sealed cells that one group may hold.
  virtual std::uint32_t group_room() const = 0;
};

}  // namespace cumulus
