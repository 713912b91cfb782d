// The difference of two snapshots of a disk as a stream of bytes (blockdev/FORMAT.md): a file, a pipe, a
// tape.
//
// Each frame carries a check over itself and all before it, so a stream that was cut, reordered, mixed with
// another or damaged is noticed at the first wrong frame, before any byte of that frame is used. The check
// finds accidents; it is no signature. Pure; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "objectstore/base/bytes.h"
#include "objectstore/base/clock.h"
#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"

namespace cumulus {

// One snapshot among all snapshots of all volumes.
struct SnapshotIdentity {
  VolumeId volume;
  DatasetId dataset = 0;
  Version version = 0;
  WallTime created_at = 0;
  std::string name;
  bool operator==(const SnapshotIdentity&) const = default;
};

struct DifferenceHeader {
  std::optional<SnapshotIdentity> base;  // nullopt: the difference from nothing, the whole disk
  SnapshotIdentity end;                  // what the disk is afterwards
  std::uint64_t size = 0;                // bytes of the disk then
  bool operator==(const DifferenceHeader&) const = default;
};

struct DifferenceFrame {
  enum class Kind : std::uint8_t { header = 1, data = 2, zero = 3, end = 4 };
  Kind kind = Kind::end;
  DifferenceHeader header;   // header
  std::uint64_t offset = 0;  // data, zero
  std::uint64_t length = 0;  // data, zero
  ByteView data;             // data: within the frame that was given
};

inline constexpr std::size_t kDifferencePreamble = 9;
inline constexpr std::size_t kDifferenceLength = 4;           // before each frame: the body's length
inline constexpr std::size_t kDifferenceCheck = 16;           // behind each frame
inline constexpr std::uint32_t kDifferenceData = 512u << 10;  // bytes of the disk in one frame
inline constexpr std::uint32_t kDifferenceBody = kDifferenceData + 64;

using DifferenceCheck = std::array<std::uint8_t, kDifferenceCheck>;

// What a snapshot is called in the notes that an image keeps of what it received.
Bytes encode_identity(const SnapshotIdentity& identity);
Result<SnapshotIdentity> decode_identity(ByteView bytes);

// Appends to `out` what belongs into the stream next. Order: begin, any number of data and zero with
// ascending offsets that do not overlap, end.
class DifferenceWriter {
 public:
  void begin(Bytes& out, const DifferenceHeader& header);
  void data(Bytes& out, std::uint64_t offset, ByteView bytes);  // 1 to kDifferenceData bytes
  void zero(Bytes& out, std::uint64_t offset, std::uint64_t length);
  void end(Bytes& out);

  // What the others are made of: the first bytes of a stream, and a frame of any body.
  void preamble(Bytes& out);
  void frame(Bytes& out, ByteView body);

 private:
  DifferenceCheck check_{};
  std::uint64_t frames_ = 0;
};

// The other way. Feed it the preamble, then each frame: its length field says how much.
class DifferenceReader {
 public:
  // Errors: corrupt (no difference stream), unsupported (of a newer program).
  Status begin(ByteView preamble);
  // The body's length and its check follow. corrupt: out of bounds.
  Result<std::size_t> frame_size(ByteView length) const;
  // `frame`: body and check. Valid while `frame` is. corrupt: damaged, out of order, outside the disk.
  Result<DifferenceFrame> accept(ByteView frame);
  bool ended() const { return ended_; }

 private:
  Status in_order(const DifferenceFrame& frame);
  DifferenceCheck check_{};
  std::uint64_t frames_ = 0;
  std::uint64_t size_ = 0;
  std::uint64_t reached_ = 0;
  bool begun_ = false;
  bool ended_ = false;
};

}  // namespace cumulus
