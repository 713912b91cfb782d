// POSIX access control lists in the form in which the kernel passes them (linux/posix_acl_xattr.h), and what
// they have to do with the mode (POSIX 1003.1e draft 17, sections 23.1.2 to 23.1.6). Pure.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"

namespace cumulus {

inline constexpr std::string_view kAccessAcl = "system.posix_acl_access";
inline constexpr std::string_view kDefaultAcl = "system.posix_acl_default";

class Acl {
 public:
  // invalid for anything that is not one.
  static Result<Acl> decode(ByteView bytes);
  Bytes encode() const;

  // False for one that says just what nine bits of a mode say.
  bool is_more_than_a_mode() const { return entries_.size() > 3; }
  // The mode's nine bits that go with it; the rest of `mode` as it is.
  std::uint32_t mode_with(std::uint32_t mode) const;
  // chmod: owner, mask (or group) and others become what the mode says.
  void set_mode(std::uint32_t mode);
  // A new node's: what was inherited, without what `mode` does not ask for; returns the mode that results.
  std::uint32_t restrict_to(std::uint32_t mode);

 private:
  enum Tag : std::uint16_t {
    kUserObject = 1,
    kUser = 2,
    kGroupObject = 4,
    kGroup = 8,
    kMask = 16,
    kOther = 32
  };
  struct Item {
    std::uint16_t tag = 0;
    std::uint16_t permissions = 0;
    std::uint32_t id = 0;
  };
  Item* find(Tag tag);
  const Item* find(Tag tag) const;
  std::vector<Item> entries_;
};

}  // namespace cumulus
