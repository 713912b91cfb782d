#include "fs/fuse/mount_point.h"

#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "objectstore/base/format.h"

namespace cumulus {
namespace {

constexpr const char* kDevice = "/dev/fuse";
constexpr const char* kMounter = "fusermount3";

// mountinfo writes blanks and backslashes as \ooo.
std::string unescaped(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      plain.push_back(
          static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0')));
      i += 3;
    } else {
      plain.push_back(text[i]);
    }
  }
  return plain;
}

std::vector<std::string> words_of(const std::string& line) {
  std::vector<std::string> words;
  for (std::size_t from = 0; from < line.size();) {
    const std::size_t to = std::min(line.find(' ', from), line.size());
    words.push_back(line.substr(from, to - from));
    from = to + 1;
  }
  return words;
}

// proc(5): 36 35 98:0 /root /mnt rw,noatime [tags ...] - type source options
std::optional<MountEntry> entry_of(const std::string& line) {
  const auto words = words_of(line);
  std::size_t dash = 6;
  while (dash < words.size() && words[dash] != "-") ++dash;
  if (dash + 3 >= words.size()) return std::nullopt;
  return MountEntry{unescaped(words[4]), unescaped(words[dash + 2]), words[dash + 1],
                    words[5] + "," + words[dash + 3], words[2]};
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  void reset() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

std::string kernel_options(int device, const MountOptions& options) {
  std::string text = format("fd={},rootmode=40000,user_id={},group_id={}", device, ::getuid(), ::getgid());
  if (options.default_permissions) text += ",default_permissions";
  if (options.allow_other || options.allow_root) text += ",allow_other";
  return text;
}

std::string mounter_options(const std::string& source, const MountOptions& options) {
  std::string text = options.read_only ? "ro" : "rw";
  if (options.default_permissions) text += ",default_permissions";
  if (options.allow_other || options.allow_root) text += ",allow_other";
  if (!options.execute) text += ",noexec";
  if (options.synchronous) text += ",sync";
  if (options.synchronous_directories) text += ",dirsync";
  if (options.access_times == AccessTimes::never) text += ",noatime";
  return text + ",subtype=cumulus,fsname=" + source;
}

// What exec wants: a null behind the last.
std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> list;
  list.reserve(texts.size() + 1);
  for (std::string& text : texts) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

// This process's variables and one more, unless its value is negative.
std::vector<std::string> environment_with(const std::string& name, int value) {
  std::vector<std::string> list;
  for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable)
    if (!std::string_view(*variable).starts_with(name + "=")) list.emplace_back(*variable);
  if (value >= 0) list.push_back(format("{}={}", name, value));
  return list;
}

// Runs fusermount3 with `words`; its standard error becomes the message. `channel`: the socket on which it
// hands over the descriptor, or -1.
Status run_mounter(std::vector<std::string> words, int channel, const std::string& doing) {
  int errors[2];
  if (::pipe2(errors, O_CLOEXEC) != 0) return fail(from_errno(errno, doing));
  Descriptor reading(errors[0]);
  Descriptor writing(errors[1]);
  std::vector<char*> arguments = pointers(words);
  // Made before the fork: between fork and exec a child of many threads may not take the environment's lock.
  std::vector<std::string> variables = environment_with("_FUSE_COMMFD", channel);
  std::vector<char*> environment = pointers(variables);
  const pid_t child = ::fork();
  if (child < 0) return fail(from_errno(errno, doing));
  if (child == 0) {
    ::dup2(writing.get(), STDERR_FILENO);
    if (channel >= 0) ::fcntl(channel, F_SETFD, 0);
    ::execvpe(kMounter, arguments.data(), environment.data());
    ::_exit(127);
  }
  writing.reset();
  std::string said;
  std::array<char, 512> piece;
  for (ssize_t got = 0; (got = ::read(reading.get(), piece.data(), piece.size())) > 0;)
    said.append(piece.data(), static_cast<std::size_t>(got));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    return fail(
        ErrorKind::denied,
        format(
            "{}: fusermount3 is needed for users other than root and is not here: install the package fuse3",
            doing));
  while (!said.empty() && said.back() == '\n') said.pop_back();
  const bool busy = said.find("busy") != std::string::npos;
  return fail(busy ? ErrorKind::exists : ErrorKind::denied, format("{}: {}", doing, said));
}

Result<int> receive_descriptor(int channel, const std::string& doing) {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = 0;
  while ((got = ::recvmsg(channel, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {
  }
  const cmsghdr* header = got < 0 ? nullptr : CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS)
    return fail(ErrorKind::io, doing + ": fusermount3 mounted but handed over no connection");
  int device = -1;
  std::memcpy(&device, CMSG_DATA(header), sizeof device);
  return device;
}

Result<int> mount_by_mounter(const std::string& source, const std::string& directory,
                             const MountOptions& options) {
  const std::string doing = "mount on " + directory;
  int sockets[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
    return fail(from_errno(errno, doing));
  const Descriptor ours(sockets[0]);
  Descriptor theirs(sockets[1]);
  TRY_OK(
      run_mounter({kMounter, "-o", mounter_options(source, options), "--", directory}, theirs.get(), doing));
  theirs.reset();
  return receive_descriptor(ours.get(), doing);
}

Status check_empty(const std::string& directory) {
  std::error_code error;
  const std::filesystem::directory_iterator entry(directory, error);
  if (error) return fail(from_errno(error.value(), "open the mount point " + directory));
  if (entry == std::filesystem::directory_iterator()) return {};
  return fail(
      ErrorKind::invalid,
      format("the mount point {} is not empty: it has '{}'; choose an empty directory, or give -o nonempty",
             directory, entry->path().filename().string()));
}

// What the kernel says of a mount whose daemon is gone; the second to calls that were waiting for it just
// then.
bool is_dead(int error) { return error == ENOTCONN || error == ECONNABORTED; }

}  // namespace

Result<std::string> canonical_mount_point(const std::string& directory) {
  if (directory.empty()) return fail(ErrorKind::invalid, "the mount point's name is empty");
  const std::unique_ptr<char, void (*)(void*)> whole(::realpath(directory.c_str(), nullptr), std::free);
  if (whole) return std::string(whole.get());
  if (!is_dead(errno)) return fail(from_errno(errno, "mount point " + directory));
  std::string path = directory;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const auto slash = path.rfind('/');
  const std::string parent =
      slash == std::string::npos ? "." : path.substr(0, std::max<std::size_t>(slash, 1));
  const std::unique_ptr<char, void (*)(void*)> above(::realpath(parent.c_str(), nullptr), std::free);
  if (!above) return fail(from_errno(errno, "mount point " + directory));
  const std::string base = above.get();
  return (base == "/" ? "" : base) + "/" + path.substr(slash == std::string::npos ? 0 : slash + 1);
}

Result<std::optional<MountEntry>> mount_at(const std::string& directory) {
  std::ifstream table("/proc/self/mountinfo");
  if (!table) return fail(from_errno(errno, "read /proc/self/mountinfo"));
  std::optional<MountEntry> found;
  for (std::string line; std::getline(table, line);) {
    auto entry = entry_of(line);
    if (entry && entry->directory == directory) found = std::move(entry);  // a later one lies on top
  }
  return found;
}

bool mount_is_dead(const std::string& directory) {
  struct statfs ignored;  // attributes may still be in the kernel's cache; this is always asked
  return ::statfs(directory.c_str(), &ignored) != 0 && is_dead(errno);
}

void abort_mount(const std::string& directory) {
  const auto there = mount_at(directory);
  if (!there || !*there || (*there)->type != kMountType) return;
  const std::string& device = (*there)->device;
  std::ofstream control("/sys/fs/fuse/connections/" + device.substr(device.find(':') + 1) + "/abort");
  if (control << "1" << std::flush) return;
  static_cast<void>(::umount2(directory.c_str(), UMOUNT_NOFOLLOW | MNT_FORCE));
}

Status check_mount_point(const std::string& directory, const MountOptions& options) {
  if (mount_is_dead(directory))
    return fail(
        ErrorKind::exists,
        format(
            "on {0} is a mount whose daemon has died: 'cumulus mount --recover {0}' cleans it up and mounts "
            "again",
            directory));
  struct stat about;
  if (::stat(directory.c_str(), &about) != 0) return fail(from_errno(errno, "mount point " + directory));
  if (!S_ISDIR(about.st_mode))
    return fail(ErrorKind::invalid, format("the mount point {} is not a directory", directory));
  TRY(const std::string path, canonical_mount_point(directory));
  TRY(const auto there, mount_at(path));
  if (there && there->type == kMountType)
    return fail(ErrorKind::exists, format("{} is mounted on {} already", there->source, path));
  if (!options.nonempty) TRY_OK(check_empty(path));
  return {};
}

Result<int> mount_fuse(const std::string& source, const std::string& directory, const MountOptions& options) {
  const std::string doing = "mount on " + directory;
  if (::geteuid() != 0) return mount_by_mounter(source, directory, options);
  Descriptor device(::open(kDevice, O_RDWR | O_CLOEXEC));
  if (device.get() < 0) {
    const int error = errno;
    return fail(
        error == ENOENT || error == ENODEV ? ErrorKind::unsupported : ErrorKind::denied,
        from_errno(error, format("{}: open {}", doing, kDevice)).message() +
            ": the kernel's FUSE module is needed ('modprobe fuse'; a container needs --device /dev/fuse)");
  }
  const std::string data = kernel_options(device.get(), options);
  if (::mount(source.c_str(), directory.c_str(), kMountType, options.mount_flags(), data.c_str()) != 0) {
    if (errno == EPERM) return mount_by_mounter(source, directory, options);
    return fail(from_errno(errno, doing));
  }
  return device.release();
}

Status unmount_fuse(const std::string& directory, bool lazily) {
  const std::string doing = "unmount " + directory;
  if (::geteuid() != 0) {
    std::vector<std::string> words{kMounter, "-u"};
    if (lazily) words.emplace_back("-z");
    words.emplace_back("--");
    words.push_back(directory);
    return run_mounter(std::move(words), -1, doing);
  }
  if (::umount2(directory.c_str(), UMOUNT_NOFOLLOW | (lazily ? MNT_DETACH : 0)) == 0) return {};
  if (errno == EBUSY)
    return fail(ErrorKind::exists,
                format("{}: it is in use: 'fuser -vm {}' tells by whom; 'umount -l' detaches it all the same",
                       doing, directory));
  if (errno == EINVAL) return fail(ErrorKind::not_found, doing + ": nothing is mounted there");
  return fail(from_errno(errno, doing));
}

}  // namespace cumulus
