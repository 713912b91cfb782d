// cumulus mount, cumulus umount, and the same as mount(8)'s helpers.
#include "tools/cumulus/mount_commands.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fs/fuse/mount_point.h"
#include "objectstore/base/format.h"
#include "tools/cumulus/commands.h"
#include "tools/cumulus/killed_daemon.h"

namespace cumulus {
namespace {

struct MountArguments {
  std::string target;  // VOLUME[/FS]
  std::string directory;
  std::string words;  // -o
  std::string snapshot;
  std::string at;
  std::string outage_wait;
  bool read_only = false;
  bool steal = false;
  bool foreground = false;
  bool recover = false;
  bool sync = false;
  bool lazy = false;
};

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

Result<MountOptions> options_of(const MountArguments& arguments) {
  std::string words = arguments.words;
  const auto add = [&words](const std::string& word) { words += (words.empty() ? "" : ",") + word; };
  if (arguments.read_only) add("ro");
  if (arguments.steal) add("steal");
  if (!arguments.snapshot.empty()) add("snapshot=" + arguments.snapshot);
  if (!arguments.at.empty()) add("at=" + arguments.at);
  if (!arguments.outage_wait.empty()) add("outage_wait=" + arguments.outage_wait);
  return MountOptions::parse(words);
}

// The kernel reads ahead 128 KiB unless told otherwise, which only root may do: a convenience, so failures
// are none.
void widen_read_ahead(const std::string& directory) {
  struct stat about;
  if (::stat(directory.c_str(), &about) != 0) return;
  std::ofstream setting(
      format("/sys/class/bdi/{}:{}/read_ahead_kb", major(about.st_dev), minor(about.st_dev)));
  setting << 1024;
}

Json mount_request(const char* name, const std::string& file_system, const std::string& directory,
                   const MountOptions& options) {
  return {{"request", name},
          {"file_system", file_system},
          {"directory", directory},
          {"options", options.to_words()}};
}

volatile std::sig_atomic_t interrupted = 0;

// From before the mount is seen: who sees it may send one.
void hear_signals() {
  struct sigaction action{};
  action.sa_handler = [](int) { interrupted = 1; };
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &action, nullptr);
}

// Stays until the mount has ended; a signal ends it.
Result<int> stay(Client& client, const std::string& directory) {
  for (;;) {
    TRY(const Json state,
        client.call({{"request", "mount.wait"}, {"directory", directory}, {"brief", true}}, "", false));
    if (!state.value("mounted", false)) return 0;
    if (!interrupted) continue;
    interrupted = 0;
    const Status unmounted = unmount_fuse(directory, false);
    if (!unmounted) TRY_OK(unmount_fuse(directory, true));
  }
}

Result<int> mount_one(const Invocation& invocation, const std::string& target, const std::string& directory,
                      const MountOptions& options, bool foreground) {
  TRY(const auto parts, split_target(target, "main"));
  TRY_OK(check_mount_point(directory, options));
  TRY(const std::string path, canonical_mount_point(directory));
  TRY_OK(invocation.home_folder().check_volume(parts.first));
  Client client = invocation.client(parts.first);
  OpenRequest opening;
  opening.steal = options.steal;
  TRY_OK(client.start(opening, false, "opening"));
  TRY(const Json prepared,
      client.call(mount_request("mount.prepare", parts.second, path, options), "", false));
  static_cast<void>(prepared);
  if (foreground) hear_signals();
  {
    TRY(const int connection, mount_fuse(parts.first + "/" + parts.second, path, options));
    const Descriptor device(connection);
    const auto served =
        client.call(mount_request("mount.serve", parts.second, path, options), "", false, device.get());
    if (!served) {
      const Status unmounted = unmount_fuse(path, true);
      static_cast<void>(unmounted);  // the reason to tell is why it is not served
      return fail(served.error());
    }
  }
  widen_read_ahead(path);
  if (invocation.json) print_json({{"source", parts.first + "/" + parts.second}, {"directory", path}});
  return foreground ? stay(client, path) : Result<int>(0);
}

struct Remembered {
  std::string target;
  std::string options;
};

// What the daemons of this home mounted at `directory`, and did not see end.
Result<Remembered> remembered_at(const Home& home, const std::string& directory) {
  TRY(const std::vector<std::string> volumes, home.volumes());
  for (const std::string& volume : volumes) {
    const auto content = Home::read_file(home.volume(volume) + "/mounts.json", 1u << 20);
    if (!content) continue;
    const Json list = Json::parse(text_of(*content), nullptr, false);
    if (!list.is_array()) continue;
    for (const Json& one : list) {
      if (one.is_object() && one.value("directory", "") == directory)
        return Remembered{volume + "/" + one.value("file_system", "main"), one.value("options", "")};
    }
  }
  return fail(ErrorKind::not_found,
              format("nothing is known of a mount on {} in {}: mount it with 'cumulus mount'", directory,
                     home.path()));
}

Result<int> recover(const Invocation& invocation, const std::string& directory) {
  TRY(const std::string path, canonical_mount_point(directory));
  TRY(const Remembered remembered, remembered_at(invocation.home_folder(), path));
  TRY(auto there, mount_at(path));
  if (there && there->type == kMountType && !mount_is_dead(path))
    return fail(ErrorKind::exists, format("the mount on {} is alive: there is nothing to recover", path));
  while (mount_is_dead(path)) TRY_OK(unmount_fuse(path, true));
  TRY(const MountOptions options, MountOptions::parse(remembered.options));
  return mount_one(invocation, remembered.target, path, options, false);
}

Result<int> mount(const Invocation& invocation, MountArguments arguments) {
  end_mounts_of_killed(invocation.home_folder());
  if (arguments.recover) {
    if (arguments.directory.empty()) std::swap(arguments.directory, arguments.target);
    if (!arguments.target.empty())
      return fail(ErrorKind::invalid,
                  "--recover takes the mount point alone: it knows what was mounted there");
    return recover(invocation, arguments.directory);
  }
  if (arguments.directory.empty())
    return fail(ErrorKind::invalid, "give what to mount and where: cumulus mount VOLUME[/FS] DIR");
  TRY(const MountOptions options, options_of(arguments));
  return mount_one(invocation, arguments.target, arguments.directory, options, arguments.foreground);
}

Result<int> umount(const Invocation& invocation, const MountArguments& arguments) {
  end_mounts_of_killed(invocation.home_folder());
  TRY(const std::string path, canonical_mount_point(arguments.directory));
  TRY(const auto there, mount_at(path));
  if (!there || there->type != kMountType)
    return fail(ErrorKind::not_found, format("nothing of Cumulus is mounted on {}", path));
  const std::string volume = there->source.substr(0, there->source.find('/'));
  const Home home = invocation.home_folder();
  const bool ours = home.check_volume(volume) && DaemonSocket::connect(home.volume(volume)).has_value();
  if (!ours || mount_is_dead(path)) {
    // Of another home: that daemon notices by itself. A dead one: only the mount point is left to clean.
    TRY_OK(unmount_fuse(path, arguments.lazy || mount_is_dead(path)));
    return 0;
  }
  Client client = invocation.client(volume);
  const Json about = {{"request", "mount.flush"}, {"directory", path}, {"sync", arguments.sync}};
  auto flushed = client.call(about, "writing out", true);
  if (!flushed && flushed.error().kind() != ErrorKind::not_found) return fail(flushed.error());
  TRY_OK(unmount_fuse(path, arguments.lazy));
  if (arguments.lazy) return 0;
  TRY(const Json ended,
      client.call({{"request", "mount.wait"}, {"directory", path}, {"sync", arguments.sync}}, "writing out",
                  true));
  if (invocation.json) print_json(ended);
  return 0;
}

MountArguments arguments;

}  // namespace

