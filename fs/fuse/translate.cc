#include "fs/fuse/translate.h"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <fstream>
#include <sstream>
#include <string>
#include <sys/sysmacros.h>

namespace cumulus {
namespace {

constexpr std::int64_t kNanoseconds = 1'000'000'000;
constexpr std::uint32_t kBlockSize = 4096;
constexpr std::uint32_t kStatxBasicAndBorn = 0x7ff | 0x800;  // STATX_BASIC_STATS, STATX_BTIME

// Times before 1970 have negative seconds and nanoseconds that count up, as timespec has them.
struct Split {
  std::int64_t seconds;
  std::uint32_t nanoseconds;
};
Split split(std::int64_t time) {
  std::int64_t seconds = time / kNanoseconds;
  std::int64_t rest = time % kNanoseconds;
  if (rest < 0) {
    rest += kNanoseconds;
    --seconds;
  }
  return {seconds, static_cast<std::uint32_t>(rest)};
}
timespec to_timespec(std::int64_t time) {
  const Split parts = split(time);
  return {parts.seconds, static_cast<long>(parts.nanoseconds)};
}

// The caller waits for us meanwhile, so its groups stay what they are.
bool has_group(std::uint32_t pid, std::uint32_t gid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with("Groups:")) continue;
    std::istringstream groups(line.substr(line.find(':') + 1));
    for (std::uint32_t group = 0; groups >> group;) {
      if (group == gid) return true;
    }
  }
  return false;
}

fuse_kernel::StatxTime to_statx_time(std::int64_t time) {
  const Split parts = split(time);
  return {parts.seconds, parts.nanoseconds, 0};
}

}  // namespace

int to_errno(const FsError& error) {
  switch (error.kind) {
    case FsErrorKind::not_found:
      return ENOENT;
    case FsErrorKind::exists:
      return EEXIST;
    case FsErrorKind::not_empty:
      return ENOTEMPTY;
    case FsErrorKind::is_directory:
      return EISDIR;
    case FsErrorKind::not_directory:
      return ENOTDIR;
    case FsErrorKind::loop:
      return EINVAL;  // a directory into itself
    case FsErrorKind::cross_tree:
      return EXDEV;
    case FsErrorKind::quota:
      return EDQUOT;
    case FsErrorKind::no_space:
      return ENOSPC;
    case FsErrorKind::name_too_long:
      return ENAMETOOLONG;
    case FsErrorKind::denied:
      return EACCES;
    case FsErrorKind::not_permitted:
      return EPERM;
    case FsErrorKind::invalid:
      return EINVAL;
    case FsErrorKind::too_big:
      return EFBIG;
    case FsErrorKind::io:
      return EIO;
    case FsErrorKind::interrupted:
      return EINTR;
    case FsErrorKind::read_only:
      return EROFS;
    case FsErrorKind::no_data:
      return ENODATA;
    case FsErrorKind::range:
      return ERANGE;
    case FsErrorKind::busy:
      return EBUSY;
    case FsErrorKind::stale:
      return ESTALE;
    case FsErrorKind::unsupported:
      return EOPNOTSUPP;
    case FsErrorKind::beyond_end:
      return ENXIO;
    case FsErrorKind::too_many_links:
      return EMLINK;
  }
  return EIO;
}

struct stat to_stat(const Attributes& attributes) {
  struct stat about{};
  about.st_ino = attributes.node;
  about.st_mode = attributes.mode;
  about.st_nlink = attributes.nlink;
  about.st_uid = attributes.uid;
  about.st_gid = attributes.gid;
  about.st_rdev = attributes.rdev;
  about.st_size = static_cast<off_t>(attributes.size);
  about.st_blksize = kBlockSize;
  about.st_blocks = static_cast<blkcnt_t>(attributes.blocks);
  about.st_atim = to_timespec(attributes.atime);
  about.st_mtim = to_timespec(attributes.mtime);
  about.st_ctim = to_timespec(attributes.ctime);
  return about;
}

fuse_kernel::Statx to_statx(const Attributes& attributes) {
  fuse_kernel::Statx about{};
  about.mask = kStatxBasicAndBorn;
  about.block_size = kBlockSize;
  about.nlink = attributes.nlink;
  about.uid = attributes.uid;
  about.gid = attributes.gid;
  about.mode = static_cast<std::uint16_t>(attributes.mode);
  about.node = attributes.node;
  about.size = attributes.size;
  about.blocks = attributes.blocks;
  about.accessed = to_statx_time(attributes.atime);
  about.born = to_statx_time(attributes.btime);
  about.changed = to_statx_time(attributes.ctime);
  about.modified = to_statx_time(attributes.mtime);
  about.rdev_major = major(attributes.rdev);
  about.rdev_minor = minor(attributes.rdev);
  return about;
}

std::uint32_t attributes_valid(const Attributes& attributes) {
  if (attributes.changes_by_itself) return 0;
  return S_ISDIR(attributes.mode) ? kDirectoryValid : kValidForGood;
}

fuse_entry_param entry_param(const Entry& entry, std::uint32_t name_valid) {
  fuse_entry_param param{};
  param.ino = entry.node;
  param.attr = to_stat(entry.attributes);
  param.attr_timeout = attributes_valid(entry.attributes);
  param.entry_timeout = name_valid;
  return param;
}

struct statvfs to_statvfs(const FileSystemStatus& status) {
  struct statvfs about{};
  about.f_bsize = kBlockSize;
  about.f_frsize = kBlockSize;
  about.f_blocks = status.bytes / kBlockSize;
  about.f_bfree = about.f_bavail = status.bytes_free / kBlockSize;
  about.f_files = status.inodes;
  about.f_ffree = about.f_favail = status.inodes_free;
  about.f_namemax = 255;
  return about;
}

Caller to_caller(const fuse_ctx& context) {
  Caller caller;
  caller.uid = context.uid;
  caller.gid = context.gid;
  caller.umask = context.umask;
  caller.pid = static_cast<std::uint32_t>(context.pid);
  caller.has_group = has_group;
  return caller;
}

OpenFlags to_open_flags(int flags) {
  OpenFlags wanted;
  wanted.read = (flags & O_ACCMODE) != O_WRONLY;
  wanted.write = (flags & O_ACCMODE) != O_RDONLY;
  wanted.sync = (flags & O_DSYNC) != 0;  // O_SYNC has this bit too
  return wanted;
}

}  // namespace cumulus
