#include "tools/cumulus/object_files.h"

#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "objectstore/base/format.h"
#include "tools/names.h"

namespace cumulus {
namespace {

// An object that is replaced while it is fetched is fetched again so often.
constexpr int kReplacedMax = 10;

class OpenFile {
 public:
  explicit OpenFile(int fd) : fd_(fd) {}
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  ~OpenFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// What a signal's handler may look at: the temporary file of the moment.
std::array<char, PATH_MAX> part_path;
volatile std::sig_atomic_t part_is_there = 0;

void remove_part(int signal) {
  if (part_is_there != 0) ::unlink(part_path.data());
  ::raise(signal);  // to its default, once this handler is left
}

// A temporary file that goes with this object, and with the signals that end a program.
class PartFile {
 public:
  explicit PartFile(const std::string& path) {
    // A name as long as names may be leaves no room for more.
    const std::filesystem::path whole(path);
    const std::string name = whole.filename().string().substr(0, 200);
    path_ = (whole.parent_path() / format("{}.part-{}", name, ::getpid())).string();
    if (path_.size() >= part_path.size()) return;  // and no such file can be opened
    *std::copy(path_.begin(), path_.end(), part_path.begin()) = '\0';
    struct sigaction action{};
    action.sa_handler = remove_part;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
      struct sigaction before{};
      ::sigaction(signal, nullptr, &before);
      if (before.sa_handler == SIG_DFL) ::sigaction(signal, &action, nullptr);
    }
    part_is_there = 1;
  }
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;
  ~PartFile() {
    if (!kept_) ::unlink(path_.c_str());
    part_is_there = 0;
  }

  const std::string& path() const { return path_; }
  Status becomes(const std::string& path) {
    if (::rename(path_.c_str(), path.c_str()) != 0) return fail(from_errno(errno, "write " + path));
    kept_ = true;
    return {};
  }

 private:
  std::string path_;
  bool kept_ = false;
};

// A descriptor that the daemon may read or write without ever waiting for somebody: /dev/null, or a regular
// file on a disk of this machine. One of the volume's own mount, or on a disk that the daemon serves, would
// wait for the daemon that waits for it; one of a network's file system for a server that may be gone.
bool passable(int fd) {
  constexpr unsigned kNbdMajor = 43;
  struct stat info{};
  struct statfs where{};
  if (::fstat(fd, &info) != 0 || ::fstatfs(fd, &where) != 0) return false;
  if (S_ISCHR(info.st_mode)) return info.st_rdev == makedev(1, 3);
  if (!S_ISREG(info.st_mode) || major(info.st_dev) == kNbdMajor) return false;
  switch (where.f_type) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
      return true;
    default:
      return false;
  }
}

Status write_all(int fd, ByteView bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return fail(from_errno(errno, "write " + path));
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  return {};
}

Result<Json> get_into(Client& client, Json request, const std::string& object, int fd,
                      const std::string& path) {
  request["file"] = printable(path);
  if (passable(fd)) return client.call(request, object, true, fd);
  const Client::DataOut out = [fd, &path](ByteView bytes) { return write_all(fd, bytes, path); };
  return client.call(request, object, true, -1, {}, out);
}

// Why nothing is stored of it; nullptr for a file that is, and for a folder with something in it.
Result<const char*> why_left_out(const std::filesystem::directory_entry& entry) {
  namespace fs = std::filesystem;
  std::error_code error;
  const bool link = entry.is_symlink(error);
  const fs::file_type type = entry.status(error).type();
  switch (type) {
    case fs::file_type::regular:
      return nullptr;
    case fs::file_type::directory:
      if (link) return "symbolic links to folders";
      return fs::is_empty(entry.path(), error) && !error ? "empty folders" : nullptr;
    case fs::file_type::fifo:
      return "pipes";
    case fs::file_type::socket:
      return "sockets";
    case fs::file_type::block:
    case fs::file_type::character:
      return "devices";
    default:
      // It may well have bytes to store.
      if (type != fs::file_type::not_found && error != std::errc::too_many_symbolic_link_levels)
        return fail(from_errno(error ? error.value() : EIO, "look at " + entry.path().string()));
      return link ? "symbolic links to nothing" : "files that vanished meanwhile";
  }
}

}  // namespace

Json bucket_request(const std::string& name, const std::string& bucket) {
  const auto at = bucket.find('@');
  Json request = {{"request", name}, {"bucket", bucket.substr(0, at)}};
  if (at != std::string::npos) request["snapshot"] = bucket.substr(at + 1);
  return request;
}