void add_mount_commands(CLI::App& app, Invocation& invocation) {
  auto* on = app.add_subcommand("mount", "mount a file system of a volume")->fallthrough();
  on->add_option("VOLUME[/FS]", arguments.target, "the file system; VOLUME alone means VOLUME/main")
      ->required()
      ->type_name("");
  on->add_option("DIR", arguments.directory, "the mount point, an empty directory")->type_name("");
  on->add_option(
        "-o,--options", arguments.words,
        "ro, allow_other, allow_root, noatime, strictatime, sync, dirsync, nosuid, nodev, noexec, writeback, "
        "list_snapshots, nonempty, [no_]default_permissions, snapshot=, at=, outage_wait=")
      ->type_name("OPTS");
  on->add_flag("--foreground", arguments.foreground, "stay until it is unmounted; Ctrl-C unmounts");
  on->add_flag("--read-only", arguments.read_only, "the same as -o ro");
  on->add_option("--snapshot", arguments.snapshot, "a snapshot instead of the present, read-only")
      ->type_name("NAME");
  on->add_option("--at", arguments.at, "the newest snapshot not after this time (YYYY-MM-DD[THH:MM:SS][Z])")
      ->type_name("TIME");
  on->add_flag("--steal", arguments.steal, "take the volume over although another home did not close it");
  on->add_option("--outage-wait", arguments.outage_wait,
                 "how long reads wait when too few miners answer: 30s, forever")
      ->type_name("T");
  on->add_flag("--recover", arguments.recover, "clean up a mount whose daemon has died, and mount again");
  on->footer("Example: cumulus mount photos /mnt/photos");
  invocation.on(on, [&invocation] { return mount(invocation, arguments); });

  auto* off = app.add_subcommand("umount", "unmount; returns when everything is safe on this machine's disk")
                  ->fallthrough();
  off->add_option("DIR", arguments.directory, "the mount point")->required()->type_name("");
  off->add_flag("--sync", arguments.sync, "return when everything is on the miners");
  off->add_flag("--lazy", arguments.lazy, "detach now, end when nobody uses it any more");
  off->footer("Example: cumulus umount /mnt/photos --sync");
  invocation.on(off, [&invocation] { return umount(invocation, arguments); });
}

