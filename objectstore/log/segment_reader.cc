#include "objectstore/log/segment_reader.h"

#include <algorithm>

#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/aead.h"
#include "objectstore/crypto/key_tree.h"

namespace cumulus {
namespace {

class Reading {
 public:
  Reading(const KeyTree& keys, const SegmentHeader& header, ByteView bytes)
      : header_(header),
        key_(keys.segment_key(header.id, header.salt)),
        bytes_(bytes),
        associated_(bytes.first(SegmentHeader::kEncodedSize)) {}

  struct Header {
    GroupHeader group;
    GroupTag tag{};
    std::uint64_t nonce = 0;
  };

  // not_found: no header of ours begins there.
  Result<Header> open_header(std::uint64_t at) const {
    if (bytes_.size() < kGroupFixedSize || at > bytes_.size() - kGroupFixedSize)
      return fail(ErrorKind::not_found, "");
    Header header;
    std::memcpy(&header.nonce, bytes_.data() + at, sizeof header.nonce);
    const auto offset = static_cast<std::uint32_t>(at) + kGroupNonceSize;
    const ByteView sealed = bytes_.subspan(offset, kGroupHeaderSize + kTagSize);
    std::array<std::uint8_t, kGroupHeaderSize> plain{};
    if (!key_.open(make_nonce(header.nonce, offset), associated_, sealed, plain))
      return fail(ErrorKind::not_found, "");
    TRY(header.group, GroupHeader::decode(plain, header_.align_log2));
    copy_bytes(sealed.last(kTagSize), header.tag.data());
    return header;
  }

  // not_found: the rest of the group does not verify.
  Result<OpenedGroup> open_rest(const Header& header, std::uint64_t at, bool check_cells) const {
    const GroupHeader& group = header.group;
    if (group.total_length > bytes_.size() - at) return fail(ErrorKind::not_found, "");
    const GroupLayout layout{static_cast<std::uint32_t>(at), group.records_length, group.cells_length,
                             header_.align_log2};
    Bytes unit(group.records_length);
    if (!key_.open(make_nonce(header.nonce, layout.records_at()), header.tag,
                   bytes_.subspan(layout.records_at(), group.records_length + kTagSize), unit))
      return fail(ErrorKind::not_found, "");
    OpenedGroup opened{.header = group, .records = {}, .area = {header_.id, layout.cells_at(), header.nonce}};
    Decoder in(unit);
    if (!walk_runs(in, layout, header.nonce, check_cells)) return fail(ErrorKind::not_found, "");
    const ByteView records = in.bytes(in.remaining());
    opened.records.assign(records.begin(), records.end());
    return opened;
  }

 private:
  bool walk_runs(Decoder& in, const GroupLayout& layout, std::uint64_t nonce, bool check_cells) const {
    const std::uint64_t count = in.varint_max(layout.cells_length);
    std::uint64_t at = layout.cells_at();
    Bytes plain;
    for (std::uint64_t i = 0; i < count && in.ok(); ++i) {
      const std::uint8_t cell_log2 = in.u8();
      const auto length = static_cast<std::uint32_t>(in.varint_max(layout.cells_length));
      if (!in.ok() || cell_log2 < 9 || cell_log2 > 20 || length == 0) return false;
      const std::uint64_t sealed = sealed_length_of(length, cell_log2);
      if (sealed > layout.content_end() - at) return false;
      if (check_cells) {
        plain.resize(length);
        if (!key_.open_cells(nonce, static_cast<std::uint32_t>(at), std::uint32_t{1} << cell_log2,
                             bytes_.subspan(at, sealed), plain))
          return false;
      }
      at += sealed;
    }
    return in.ok() && at == layout.content_end();
  }

  const SegmentHeader header_;
  const AeadKey key_;
  const ByteView bytes_;
  const ByteView associated_;
};

// Behind a group that does not open: headers that still verify say what was durable.
Status look_beyond(const Reading& reading, std::uint64_t from, std::uint64_t align, std::uint64_t length,
                   SegmentScan& scan) {
  for (std::uint64_t at = from; at < length;) {
    const auto header = reading.open_header(at);
    if (!header) {
      if (header.error().kind() != ErrorKind::not_found) return fail(header.error());
      at += align;
      continue;
    }
    scan.durable_upto = std::max(scan.durable_upto, header->group.durable_upto);
    const auto rest = reading.open_rest(*header, at, true);
    if (rest) scan.whole_groups_after_bad = true;
    at += rest ? header->group.total_length : align;
  }
  return {};
}

}  // namespace

Result<OpenedSegment> open_segment_bytes(const KeyTree& keys, ByteView bytes, std::uint64_t length,
                                         std::optional<GroupTag> previous_tag, bool check_cells) {
  if (bytes.size() < SegmentHeader::kEncodedSize)
    return fail(ErrorKind::corrupt, "a segment is shorter than its header");
  OpenedSegment opened;
  SegmentScan& scan = opened.scan;
  TRY(scan.header, SegmentHeader::decode(bytes.first(SegmentHeader::kEncodedSize)));
  if (scan.header.volume != keys.volume_id())
    return fail(ErrorKind::corrupt, "a segment belongs to another volume");
  length = std::min<std::uint64_t>({length, bytes.size(), std::uint64_t{1} << 31});
  const Reading reading(keys, scan.header, bytes.first(length));
  const std::uint64_t align = std::uint64_t{1} << scan.header.align_log2;
  std::uint64_t at = align;
  scan.good_length = at;
  while (at < length) {
    const auto header = reading.open_header(at);
    if (!header && header.error().kind() != ErrorKind::not_found) return fail(header.error());
    if (!header) break;
    const GroupHeader& group = header->group;
    scan.durable_upto = std::max(scan.durable_upto, group.durable_upto);
    const bool follows = (scan.last_group == 0 || group.number == scan.last_group + 1) &&
                         (!previous_tag || group.previous_tag == *previous_tag);
    if (!follows) break;
    auto rest = reading.open_rest(*header, at, check_cells);
    if (!rest) break;
    opened.groups.push_back(*std::move(rest));
    if (scan.first_group == 0) scan.first_group = group.number;
    scan.last_group = group.number;
    scan.last_group_tag = header->tag;
    previous_tag = header->tag;
    at += group.total_length;
    scan.good_length = at;
  }
  const ByteView rest = bytes.subspan(std::min(at, length), std::min(align, length - std::min(at, length)));
  if (std::ranges::any_of(rest, [](std::uint8_t byte) { return byte != 0; })) scan.bad_at = at;
  TRY_OK(look_beyond(reading, at, align, length, scan));
  return opened;
}

}  // namespace cumulus