Result<Json> put_file(Client& client, const std::string& bucket, const std::string& object,
                      const std::string& path, bool sync) {
  Json request = bucket_request("object.put", bucket);
  request["object"] = object;
  request["sync"] = sync;
  request["file"] = printable(path);
  const OpenFile file(path == "-" ? ::dup(STDIN_FILENO) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return fail(from_errno(errno, "open " + path));
  struct stat info{};
  if (::fstat(file.get(), &info) == 0 && S_ISDIR(info.st_mode))
    return fail(ErrorKind::invalid, format("{} is a folder: give -r", path));
  if (passable(file.get()) && path != "-") return client.call(request, object, true, file.get());
  const Client::DataIn data = [&file, &path]() -> Result<Bytes> {
    Bytes piece(kDataFrameMax);
    std::size_t size = 0;
    while (size < piece.size()) {
      const ssize_t got = ::read(file.get(), piece.data() + size, piece.size() - size);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail(from_errno(errno, "read " + (path == "-" ? "standard input" : path)));
      if (got == 0) break;
      size += static_cast<std::size_t>(got);
    }
    piece.resize(size);
    return piece;
  };
  return client.call(request, object, true, -1, data);
}

Result<Json> get_to_stdout(Client& client, const std::string& bucket, const std::string& object) {
  Json request = bucket_request("object.get", bucket);
  request["object"] = object;
  const Client::DataOut out = [](ByteView bytes) {
    return write_all(STDOUT_FILENO, bytes, "standard output");
  };
  return client.call(request, "", true, -1, {}, out);
}

Result<Json> get_file(Client& client, const std::string& bucket, const std::string& object,
                      const std::string& path) {
  Json request = bucket_request("object.get", bucket);
  request["object"] = object;
  struct stat info{};
  const bool special = ::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode);
  if (special && S_ISDIR(info.st_mode)) return fail(ErrorKind::invalid, format("{} is a folder", path));
  if (special) {
    const OpenFile file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (file.get() < 0) return fail(from_errno(errno, "write " + path));
    return get_into(client, std::move(request), object, file.get(), path);
  }
  const bool there = ::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
  PartFile part(path);
  const OpenFile file(::open(part.path().c_str(), O_WRONLY | O_CLOEXEC | O_CREAT | O_TRUNC,
                             there ? info.st_mode & 0600 : 0666));
  if (file.get() < 0) return fail(from_errno(errno, "write " + path));
  // Who may read the file that is replaced may read the new one, and nobody else.
  if (there && (::fchown(file.get(), info.st_uid, info.st_gid) == 0 ||
                (info.st_uid == ::geteuid() && info.st_gid == ::getegid())))
    static_cast<void>(::fchmod(file.get(), info.st_mode & 0777));
  Result<Json> result = get_into(client, request, object, file.get(), path);
  for (int again = 0; !result && result.error().kind() == ErrorKind::exists && again < kReplacedMax;
       ++again) {
    if (::ftruncate(file.get(), 0) != 0 || ::lseek(file.get(), 0, SEEK_SET) != 0)
      return fail(from_errno(errno, "write " + path));
    result = get_into(client, request, object, file.get(), path);
  }
  TRY_OK(result);
  TRY_OK(part.becomes(path));
  return result;
}

FolderFiles::FolderFiles(std::filesystem::path top, std::string prefix)
    : top_(std::move(top)), prefix_(std::move(prefix)) {}

Status FolderFiles::for_each(const Visit& visit) {
  namespace fs = std::filesystem;
  left_out_.clear();
  std::error_code error;
  if (!fs::is_directory(top_, error)) {
    if (error && error != std::errc::no_such_file_or_directory)
      return fail(from_errno(error.value(), "read " + top_.string()));
    return fail(ErrorKind::invalid, format("{} is not a folder", top_.string()));
  }
  std::string last = top_.string();
  for (fs::recursive_directory_iterator entry(top_, error), end; !error && entry != end;
       entry.increment(error)) {
    last = entry->path().string();
    TRY(const char* const why, why_left_out(*entry));
    if (why != nullptr) {
      ++left_out_[why];
      continue;
    }
    std::error_code looked;
    if (!entry->is_regular_file(looked)) continue;
    const std::string below = entry->path().lexically_relative(top_).string();
    TRY_OK(visit(prefix_.empty() || prefix_ == "." ? below : prefix_ + "/" + below, last));
  }
  if (error) return fail(from_errno(error.value(), "read " + last));
  return {};
}

std::string FolderFiles::left_out() const {
  std::string text;
  for (const auto& [what, count] : left_out_)
    text += format("{}{} {}", text.empty() ? "" : ", ", count, what);
  return text;
}

}  // namespace cumulus
