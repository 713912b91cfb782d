// cumulus manual, cumulus completion: the manual pages and the shell's completions, printed for the build.
#include <cstdio>

#include "fs/fuse/mount_options.h"
#include "tools/cumulus/commands.h"
#include "tools/manual.h"

namespace cumulus {
namespace {

constexpr const char* kVersion = "cumulus 0.1.0";

std::string page_of_cumulus(const CLI::App& app) {
  ManualPage page("cumulus", 1, kVersion, "a drive and a disk on storage that nobody has to trust");
  page.program(app);
  page.section("ENVIRONMENT");
  page.item("CUMULUS_HOME", "where everything lies, as --home says it");
  page.section("SEE ALSO");
  page.paragraph("cumulus-miner(1), mount.cumulus(8), mount(8), nbdinfo(1), qemu-nbd(8)");
  return page.text();
}

std::string page_of_mount() {
  ManualPage page("mount.cumulus", 8, kVersion, "mount a file system of a Cumulus volume");
  page.section("SYNOPSIS");
  page.literal("mount -t cumulus VOLUME[/FS] DIR [-o OPTIONS]");
  page.section("DESCRIPTION");
  page.paragraph(
      "The helper of mount(8); umount(8) finds its own. VOLUME alone means its file system 'main'. The same "
      "as "
      "'cumulus mount', which says more: see cumulus(1).");
  page.section("OPTIONS");
  for (const MountOptionHelp& one : mount_option_help()) page.item(one.words, one.what);
  page.item("home=DIR", "where everything lies, as 'cumulus --home' says it");
  page.item("passphrase_file=FILE", "its first line is the passphrase of the volume's key file");
  page.paragraph(
      "What mount(8), fstab(5) and systemd keep for themselves (auto, noauto, nofail, _netdev, user, x-...) "
      "is "
      "left to them. Any other option is refused.");
  page.section("EXAMPLE");
  page.paragraph("In /etc/fstab:");
  page.literal("photos  /mnt/photos  cumulus  _netdev,nofail,allow_other  0  0");
  page.section("SEE ALSO");
  page.paragraph("cumulus(1), mount(8), fstab(5)");
  return page.text();
}

}  // namespace

void add_manual_commands(CLI::App& app, Invocation& invocation) {
  auto* manual = app.add_subcommand("manual", "print a manual page, as roff")->group("");
  static std::string name = "cumulus";
  manual->add_option("PAGE", name, "cumulus or mount.cumulus");
  invocation.on(manual, [&app]() -> Result<int> {
    if (name != "cumulus" && name != "mount.cumulus")
      return fail(ErrorKind::invalid, "there is no page '" + name + "': cumulus or mount.cumulus");
    std::fputs((name == "cumulus" ? page_of_cumulus(app) : page_of_mount()).c_str(), stdout);
    return 0;
  });
  add_completion_command(app, [&invocation](std::function<int()> body) { invocation.run = std::move(body); });
}

}  // namespace cumulus
