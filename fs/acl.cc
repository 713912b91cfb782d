#include "fs/acl.h"

#include <algorithm>

#include "objectstore/base/codec.h"

namespace cumulus {
namespace {

constexpr std::uint32_t kVersion = 2;
constexpr std::size_t kItemsMax = 8000;  // more do not fit into an xattr

}  // namespace

Result<Acl> Acl::decode(ByteView bytes) {
  Decoder in(bytes);
  Acl acl;
  if (in.u32() != kVersion) return fail(ErrorKind::invalid, "an access control list of an unknown version");
  while (in.ok() && in.remaining() > 0 && acl.entries_.size() < kItemsMax) {
    Item item;
    item.tag = in.u16();
    item.permissions = in.u16();
    item.id = in.u32();
    acl.entries_.push_back(item);
  }
  const bool sane = std::all_of(acl.entries_.begin(), acl.entries_.end(), [](const Item& item) {
    return item.permissions <= 7 &&
           (item.tag == kUserObject || item.tag == kUser || item.tag == kGroupObject || item.tag == kGroup ||
            item.tag == kMask || item.tag == kOther);
  });
  if (!in.done() || !sane || acl.find(kUserObject) == nullptr || acl.find(kGroupObject) == nullptr ||
      acl.find(kOther) == nullptr)
    return fail(ErrorKind::invalid, "not an access control list");
  return acl;
}

Bytes Acl::encode() const {
  Bytes bytes;
  Encoder out(bytes);
  out.u32(kVersion);
  for (const Item& item : entries_) {
    out.u16(item.tag);
    out.u16(item.permissions);
    out.u32(item.id);
  }
  return bytes;
}

Acl::Item* Acl::find(Tag tag) {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [&](const Item& item) { return item.tag == tag; });
  return found == entries_.end() ? nullptr : &*found;
}
const Acl::Item* Acl::find(Tag tag) const {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [&](const Item& item) { return item.tag == tag; });
  return found == entries_.end() ? nullptr : &*found;
}

std::uint32_t Acl::mode_with(std::uint32_t mode) const {
  const Item* mask = find(kMask);
  const Item* group = mask != nullptr ? mask : find(kGroupObject);
  return (mode & ~0777u) | static_cast<std::uint32_t>(find(kUserObject)->permissions) << 6 |
         static_cast<std::uint32_t>(group->permissions) << 3 | find(kOther)->permissions;
}

void Acl::set_mode(std::uint32_t mode) {
  Item* mask = find(kMask);
  find(kUserObject)->permissions = static_cast<std::uint16_t>(mode >> 6 & 7);
  (mask != nullptr ? mask : find(kGroupObject))->permissions = static_cast<std::uint16_t>(mode >> 3 & 7);
  find(kOther)->permissions = static_cast<std::uint16_t>(mode & 7);
}

std::uint32_t Acl::restrict_to(std::uint32_t mode) {
  Item* mask = find(kMask);
  Item* group = mask != nullptr ? mask : find(kGroupObject);
  find(kUserObject)->permissions &= static_cast<std::uint16_t>(mode >> 6 & 7);
  group->permissions &= static_cast<std::uint16_t>(mode >> 3 & 7);
  find(kOther)->permissions &= static_cast<std::uint16_t>(mode & 7);
  return mode_with(mode);
}

}  // namespace cumulus
