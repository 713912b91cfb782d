// Rows: what stands behind the keys, decoded and encoded (FORMAT.md, "Rows"). Pure; any thread.
//
// A chunk row is a partial map of one chunk: sorted pieces that do not overlap, and gaps that say nothing.
// Laying a newer row over an older one is associative, so one encoding serves as row, as merge operand and as
// the merge of operands.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"
#include "objectstore/log/run.h"

namespace cumulus {

struct Piece {
  enum class Kind : std::uint8_t { hole = 0, zero = 1, data = 2 };
  std::uint32_t offset = 0;  // in the chunk
  std::uint32_t length = 0;
  Kind kind = Kind::hole;
  std::uint32_t skip = 0;  // data: into the run's plain bytes
  Run run;                 // data

  std::uint32_t end() const { return offset + length; }
  bool operator==(const Piece&) const = default;
  // The part within [from, to), which it overlaps.
  Piece part(std::uint32_t from, std::uint32_t to) const;
};

class ChunkRow {
 public:
  const std::vector<Piece>& pieces() const { return pieces_; }
  bool empty() const { return pieces_.empty(); }
  // Newest: replaces whatever it overlaps.
  void put(const Piece& piece);
  // What `newer` says replaces what this row says.
  void put_all(const ChunkRow& newer);
  // What `older` says fills this row's gaps.
  void fill_from(const ChunkRow& older);
  bool covers(std::uint32_t from, std::uint32_t to) const;
  // Replaces runs in place: staged ones once they are in the log, relocated ones.
  template <class Resolve>
  void resolve(const Resolve& resolve) {
    for (Piece& piece : pieces_)
      if (piece.kind == Piece::Kind::data) piece.run = resolve(piece.run);
  }

  std::size_t memory() const { return sizeof *this + pieces_.capacity() * sizeof(Piece); }
  bool operator==(const ChunkRow&) const = default;

  Bytes encode() const;
  // corrupt when it does not parse, or pieces overlap or pass 2^30 bytes.
  static Result<ChunkRow> decode(ByteView bytes);

 private:
  std::vector<Piece> pieces_;
};

// A point row: a value, or the mark that the thing is gone (which hides older versions).
struct HeaderRow {
  bool removed = false;
  std::uint64_t size = 0;
  Bytes header;
  bool operator==(const HeaderRow&) const = default;
  Bytes encode() const;
  static Result<HeaderRow> decode(ByteView bytes);
};

struct ValueRow {
  bool removed = false;
  Bytes value;
  bool operator==(const ValueRow&) const = default;
  Bytes encode() const;
  static Result<ValueRow> decode(ByteView bytes);
};

}  // namespace cumulus
