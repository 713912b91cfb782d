// Between the file system's words and the kernel's: errno appears here and nowhere else in fs. Pure.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>

#include "fs/file_system.h"
#include "fs/fuse/kernel_protocol.h"
#include "fs/fuse/libfuse.h"

namespace cumulus {

// Nothing changes a mounted file system behind the kernel: what it knows stays true until it changes it.
inline constexpr std::uint32_t kValidForGood = ~std::uint32_t{0};  // seconds
// But when something is made in a directory while its attributes are asked for, the kernel may take the older
// answer for good.
inline constexpr std::uint32_t kDirectoryValid = 1;
// Seconds that the kernel may keep attributes, and a name in this directory.
std::uint32_t attributes_valid(const Attributes& attributes);
inline std::uint32_t name_valid(bool changes_by_itself) { return changes_by_itself ? 0 : kValidForGood; }

int to_errno(const FsError& error);
struct stat to_stat(const Attributes& attributes);
fuse_kernel::Statx to_statx(const Attributes& attributes);
fuse_entry_param entry_param(const Entry& entry, std::uint32_t name_valid);
struct statvfs to_statvfs(const FileSystemStatus& status);
Caller to_caller(const fuse_ctx& context);
OpenFlags to_open_flags(int flags);

}  // namespace cumulus
