// Between the file system's words and the kernel's: errno appears here and nowhere else in fs. Pure.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>

#include "fs/file_system.h"
#include "fs/fuse/kernel_protocol.h"
#include "fs/fuse/libfuse.h"

namespace cumulus {

// Nothing changes a mounted file system behind the kernel: what it knows stays true until it changes it.
inline constexpr std::uint32_t kAttributesValid = ~std::uint32_t{0};  // seconds

int to_errno(const FsError& error);
struct stat to_stat(const Attributes& attributes);
fuse_kernel::Statx to_statx(const Attributes& attributes);
fuse_entry_param entry_param(const Entry& entry);
struct statvfs to_statvfs(const FileSystemStatus& status);
Caller to_caller(const fuse_ctx& context);
OpenFlags to_open_flags(int flags);

}  // namespace cumulus
