// MountOptions: what stands after -o, by the names that mount(8) and libfuse use. Pure; any thread.
//
// An option that is not known is refused by name: a mount that silently ignores what it was asked for is
// worse than none. What mount(8) itself evaluates (_netdev, nofail, x-...) is accepted and means nothing
// here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/file_system.h"
#include "objectstore/base/result.h"

namespace cumulus {

struct MountOptions {
  bool read_only = false;
  bool allow_other = false;         // everybody, not only who mounted it
  bool allow_root = false;          // who mounted it, and root
  bool default_permissions = true;  // the kernel checks modes and ACLs
  AccessTimes access_times = AccessTimes::relative;
  bool no_directory_atime = false;
  bool writeback = false;       // the kernel's write-back cache: SEMANTICS.md says what a kill then loses
  bool list_snapshots = false;  // .snapshots appears in the root's listing
  bool set_ids = true;          // suid; as root only, fusermount3 never gives it
  bool devices = true;          // dev; the same
  bool execute = true;
  bool synchronous = false;  // every write is durable before it returns
  bool synchronous_directories = false;
  bool nonempty = false;    // mount over a directory that is not empty
  std::string snapshot;     // mounted instead of the head, read-only
  std::string at;           // the newest snapshot not after this time
  std::string outage_wait;  // as `volume set` takes it
  bool steal = false;

  // invalid, naming the option.
  static Result<MountOptions> parse(std::string_view words);
  // The same options as words that parse() takes: how a mount is remembered.
  std::string to_words() const;
  // Flags of mount(2), MS_*.
  unsigned long mount_flags() const;
};

// Every option there is, for a manual page.
struct MountOptionHelp {
  std::string words;
  std::string what;
};
std::vector<MountOptionHelp> mount_option_help();

}  // namespace cumulus
