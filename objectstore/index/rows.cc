#include "objectstore/index/rows.h"

#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"

namespace cumulus {
namespace {

constexpr std::uint8_t kRowFormat = 1;
constexpr std::uint32_t kChunkMax = 1u << 30;
constexpr std::uint64_t kPiecesMax = 1u << 20;

Error bad_row() { return {ErrorKind::corrupt, "an index row does not parse"}; }

void append(std::vector<Piece>& pieces, const Piece& piece) {
  if (!pieces.empty()) {
    Piece& last = pieces.back();
    const bool joins =
        last.end() == piece.offset && last.kind == piece.kind &&
        (piece.kind != Piece::Kind::data || (last.run == piece.run && last.skip + last.length == piece.skip));
    if (joins) {
      last.length += piece.length;
      return;
    }
  }
  pieces.push_back(piece);
}

}  // namespace

Piece Piece::part(std::uint32_t from, std::uint32_t to) const {
  Piece cut = *this;
  cut.offset = std::max(offset, from);
  cut.length = std::min(end(), to) - cut.offset;
  if (kind == Kind::data) cut.skip += cut.offset - offset;
  return cut;
}

void ChunkRow::put(const Piece& piece) {
  if (pieces_.empty() || pieces_.back().end() <= piece.offset) {  // in order: the common case
    append(pieces_, piece);
    return;
  }
  const auto first =
      std::ranges::partition_point(pieces_, [&](const Piece& p) { return p.end() <= piece.offset; });
  const auto last =
      std::ranges::partition_point(pieces_, [&](const Piece& p) { return p.offset < piece.end(); });
  std::vector<Piece> middle;
  if (first != last && first->offset < piece.offset) middle.push_back(first->part(0, piece.offset));
  middle.push_back(piece);
  if (first != last && std::prev(last)->end() > piece.end())
    middle.push_back(std::prev(last)->part(piece.end(), kChunkMax));
  const auto at = pieces_.erase(first, last);
  pieces_.insert(at, middle.begin(), middle.end());
}

void ChunkRow::put_all(const ChunkRow& newer) {
  if (newer.pieces_.size() <= 4) {
    for (const Piece& piece : newer.pieces_) put(piece);
    return;
  }
  ChunkRow merged = newer;
  merged.fill_from(*this);
  *this = std::move(merged);
}

void ChunkRow::fill_from(const ChunkRow& older) {
  if (older.pieces_.empty()) return;
  if (pieces_.empty()) {
    pieces_ = older.pieces_;
    return;
  }
  std::vector<Piece> merged;
  merged.reserve(pieces_.size() + older.pieces_.size());
  auto below = older.pieces_.begin();
  std::uint32_t from = 0;
  // Parts of older pieces within the gap [from, to).
  const auto fill_gap = [&](std::uint32_t to) {
    while (below != older.pieces_.end() && below->end() <= from) ++below;
    for (auto piece = below; piece != older.pieces_.end() && piece->offset < to; ++piece)
      append(merged, piece->part(from, to));
  };
  for (const Piece& piece : pieces_) {
    if (from < piece.offset) fill_gap(piece.offset);
    append(merged, piece);
    from = piece.end();
  }
  fill_gap(kChunkMax);
  pieces_ = std::move(merged);
}

bool ChunkRow::covers(std::uint32_t from, std::uint32_t to) const {
  auto piece = std::ranges::partition_point(pieces_, [&](const Piece& p) { return p.end() <= from; });
  for (; piece != pieces_.end() && from < to; ++piece) {
    if (piece->offset > from) return false;
    from = piece->end();
  }
  return from >= to;
}

// format u8 | runs: count, each {epoch * 4 + kind, sequence, base, plain length: varints; codec << 5 |
// cell_log2 u8; nonce u64} | pieces: count, each {gap before it, length, tag: varints; data: skip varint};
// tag 0 hole, 1 zero, 2 + run.
Bytes ChunkRow::encode() const {
  Bytes bytes;
  Encoder out(bytes);
  out.u8(kRowFormat);
  std::vector<const Run*> runs;
  std::vector<std::size_t> run_of(pieces_.size());
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    if (pieces_[i].kind != Piece::Kind::data) continue;
    CHECK(!is_staged(pieces_[i].run));
    const auto found = std::ranges::find_if(runs, [&](const Run* run) { return *run == pieces_[i].run; });
    run_of[i] = static_cast<std::size_t>(found - runs.begin());
    if (found == runs.end()) runs.push_back(&pieces_[i].run);
  }
  out.varint(runs.size());
  for (const Run* run : runs) {
    out.varint(run->segment.epoch * 4 + static_cast<std::uint8_t>(run->segment.kind));
    out.varint(run->segment.sequence);
    out.varint(run->base);
    out.varint(run->plain_length);
    out.u8(static_cast<std::uint8_t>(run->codec << 5 | run->cell_log2));
    out.u64(run->nonce);
  }
  out.varint(pieces_.size());
  std::uint32_t at = 0;
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    const Piece& piece = pieces_[i];
    out.varint(piece.offset - at);
    out.varint(piece.length);
    out.varint(piece.kind == Piece::Kind::data ? run_of[i] + 2 : static_cast<std::uint64_t>(piece.kind));
    if (piece.kind == Piece::Kind::data) out.varint(piece.skip);
    at = piece.end();
  }
  return bytes;
}

