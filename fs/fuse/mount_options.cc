#include "fs/fuse/mount_options.h"

#include <algorithm>
#include <array>
#include <sys/mount.h>

#include "objectstore/base/format.h"

namespace cumulus {
namespace {

struct Switch {
  std::string_view on;
  std::string_view off;
  bool MountOptions::* field;
  std::string_view what;  // when it is on
};
constexpr std::array kSwitches = {
    Switch{"ro", "rw", &MountOptions::read_only, "nothing can be changed"},
    Switch{"allow_other", "", &MountOptions::allow_other, "everybody may enter, not only who mounted it"},
    Switch{"allow_root", "", &MountOptions::allow_root, "root may enter too"},
    Switch{"default_permissions", "no_default_permissions", &MountOptions::default_permissions,
           "the kernel checks modes and ACLs; so by default"},
    Switch{"nodiratime", "diratime", &MountOptions::no_directory_atime,
           "reading a directory does not change its access time"},
    Switch{"writeback", "nowriteback", &MountOptions::writeback,
           "the kernel gathers writes before it hands them over: faster, and a daemon that is killed loses "
           "what was not synced"},
    Switch{"list_snapshots", "nolist_snapshots", &MountOptions::list_snapshots,
           "the directory .snapshots is shown in the root's listing; it can be entered in any case"},
    Switch{"suid", "nosuid", &MountOptions::set_ids,
           "set-user-ID and set-group-ID mean something; for root only"},
    Switch{"dev", "nodev", &MountOptions::devices, "device files mean something; for root only"},
    Switch{"exec", "noexec", &MountOptions::execute, "programs may be run"},
    Switch{"sync", "async", &MountOptions::synchronous, "every write is durable before it returns"},
    Switch{"dirsync", "", &MountOptions::synchronous_directories, "the same for changes of names"},
    Switch{"nonempty", "", &MountOptions::nonempty, "mount over a directory that is not empty"},
    Switch{"steal", "", &MountOptions::steal, "take the volume over although another home did not close it"},
};

struct Value {
  std::string_view name;
  std::string MountOptions::* field;
  std::string_view what;
};
constexpr std::array kValues = {
    Value{"snapshot", &MountOptions::snapshot, "a snapshot of that name instead of the present, read-only"},
    Value{"at", &MountOptions::at,
          "the newest snapshot not after that time (YYYY-MM-DD[THH:MM:SS][Z]), read-only"},
    Value{"outage_wait", &MountOptions::outage_wait,
          "how long reads wait when too few miners answer: 30s, forever"},
};

// What mount(8), systemd and fstab keep for themselves, and what is always so here.
constexpr std::array<std::string_view, 17> kIgnored = {
    "defaults", "auto", "noauto", "_netdev", "nofail", "user",   "nouser",   "users",     "owner",
    "group",    "loud", "silent", "comment", "mand",   "nomand", "iversion", "noiversion"};
constexpr std::array<std::string_view, 3> kOwnedByUs = {"fsname", "subtype", "max_read"};

bool ignored(std::string_view word) {
  const std::string_view name = word.substr(0, word.find('='));
  return name.starts_with("x-") || name.starts_with("X-") ||
         std::ranges::find(kIgnored, name) != kIgnored.end();
}

Status take(MountOptions& options, std::string_view word) {
  for (const Switch& one : kSwitches) {
    if (word != one.on && (one.off.empty() || word != one.off)) continue;
    options.*one.field = word == one.on;
    return {};
  }
  const auto equals = word.find('=');
  const std::string_view name = word.substr(0, equals);
  for (const Value& one : kValues) {
    if (name != one.name) continue;
    if (equals == std::string_view::npos || equals + 1 == word.size())
      return fail(ErrorKind::invalid, format("mount option '{}' needs a value: {}=...", name, name));
    options.*one.field = std::string(word.substr(equals + 1));
    return {};
  }
  if (word == "relatime" || word == "atime" || word == "nostrictatime") {
    options.access_times = AccessTimes::relative;
  } else if (word == "strictatime" || word == "norelatime") {
    options.access_times = AccessTimes::strict;
  } else if (word == "noatime") {
    options.access_times = AccessTimes::never;
  } else if (std::ranges::find(kOwnedByUs, name) != kOwnedByUs.end()) {
    return fail(ErrorKind::invalid, format("mount option '{}' is Cumulus's own to set: leave it out", name));
  } else if (!ignored(word)) {
    return fail(ErrorKind::invalid,
                format("unknown mount option '{}': see 'cumulus mount --help' for those there are", word));
  }
  return {};
}

void add(std::string& words, std::string_view word) {
  if (!words.empty()) words += ',';
  words += word;
}

}  // namespace

Result<MountOptions> MountOptions::parse(std::string_view words) {
  MountOptions options;
  while (!words.empty()) {
    const auto comma = words.find(',');
    const std::string_view word = words.substr(0, comma);
    words = comma == std::string_view::npos ? std::string_view() : words.substr(comma + 1);
    if (!word.empty()) TRY_OK(take(options, word));
  }
  if (!options.snapshot.empty() && !options.at.empty())
    return fail(ErrorKind::invalid, "give either a snapshot's name or a time, not both");
  if (!options.snapshot.empty() || !options.at.empty()) options.read_only = true;
  return options;
}

std::string MountOptions::to_words() const {
  const MountOptions usual;
  std::string words;
  for (const Switch& one : kSwitches) {
    if (this->*one.field != usual.*one.field) add(words, this->*one.field ? one.on : one.off);
  }
  if (access_times == AccessTimes::strict) add(words, "strictatime");
  if (access_times == AccessTimes::never) add(words, "noatime");
  for (const Value& one : kValues) {
    if (!(this->*one.field).empty()) add(words, format("{}={}", one.name, this->*one.field));
  }
  return words;
}

unsigned long MountOptions::mount_flags() const {
  unsigned long flags = 0;
  if (read_only) flags |= MS_RDONLY;
  if (!set_ids) flags |= MS_NOSUID;
  if (!devices) flags |= MS_NODEV;
  if (!execute) flags |= MS_NOEXEC;
  if (synchronous) flags |= MS_SYNCHRONOUS;
  if (synchronous_directories) flags |= MS_DIRSYNC;
  if (no_directory_atime) flags |= MS_NODIRATIME;
  if (access_times == AccessTimes::strict) flags |= MS_STRICTATIME;
  if (access_times == AccessTimes::never) flags |= MS_NOATIME;
  return flags;
}

std::vector<MountOptionHelp> mount_option_help() {
  std::vector<MountOptionHelp> all;
  for (const Switch& one : kSwitches) {
    const std::string off = one.off.empty() ? "" : format(", {}", one.off);
    all.push_back({std::string(one.on) + off, std::string(one.what)});
  }
  all.push_back(
      {"relatime, strictatime, noatime",
       "when reading a file changes its access time: now and then, always, never; relatime by default"});
  for (const Value& one : kValues) all.push_back({format("{}=VALUE", one.name), std::string(one.what)});
  return all;
}

}  // namespace cumulus
