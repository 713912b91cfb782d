#include "objectstore/log/open_segment.h"

#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/crypto/key_tree.h"

namespace cumulus {
namespace {

constexpr std::uint32_t kRunCountSizeMax = 5;

std::size_t varint_size(std::uint64_t value) {
  std::size_t size = 1;
  for (; value >= 0x80; value >>= 7) ++size;
  return size;
}

std::uint8_t* put_varint(std::uint8_t* at, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) *at++ = static_cast<std::uint8_t>(value | 0x80);
  *at++ = static_cast<std::uint8_t>(value);
  return at;
}

// How the cell area is cut: without it only the records' reader could check cells, and not those that a later
// group names. Returns its size.
std::size_t write_run_table(const GroupDraft& draft, MutableByteView into) {
  std::uint8_t* at = put_varint(into.data(), draft.runs.size());
  for (const CellSource& run : draft.runs) {
    *at++ = run.cell_log2;
    at = put_varint(at, run.plain.size());
  }
  return static_cast<std::size_t>(at - into.data());
}

}  // namespace

OpenSegment::OpenSegment(const KeyTree& keys, const SegmentHeader& header, std::shared_ptr<Buffer> memory,
                         std::uint32_t segment_size)
    : header_(header),
      key_(keys.segment_key(header.id, header.salt)),
      memory_(std::move(memory)),
      segment_size_(segment_size),
      end_(std::uint32_t{1} << header.align_log2) {
  CHECK(memory_->size() >= segment_size_ && end_ >= SegmentHeader::kEncodedSize);
  Bytes encoded;
  header_.encode(encoded);
  copy_bytes(encoded, header_bytes_.data());
  std::ranges::fill(memory_->view(0, end_), std::uint8_t{0});
  copy_bytes(encoded, memory_->data());
}

bool OpenSegment::fits(std::uint32_t records_length, std::uint32_t cells_length) const {
  const std::uint64_t content =
      std::uint64_t{end_} + kGroupFixedSize + records_length + kTagSize + cells_length;
  const std::uint64_t align = std::uint64_t{1} << header_.align_log2;
  return (content + align - 1) / align * align <= segment_size_;
}

OpenSegment::Place OpenSegment::reserve(GroupHeader group, std::uint32_t records_length,
                                        std::uint32_t cells_length, std::uint64_t nonce) {
  CHECK(fits(records_length, cells_length));
  Place place{.number = group.number,
              .layout = {end_, records_length, cells_length, header_.align_log2},
              .nonce = nonce};
  group.records_length = records_length;
  group.cells_length = cells_length;
  group.total_length = place.layout.end() - place.layout.begin;
  std::memcpy(memory_->data() + end_, &nonce, sizeof nonce);
  const MutableByteView sealed = memory_->view(place.layout.header_at(), kGroupHeaderSize + kTagSize);
  key_.seal(make_nonce(nonce, place.layout.header_at()), header_bytes_, group.encode(), sealed);
  copy_bytes(sealed.last(kTagSize), place.tag.data());

  if (groups_++ == 0) first_group_ = group.number;
  last_group_ = group.number;
  last_tag_ = place.tag;
  if (!group.bookkeeping) bookkeeping_only_ = false;
  end_ = place.layout.end();
  return place;
}

void OpenSegment::fill(const Place& place, const GroupDraft& draft) const {
  const GroupLayout& layout = place.layout;
  // The run table and the records are put together in place and sealed over themselves.
  const MutableByteView unit = memory_->view(layout.records_at(), layout.records_length + kTagSize);
  const std::size_t table = write_run_table(draft, unit);
  CHECK(table + draft.records.size() == layout.records_length);
  copy_bytes(draft.records, unit.data() + table);
  key_.seal(make_nonce(place.nonce, layout.records_at()), place.tag, unit.first(layout.records_length), unit);
  std::uint32_t at = layout.cells_at();
  for (const CellSource& run : draft.runs) {
    const auto length = sealed_length_of(static_cast<std::uint32_t>(run.plain.size()), run.cell_log2);
    key_.seal_cells(place.nonce, at, std::uint32_t{1} << run.cell_log2, run.plain, memory_->view(at, length));
    at += length;
  }
  CHECK(at == layout.content_end());
  std::ranges::fill(memory_->view(at, layout.end() - at), std::uint8_t{0});
}

SealedSegment OpenSegment::sealed() const {
  return {.header = header_,
          .length = end_,
          .chain = chain(),
          .last_group_tag = last_tag_,
          .first_group = first_group_,
          .last_group = last_group_,
          .bookkeeping_only = bookkeeping_only_,
          .memory = memory_};
}

std::uint32_t OpenSegment::room(std::uint32_t segment_size, std::uint8_t align_log2) {
  // The first group begins one alignment unit in; the end is aligned already. A run of at least one byte and
  // its tag takes at most two bytes of the table for seventeen of cells: an eighth covers it.
  const std::uint32_t space =
      segment_size - (std::uint32_t{1} << align_log2) - kGroupFixedSize - kTagSize - kRunCountSizeMax;
  return space / 9 * 8;
}

std::uint32_t OpenSegment::unit_length(const GroupDraft& draft) {
  std::size_t length = varint_size(draft.runs.size()) + draft.records.size();
  for (const CellSource& run : draft.runs) length += 1 + varint_size(run.plain.size());
  return static_cast<std::uint32_t>(length);
}

}  // namespace cumulus