Result<ChunkRow> ChunkRow::decode(ByteView bytes) {
  Decoder in(bytes);
  if (in.u8() != kRowFormat) return fail(bad_row());
  std::vector<Run> runs(in.varint_max(std::min<std::uint64_t>(kPiecesMax, in.remaining() / 13)));
  for (Run& run : runs) {
    const std::uint64_t packed = in.varint();
    run.segment.kind = static_cast<SegmentKind>(packed % 4);
    run.segment.epoch = packed / 4;
    run.segment.sequence = in.varint();
    run.base = static_cast<std::uint32_t>(in.varint_max(~std::uint32_t{0}));
    run.plain_length = static_cast<std::uint32_t>(in.varint_max(~std::uint32_t{0}));
    const std::uint8_t shape = in.u8();
    run.cell_log2 = shape & 31;
    run.codec = shape >> 5;
    run.nonce = in.u64();
    if (packed % 4 == 0 || run.cell_log2 < 9 || run.cell_log2 > 20) return fail(bad_row());
  }
  ChunkRow row;
  row.pieces_.resize(in.varint_max(std::min<std::uint64_t>(kPiecesMax, in.remaining() / 3)));
  std::uint64_t at = 0;
  for (Piece& piece : row.pieces_) {
    at += in.varint_max(kChunkMax);
    piece.offset = static_cast<std::uint32_t>(at);
    piece.length = static_cast<std::uint32_t>(in.varint_max(kChunkMax));
    at += piece.length;
    const std::uint64_t tag = in.varint_max(runs.size() + 1);
    if (!in.ok() || piece.length == 0 || at > kChunkMax) return fail(bad_row());
    piece.kind = static_cast<Piece::Kind>(std::min<std::uint64_t>(tag, 2));
    if (tag < 2) continue;
    piece.run = runs[tag - 2];
    piece.skip = static_cast<std::uint32_t>(in.varint_max(piece.run.plain_length));
    if (!in.ok() || piece.length > piece.run.plain_length - piece.skip) return fail(bad_row());
  }
  if (!in.done()) return fail(bad_row());
  return row;
}

Bytes HeaderRow::encode() const {
  Bytes bytes;
  Encoder out(bytes);
  out.u8(kRowFormat);
  out.u8(removed ? 1 : 0);
  out.varint(size);
  out.block(header);
  return bytes;
}

Result<HeaderRow> HeaderRow::decode(ByteView bytes) {
  Decoder in(bytes);
  HeaderRow row;
  const std::uint8_t format = in.u8();
  const std::uint8_t flags = in.u8();
  row.removed = flags == 1;
  row.size = in.varint();
  const ByteView header = in.block(bytes.size());
  row.header.assign(header.begin(), header.end());
  if (!in.done() || format != kRowFormat || flags > 1) return fail(bad_row());
  return row;
}

Bytes ValueRow::encode() const {
  Bytes bytes;
  bytes.reserve(value.size() + 2);
  Encoder out(bytes);
  out.u8(kRowFormat);
  out.u8(removed ? 1 : 0);
  out.bytes(value);
  return bytes;
}

Result<ValueRow> ValueRow::decode(ByteView bytes) {
  Decoder in(bytes);
  ValueRow row;
  const std::uint8_t format = in.u8();
  const std::uint8_t flags = in.u8();
  if (!in.ok() || format != kRowFormat || flags > 1) return fail(bad_row());
  row.removed = flags == 1;
  const ByteView value = in.bytes(in.remaining());
  row.value.assign(value.begin(), value.end());
  return row;
}

}  // namespace cumulus
