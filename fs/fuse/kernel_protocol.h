// What of the kernel's FUSE protocol (linux/fuse.h, 7.31 to 7.42) libfuse 3.14 does not know or does not pass
// on, in the kernel's own layout. Everything else is libfuse's business.
#pragma once

#include <cstdint>

namespace cumulus::fuse_kernel {

struct InHeader {
  std::uint32_t length;
  std::uint32_t opcode;
  std::uint64_t unique;
  std::uint64_t node;
  std::uint32_t uid;
  std::uint32_t gid;
  std::uint32_t pid;
  std::uint16_t extensions_length;  // 8-byte words
  std::uint16_t padding;
};
static_assert(sizeof(InHeader) == 40);

struct OutHeader {
  std::uint32_t length;
  std::int32_t error;
  std::uint64_t unique;
};
static_assert(sizeof(OutHeader) == 16);

enum Opcode : std::uint32_t {
  kLookup = 1,
  kGetattr = 3,
  kRead = 15,
  kWrite = 16,
  kInit = 26,
  kCreate = 35,
  kTmpFile = 51,
  kStatx = 52,
};
inline constexpr std::uint32_t kOpcodes = 64;  // none is larger so far but those of CUSE

// Flags of INIT that are put into the answer when the kernel offers them.
inline constexpr std::uint64_t kMaxPages = 1ull << 22;  // libfuse 3.14.0 fills the field and loses the flag
inline constexpr std::uint64_t kHandleKillprivV2 = 1ull << 28;
inline constexpr std::uint64_t kSetXattrExt = 1ull << 29;
inline constexpr std::uint64_t kInitExt = 1ull << 30;

struct InitIn {
  std::uint32_t major;
  std::uint32_t minor;
  std::uint32_t max_readahead;
  std::uint32_t flags;
  std::uint32_t flags2;
  std::uint32_t unused[11];
};
static_assert(sizeof(InitIn) == 64);

struct InitOut {
  std::uint32_t major;
  std::uint32_t minor;
  std::uint32_t max_readahead;
  std::uint32_t flags;
  std::uint16_t max_background;
  std::uint16_t congestion_threshold;
  std::uint32_t max_write;
  std::uint32_t time_gran;
  std::uint16_t max_pages;
  std::uint16_t map_alignment;
  std::uint32_t flags2;
  std::uint32_t unused[7];
};
static_assert(sizeof(InitOut) == 64);

inline constexpr std::int32_t kNotifyInvalidateNode = 2;  // in OutHeader::error, with unique 0
inline constexpr std::int32_t kNotifyInvalidateEntry = 3;
struct InvalidateOut {
  std::uint64_t node;
  std::int64_t offset;
  std::int64_t length;  // 0: to the end
};
struct InvalidateEntryOut {  // the name and a NUL follow
  std::uint64_t parent;
  std::uint32_t name_length;
  std::uint32_t flags;
};
static_assert(sizeof(InvalidateEntryOut) == 16);

struct WriteIn {
  std::uint64_t handle;
  std::uint64_t offset;
  std::uint32_t size;
  std::uint32_t write_flags;
  std::uint64_t lock_owner;
  std::uint32_t flags;
  std::uint32_t padding;
};
static_assert(sizeof(WriteIn) == 40);
inline constexpr std::uint32_t kWriteFromCache = 1u << 0;
inline constexpr std::uint32_t kWriteKillSetId = 1u << 2;

struct SetXattrIn {  // with kSetXattrExt; name and value follow
  std::uint32_t size;
  std::uint32_t flags;
  std::uint32_t extension_flags;
  std::uint32_t padding;
};
static_assert(sizeof(SetXattrIn) == 16);
inline constexpr std::uint32_t kSetXattrAclKillSetGid = 1u << 0;

struct StatxIn {
  std::uint32_t getattr_flags;
  std::uint32_t reserved;
  std::uint64_t handle;
  std::uint32_t statx_flags;
  std::uint32_t statx_mask;
};
static_assert(sizeof(StatxIn) == 24);

struct StatxTime {
  std::int64_t seconds;
  std::uint32_t nanoseconds;
  std::int32_t reserved;
};

struct Statx {
  std::uint32_t mask;
  std::uint32_t block_size;
  std::uint64_t attributes;
  std::uint32_t nlink;
  std::uint32_t uid;
  std::uint32_t gid;
  std::uint16_t mode;
  std::uint16_t spare0;
  std::uint64_t node;
  std::uint64_t size;
  std::uint64_t blocks;
  std::uint64_t attributes_mask;
  StatxTime accessed;
  StatxTime born;
  StatxTime changed;
  StatxTime modified;
  std::uint32_t rdev_major;
  std::uint32_t rdev_minor;
  std::uint32_t dev_major;
  std::uint32_t dev_minor;
  std::uint64_t spare2[14];
};
static_assert(sizeof(Statx) == 256);

struct StatxOut {
  std::uint64_t valid_seconds;
  std::uint32_t valid_nanoseconds;
  std::uint32_t flags;
  std::uint64_t spare[2];
  Statx stat;
};
static_assert(sizeof(StatxOut) == 288);

}  // namespace cumulus::fuse_kernel
