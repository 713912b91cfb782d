#include "objectstore/log/group.h"

#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"

namespace cumulus {
namespace {
constexpr std::uint32_t kFlagBookkeeping = 1;
constexpr std::size_t kReserved = 24;
}  // namespace

std::array<std::uint8_t, kGroupHeaderSize> GroupHeader::encode() const {
  std::array<std::uint8_t, kGroupHeaderSize> plain{};
  std::uint8_t* at = plain.data();
  const auto put = [&at](auto value) {
    std::memcpy(at, &value, sizeof value);
    at += sizeof value;
  };
  put(total_length);
  put(records_length);
  put(cells_length);
  put(bookkeeping ? kFlagBookkeeping : std::uint32_t{0});
  put(number);
  put(written_at);
  put(durable_upto);
  put(previous_tag);
  CHECK(at + kReserved == plain.data() + plain.size());
  return plain;
}

Result<GroupHeader> GroupHeader::decode(ByteView plain, std::uint8_t align_log2) {
  Decoder in(plain);
  GroupHeader header;
  header.total_length = in.u32();
  header.records_length = in.u32();
  header.cells_length = in.u32();
  const std::uint32_t flags = in.u32();
  header.number = in.u64();
  header.written_at = in.u64();
  header.durable_upto = in.u64();
  header.previous_tag = in.array<kTagSize>();
  const ByteView reserved = in.bytes(kReserved);
  if (!in.done()) return fail(ErrorKind::corrupt, "group header: wrong length");
  if ((flags & ~kFlagBookkeeping) != 0)
    return fail(ErrorKind::unsupported, "group header: flags that are not known; a newer Cumulus wrote it");
  header.bookkeeping = (flags & kFlagBookkeeping) != 0;
  const std::uint64_t align = std::uint64_t{1} << align_log2;
  const std::uint64_t content =
      std::uint64_t{kGroupFixedSize} + header.records_length + kTagSize + header.cells_length;
  const bool clear = std::ranges::all_of(reserved, [](std::uint8_t byte) { return byte == 0; });
  if (!clear || header.number == 0 || header.durable_upto >= header.number ||
      header.total_length != (content + align - 1) / align * align)
    return fail(ErrorKind::corrupt, "group header: a field has an impossible value");
  return header;
}

}  // namespace cumulus
