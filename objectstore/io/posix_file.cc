#include "objectstore/io/posix_file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "objectstore/io/page_cache_reader.h"
#include "objectstore/io/uring_file_system.h"

namespace cumulus {

Result<Descriptor> open_descriptor(const std::string& path, const OpenOptions& options) {
  int flags = O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | (options.write ? O_RDWR : O_RDONLY);
  if (options.create) flags |= O_CREAT;
  if (options.create && options.exclusive) flags |= O_EXCL;
  int fd = -1;
  for (const int direct : {options.direct ? O_DIRECT : 0, 0}) {
    do {
      fd = ::open(path.c_str(), flags | direct, 0600);
    } while (fd < 0 && errno == EINTR);
    if (fd >= 0 || errno != EINVAL || direct == 0) break;  // EINVAL: no direct I/O on this file system
  }
  if (fd < 0) return fail(from_errno(errno, "open " + path));
  Descriptor descriptor(fd);
  struct stat info;
  if (::fstat(fd, &info) != 0) return fail(from_errno(errno, "open " + path));
  if (!S_ISREG(info.st_mode)) return fail(ErrorKind::io, "open " + path + ": not a regular file");
  return descriptor;
}

bool ends_at(int fd, std::uint64_t offset) {
  struct stat info;
  return offset % 512 != 0 && ::fstat(fd, &info) == 0 && offset >= static_cast<std::uint64_t>(info.st_size);
}

Result<std::size_t> read_fully(int fd, std::uint64_t offset, MutableByteView into, const std::string& path) {
  std::size_t done = 0;
  while (done < into.size()) {
    const ssize_t got =
        ::pread(fd, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(from_errno(errno, "read " + path));
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
    if (done < into.size() && ends_at(fd, offset + done)) break;
  }
  return done;
}

Status write_fully(int fd, std::uint64_t offset, ByteView data, const std::string& path) {
  while (!data.empty()) {
    const ssize_t put = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return fail(from_errno(put == 0 ? EIO : errno, "write " + path));
    offset += static_cast<std::uint64_t>(put);
    data = data.subspan(static_cast<std::size_t>(put));
  }
  return {};
}

Status sync_data(int fd, const std::string& path) {
  // Never repeated after a failure: the kernel may have dropped the pages and would then say all is well.
  if (::fdatasync(fd) != 0) return fail(from_errno(errno, "fdatasync " + path));
  return {};
}

Status PosixNames::create_directories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return fail(from_errno(error.value(), "make directory " + path));
  return {};
}

Status PosixNames::rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return fail(from_errno(errno, "rename " + from + " to " + to));
  return {};
}

Status PosixNames::remove(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && (errno != EISDIR || ::rmdir(path.c_str()) != 0))
    return fail(from_errno(errno, "remove " + path));
  return {};
}

Result<bool> PosixNames::exists(const std::string& path) {
  struct stat info;
  if (::lstat(path.c_str(), &info) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  return fail(from_errno(errno, "look up " + path));
}

Result<std::vector<std::string>> PosixNames::list(const std::string& directory) {
  std::error_code error;
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error))
    names.push_back(entry->path().filename().string());
  if (error) return fail(from_errno(error.value(), "list " + directory));
  std::ranges::sort(names);
  return names;
}

Task<Status> PosixNames::sync_directory(const std::string& path) {
  co_return co_await runtime_.offload([&path]() -> Status {
    const Descriptor directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.get() < 0) return fail(from_errno(errno, "open directory " + path));
    if (::fsync(directory.get()) != 0) return fail(from_errno(errno, "fsync directory " + path));
    return {};
  });
}

Result<DiskSpace> PosixNames::space(const std::string& path) {
  struct statvfs info;
  if (::statvfs(path.c_str(), &info) != 0)
    return fail(from_errno(errno, "look up the free space of " + path));
  return DiskSpace{std::uint64_t{info.f_blocks} * info.f_frsize,
                   std::uint64_t{info.f_bavail} * info.f_frsize};
}

std::uint64_t PosixNames::open_files_max() {
  rlimit files{};
  const bool known = ::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur != RLIM_INFINITY;
  return known ? files.rlim_cur : ~std::uint64_t{0};
}

