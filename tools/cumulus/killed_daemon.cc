#include "tools/cumulus/killed_daemon.h"

#include "fs/fuse/mount_point.h"
#include "tools/cumulus/frame.h"

namespace cumulus {

void end_mounts_of_killed(const Home& home, const std::string& volume) {
  const auto daemon = DaemonSocket::connect(home.volume(volume));
  if (daemon || daemon.error().kind() != ErrorKind::closed) return;
  const auto content = Home::read_file(home.volume(volume) + "/mounts.json", 1u << 20);
  if (!content) return;
  const Json list = Json::parse(text_of(*content), nullptr, false);
  if (!list.is_array()) return;
  for (const Json& one : list) {
    if (one.is_object()) abort_mount(one.value("directory", ""));
  }
}

void end_mounts_of_killed(const Home& home) {
  const auto volumes = home.volumes();
  if (!volumes) return;  // who needs them says so
  for (const std::string& volume : *volumes) end_mounts_of_killed(home, volume);
}

}  // namespace cumulus
