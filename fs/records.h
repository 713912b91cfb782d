// Records: what an inode's header and a directory's entry look like in the volume (FORMAT.md). Pure; any
// thread.
#pragma once

#include <cstdint>
#include <string>

#include "objectstore/base/bytes.h"
#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"

namespace cumulus {

// The header of a file's, directory's or other node's object.
struct Inode {
  std::uint32_t mode = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t nlink = 0;
  std::uint32_t rdev = 0;
  std::uint32_t tree = 0;       // quota tree, inherited from the directory
  ObjectId parent = 0;          // of directories
  std::uint64_t allocated = 0;  // bytes of a file that are not holes
  bool holes = false;           // may have some: then allocation is counted range by range
  std::int64_t atime = 0;       // nanoseconds since 1970
  std::int64_t mtime = 0;
  std::int64_t ctime = 0;
  std::int64_t btime = 0;

  Bytes encode() const;
  static Result<Inode> decode(ByteView bytes);
  bool operator==(const Inode&) const = default;
};

// The value of a directory's omap entry; its key is the cookie, big-endian. object 0: a name was here, and
// names that were put behind it for want of their own place are found beyond.
struct EntryRecord {
  ObjectId object = 0;
  std::uint8_t type = 0;  // the mode's kind, >> 12
  std::string name;

  Bytes encode() const;
  static Result<EntryRecord> decode(ByteView bytes);
  bool operator==(const EntryRecord&) const = default;
};

inline constexpr std::size_t kNameMax = 255;
inline constexpr std::uint64_t kCookieMin = 16;  // below: "." and ".."

// Where a name belongs in its directory: 63 bits of SipHash-2-4 under the file system's salt, at least
// kCookieMin.
using NameSalt = std::array<std::uint8_t, 16>;
std::uint64_t cookie_of(const NameSalt& salt, std::string_view name);
Bytes cookie_key(std::uint64_t cookie);
Result<std::uint64_t> cookie_of_key(ByteView key);

}  // namespace cumulus