std::uint32_t PosixNames::direct_alignment(const std::string& directory) {
  // Asked of a real file: the answer belongs to the disk under it. 4096 suits every disk when nobody answers.
  constexpr std::uint32_t kSafe = 4096;
  const std::string probe = directory + "/.direct-probe." + std::to_string(::getpid());
  const auto file =
      open_descriptor(probe, {.write = true, .create = true, .exclusive = true, .direct = true});
  if (!file) return kSafe;
  ::unlink(probe.c_str());
#ifdef STATX_DIOALIGN
  struct statx info;
  if (::statx(file->get(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 &&
      (info.stx_mask & STATX_DIOALIGN) != 0 && info.stx_dio_offset_align != 0)
    return std::clamp(std::max(info.stx_dio_offset_align, info.stx_dio_mem_align), 512u, kSafe);
#endif
  Buffer block(kSafe);
  std::memset(block.data(), 0, block.size());
  return ::pwrite(file->get(), block.data(), 512, 512) == 512 ? 512 : kSafe;
}

Task<Result<std::size_t>> PosixFile::read_at(std::uint64_t offset, MutableByteView into) {
  co_return co_await runtime_.offload([this, offset, into] { return read_fully(fd(), offset, into, path_); });
}

int PosixFile::warm_fd() {
  if (!warm_tried_) {
    warm_tried_ = true;
    const int flags = ::fcntl(fd(), F_GETFL);
    if (flags >= 0 && (flags & O_DIRECT) != 0) {
      // By the open file, not by its name: that may be another file's by now.
      const std::string self = "/proc/self/fd/" + std::to_string(fd());
      warm_ = Descriptor(::open(self.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
      // A cell is asked for, not what lies behind it: read-ahead is the reader's, who knows the object.
      if (warm_.get() >= 0) ::posix_fadvise(warm_.get(), 0, 0, POSIX_FADV_RANDOM);
    }
  }
  return warm_.get() >= 0 ? warm_.get() : fd();
}

Task<Result<std::size_t>> PosixFile::read_warm(std::uint64_t offset, MutableByteView into) {
  const int from = warm_fd();
  co_return co_await runtime_.offload(
      [this, from, offset, into] { return read_fully(from, offset, into, path_); });
}

bool PosixFile::try_read_warm(std::uint64_t offset, MutableByteView into) {
  const int from = warm_fd();
  if (from == fd() && (::fcntl(from, F_GETFL) & O_DIRECT) != 0) return false;
  return read_cached(from, offset, into);
}

Task<Status> PosixFile::write_at(std::uint64_t offset, ByteView data) {
  co_return co_await runtime_.offload(
      [this, offset, data] { return write_fully(fd(), offset, data, path_); });
}

Task<Status> PosixFile::datasync() {
  co_return co_await runtime_.offload([this] { return sync_data(fd(), path_); });
}

Task<Status> PosixFile::allocate(std::uint64_t length) {
  co_return co_await runtime_.offload([this, length]() -> Status {
    int error = 0;
    do {
      error = ::posix_fallocate(fd(), 0, static_cast<off_t>(length));
    } while (error == EINTR);
    if (error != 0) return fail(from_errno(error, "reserve space for " + path_));
    return {};
  });
}

Task<Status> PosixFile::truncate(std::uint64_t length) {
  co_return co_await runtime_.offload([this, length]() -> Status {
    int result = 0;
    do {
      result = ::ftruncate(fd(), static_cast<off_t>(length));
    } while (result != 0 && errno == EINTR);
    if (result != 0) return fail(from_errno(errno, "truncate " + path_));
    return {};
  });
}

Task<Status> PosixFile::punch_hole(std::uint64_t offset, std::uint64_t length) {
  co_return co_await runtime_.offload([this, offset, length]() -> Status {
    int result = 0;
    do {
      result = ::fallocate(fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                           static_cast<off_t>(length));
    } while (result != 0 && errno == EINTR);
    if (result != 0) return fail(from_errno(errno, "give back space of " + path_));
    return {};
  });
}

Result<std::uint64_t> PosixFile::size() {
  struct stat info;
  if (::fstat(fd(), &info) != 0) return fail(from_errno(errno, "look up the size of " + path_));
  return static_cast<std::uint64_t>(info.st_size);
}

namespace {

class WorkerFileSystem final : public PosixNames {
 public:
  using PosixNames::PosixNames;
  Result<std::unique_ptr<File>> open(const std::string& path, OpenOptions options) override {
    TRY(Descriptor descriptor, open_descriptor(path, options));
    return std::make_unique<PosixFile>(runtime_, std::move(descriptor), path);
  }
};

}  // namespace

std::unique_ptr<FileSystem> make_worker_file_system(Reactor& reactor) {
  return std::make_unique<WorkerFileSystem>(reactor);
}

}  // namespace cumulus
