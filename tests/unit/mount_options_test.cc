// Mount options: the names of mount(8) and libfuse mean what they say, and what is not known is refused by
// name.
#include "fs/fuse/mount_options.h"

#include <gtest/gtest.h>
#include <sys/mount.h>

#include "fs/fuse/mount_point.h"

namespace cumulus {
namespace {

MountOptions parsed(const std::string& words) {
  auto options = MountOptions::parse(words);
  EXPECT_TRUE(options.has_value()) << words << ": " << options.error().message();
  return options.value_or(MountOptions());
}

TEST(MountOptions, defaults) {
  const MountOptions options = parsed("");
  EXPECT_FALSE(options.read_only);
  EXPECT_TRUE(options.default_permissions);
  EXPECT_EQ(options.access_times, AccessTimes::relative);
  EXPECT_FALSE(options.writeback);
  EXPECT_EQ(options.mount_flags(), 0u);
}

TEST(MountOptions, later_words_win) {
  EXPECT_FALSE(parsed("ro,rw").read_only);
  EXPECT_TRUE(parsed("rw,ro").read_only);
  EXPECT_EQ(parsed("noatime,strictatime").access_times, AccessTimes::strict);
  EXPECT_FALSE(parsed("nosuid").set_ids);
  EXPECT_EQ(parsed("ro,nosuid,nodev,noexec,sync,dirsync,noatime,nodiratime").mount_flags(),
            static_cast<unsigned long>(MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_SYNCHRONOUS |
                                       MS_DIRSYNC | MS_NOATIME | MS_NODIRATIME));
}

TEST(MountOptions, what_mount_and_systemd_keep_for_themselves_is_accepted) {
  const MountOptions options =
      parsed("defaults,_netdev,nofail,noauto,x-systemd.automount,x-gvfs-show,user,,rw,");
  EXPECT_EQ(options.to_words(), "");
}

TEST(MountOptions, snapshots_are_read_only) {
  EXPECT_TRUE(parsed("snapshot=monday").read_only);
  EXPECT_TRUE(parsed("at=2026-01-01,rw").read_only);
  EXPECT_EQ(parsed("snapshot=monday").snapshot, "monday");
  EXPECT_FALSE(MountOptions::parse("snapshot=a,at=2026-01-01").has_value());
  EXPECT_FALSE(MountOptions::parse("snapshot=").has_value());
  EXPECT_FALSE(MountOptions::parse("snapshot").has_value());
}

TEST(MountOptions, unknown_words_are_refused_by_name) {
  for (const std::string word :
       {"allow_everyone", "rsize=4096", "fsname=x", "subtype=x", "r o", "writeback=yes", "sync=1", "RO"}) {
    const auto refused = MountOptions::parse("rw," + word);
    ASSERT_FALSE(refused.has_value()) << word;
    EXPECT_EQ(refused.error().kind(), ErrorKind::invalid);
    EXPECT_NE(refused.error().message().find(word.substr(0, word.find('='))), std::string::npos)
        << refused.error().message();
  }
}

TEST(MountOptions, to_words_and_back) {
  for (const std::string words :
       {"", "ro", "allow_other,noatime", "no_default_permissions,nosuid,nodev", "ro,snapshot=a b",
        "strictatime,writeback", "outage_wait=forever,list_snapshots"}) {
    const MountOptions once = parsed(words);
    EXPECT_EQ(parsed(once.to_words()).to_words(), once.to_words()) << words;
    EXPECT_EQ(once.mount_flags(), parsed(once.to_words()).mount_flags()) << words;
  }
}

TEST(MountPoint, what_cannot_be_mounted_on_is_refused) {
  const MountOptions options;
  const auto missing = check_mount_point("/nowhere/at all", options);
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().kind(), ErrorKind::not_found);
  const auto file = check_mount_point("/proc/self/mountinfo", options);
  ASSERT_FALSE(file.has_value());
  EXPECT_NE(file.error().message().find("not a directory"), std::string::npos);
  const auto full = check_mount_point("/etc", options);
  ASSERT_FALSE(full.has_value());
  EXPECT_NE(full.error().message().find("not empty"), std::string::npos);
}

TEST(MountPoint, names_are_made_canonical) {
  EXPECT_EQ(canonical_mount_point("/proc/../proc/").value_or("?"), "/proc");
  const auto there = mount_at("/proc");
  ASSERT_TRUE(there.has_value() && there->has_value());
  EXPECT_EQ((*there)->type, "proc");
  EXPECT_FALSE(mount_at("/proc/nothing").value_or(MountEntry()).has_value());
}

}  // namespace
}  // namespace cumulus