namespace {

// Takes "name=value" out of a list of mount options.
std::string taken(std::string& words, const std::string& name) {
  std::string rest;
  std::string value;
  for (std::size_t from = 0; from < words.size();) {
    const std::size_t to = std::min(words.find(',', from), words.size());
    const std::string word = words.substr(from, to - from);
    if (word.starts_with(name + "="))
      value = word.substr(name.size() + 1);
    else
      rest += (rest.empty() ? "" : ",") + word;
    from = to + 1;
  }
  words = rest;
  return value;
}

Result<int> helper_mount(Invocation& invocation, int argc, char** argv) {
  std::vector<std::string> places;
  std::string words;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "-o" && i + 1 < argc) {
      words += (words.empty() ? "" : ",") + std::string(argv[++i]);
    } else if (word == "-t" || word == "-N") {
      ++i;  // the type, which is ours; a namespace, in which mount(8) has put us
    } else if (!word.starts_with("-")) {
      places.push_back(word);
    }
  }
  if (places.size() != 2)
    return fail(ErrorKind::invalid, "give what to mount and where: mount -t cumulus VOLUME[/FS] DIR");
  const std::string home = taken(words, "home");
  if (!home.empty()) invocation.home = home;
  invocation.passphrase_file = taken(words, "passphrase_file");
  TRY(const MountOptions options, MountOptions::parse(words));
  return mount_one(invocation, places[0], places[1], options, false);
}

Result<int> helper_umount(Invocation& invocation, int argc, char** argv) {
  MountArguments given;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "-t" || word == "-N") {
      ++i;
    } else if (word.starts_with("-")) {
      given.lazy |= word.find('l') != std::string::npos;
    } else {
      given.directory = word;
    }
  }
  return umount(invocation, given);
}

}  // namespace

std::optional<int> run_as_mount_helper(Invocation& invocation, int argc, char** argv) {
  std::string name = argc > 0 ? argv[0] : "";
  name = name.substr(name.rfind('/') + 1);
  const bool mounting = name.starts_with("mount.");
  if (!mounting && !name.starts_with("umount.")) return std::nullopt;
  const auto code = mounting ? helper_mount(invocation, argc, argv) : helper_umount(invocation, argc, argv);
  return code ? *code : fail_with(code.error());
}

}  // namespace cumulus
