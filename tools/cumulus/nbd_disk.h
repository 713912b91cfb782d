// NbdDisk: the image commands' end of a disk served over NBD, ours or a private qemu-nbd's. The only include
// of libnbd. Blocking; the command's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"

namespace cumulus {

class NbdDisk {
 public:
  // At the other end of `socket`, which is the disk's own from now on.
  static Result<NbdDisk> over(int socket, const std::string& export_name);
  // `command` serves one disk on the socket that systemd's protocol hands it (qemu-nbd does); it ends with
  // the disk.
  static Result<NbdDisk> served_by(std::vector<std::string> command);

  NbdDisk(NbdDisk&&) noexcept;
  ~NbdDisk();

  Result<std::uint64_t> size();
  struct Stretch {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    bool data = true;  // else it reads as zeros
  };
  // What stands in [offset, offset + length), in order, without gaps.
  Result<std::vector<Stretch>> stretches(std::uint64_t offset, std::uint64_t length);
  Status read(std::uint64_t offset, MutableByteView into);
  Status write(std::uint64_t offset, ByteView from);
  Status flush();

 private:
  struct Handle;
  explicit NbdDisk(std::unique_ptr<Handle> handle);
  std::unique_ptr<Handle> handle_;
};

}  // namespace cumulus
