#include "tools/miner/store/slice_key.h"

#include "objectstore/base/format.h"
#include "tools/miner/store/bundle_format.h"

namespace cumulus {
namespace {

void put_big_endian(std::string& out, std::uint64_t value, unsigned bytes) {
  for (unsigned i = bytes; i > 0; --i) out.push_back(static_cast<char>(value >> (8 * (i - 1))));
}

std::uint64_t take_big_endian(ByteView& in, unsigned bytes) {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < bytes; ++i) value = value << 8 | in[i];
  in = in.subspan(bytes);
  return value;
}

std::string_view kind_name(SegmentKind kind) {
  switch (kind) {
    case SegmentKind::log:
      return "log";
    case SegmentKind::bulk:
      return "bulk";
    case SegmentKind::index:
      return "index";
    case SegmentKind::manifest:
      return "manifest";
  }
  return "unknown";
}

}  // namespace

std::string SliceKey::sortable() const {
  std::string out;
  out.reserve(kSortableSize);
  out.append(text_of(volume.view()));
  put_big_endian(out, static_cast<std::uint8_t>(slice.segment.kind), 1);
  put_big_endian(out, slice.segment.epoch, 8);
  put_big_endian(out, slice.segment.sequence, 8);
  put_big_endian(out, slice.index, 2);
  return out;
}

bool SliceKey::parse_sortable(ByteView text, SliceKey& into) {
  if (text.size() != kSortableSize) return false;
  std::memcpy(into.volume.bytes.data(), text.data(), into.volume.bytes.size());
  text = text.subspan(into.volume.bytes.size());
  into.slice.segment.kind = static_cast<SegmentKind>(take_big_endian(text, 1));
  into.slice.segment.epoch = take_big_endian(text, 8);
  into.slice.segment.sequence = take_big_endian(text, 8);
  into.slice.index = static_cast<std::uint16_t>(take_big_endian(text, 2));
  return true;
}

std::string SliceKey::describe() const {
  return cumulus::format("volume {} {} segment {}/{} slice {}", volume.brief(), kind_name(slice.segment.kind),
                         slice.segment.epoch, slice.segment.sequence, slice.index);
}

std::uint64_t SliceLocation::charge() const {
  const std::uint64_t data_size = length <= bundle::kPackedMax
                                      ? bundle::round_up(length, bundle::kPackedAlign)
                                      : bundle::round_up(length, bundle::kBlock);
  return bundle::kRecordSize + manifest_length + data_size;
}

}  // namespace cumulus
