// What both real file systems share: names, spaces and descriptors through plain system calls. Internal to
// this room.
#pragma once

#include <cerrno>
#include <fcntl.h>
#include <string>
#include <unistd.h>
#include <utility>

#include "objectstore/base/result.h"
#include "objectstore/io/file.h"
#include "objectstore/io/runtime.h"

namespace cumulus {

// Owns a file descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

// Opens with O_CLOEXEC; direct falls back to buffered where the file system refuses O_DIRECT.
Result<Descriptor> open_descriptor(const std::string& path, const OpenOptions& options);

// After a short read up to `offset`: true when the file ends there, so that nobody reads on at an offset that
// direct I/O refuses.
bool ends_at(int fd, std::uint64_t offset);
// The whole of pread / pwrite / fdatasync, with EINTR and short transfers continued. Blocking.
Result<std::size_t> read_fully(int fd, std::uint64_t offset, MutableByteView into, const std::string& path);
Status write_fully(int fd, std::uint64_t offset, ByteView data, const std::string& path);
Status sync_data(int fd, const std::string& path);

// The operations on names, common to both.
class PosixNames : public FileSystem {
 public:
  explicit PosixNames(Runtime& runtime) : runtime_(runtime) {}

  Status create_directories(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status remove(const std::string& path) override;
  Result<bool> exists(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& directory) override;
  Task<Status> sync_directory(const std::string& path) override;
  Result<DiskSpace> space(const std::string& path) override;
  std::uint64_t open_files_max() override;
  std::uint32_t direct_alignment(const std::string& directory) override;

 protected:
  Runtime& runtime_;
};

// What a File does on workers: everything but reads, writes and syncs is rare.
class PosixFile : public File {
 public:
  PosixFile(Runtime& runtime, Descriptor descriptor, std::string path)
      : runtime_(runtime), descriptor_(std::move(descriptor)), path_(std::move(path)) {}

  Task<Result<std::size_t>> read_at(std::uint64_t offset, MutableByteView into) override;
  Task<Result<std::size_t>> read_warm(std::uint64_t offset, MutableByteView into) override;
  bool try_read_warm(std::uint64_t offset, MutableByteView into) override;
  Task<Status> write_at(std::uint64_t offset, ByteView data) override;
  Task<Status> datasync() override;
  Status datasync_blocking() override { return sync_data(fd(), path_); }
  Task<Status> allocate(std::uint64_t length) override;
  Task<Status> truncate(std::uint64_t length) override;
  Task<Status> punch_hole(std::uint64_t offset, std::uint64_t length) override;
  Result<std::uint64_t> size() override;

 protected:
  int fd() const { return descriptor_.get(); }
  // A descriptor that reads through the page cache; the file's own when no other is to be had.
  int warm_fd();
  Runtime& runtime_;
  Descriptor descriptor_;
  Descriptor warm_;  // opened when first asked for
  bool warm_tried_ = false;
  std::string path_;
};

}  // namespace cumulus
