// Mount points: putting a FUSE connection on a directory and taking it off, as root by mount(2), else through
// fusermount3. Whoever runs the command mounts, in their own mount namespace and with their own rights, and
// hands the connection's descriptor to the daemon that serves it.
//
// Blocking: never on a reactor thread, for looking a path up may go through a mount that this very reactor
// serves.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "fs/fuse/mount_options.h"
#include "objectstore/base/result.h"

namespace cumulus {

inline constexpr const char* kMountType = "fuse.cumulus";

struct MountEntry {
  std::string directory;
  std::string source;  // VOLUME/FS
  std::string type;
  std::string options;  // the mount's own and the file system's
  std::string device;   // MAJOR:MINOR
};

// Absolute, without symbolic links or dots, also when the last part is a mount whose daemon is dead.
Result<std::string> canonical_mount_point(const std::string& directory);
// What is mounted at exactly this (canonical) directory, topmost; nullopt: nothing.
Result<std::optional<MountEntry>> mount_at(const std::string& directory);
// True when the directory answers as a mount does whose daemon has died.
bool mount_is_dead(const std::string& directory);
// For a mount whose daemon was killed while it waited for the kernel, which waits for the daemon: everything
// that still waits fails, and the daemon's last thread ends. Needs root, or the fusectl file system.
void abort_mount(const std::string& directory);
// Refuses what cannot be mounted on: missing, no directory, not empty (unless allowed), mounted already,
// dead.
Status check_mount_point(const std::string& directory, const MountOptions& options);

// Mounts, and returns the connection's descriptor, the caller's. denied, with what to do, when the system
// does not let this user.
Result<int> mount_fuse(const std::string& source, const std::string& directory, const MountOptions& options);
// `lazily`: detached at once, gone when nobody uses it any more. exists: it is in use.
Status unmount_fuse(const std::string& directory, bool lazily);

}  // namespace cumulus
