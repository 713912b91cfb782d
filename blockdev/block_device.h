// BlockDevice: one disk image at its head, or read-only at one of its snapshots, as a device: bytes at
// offsets, zeroes, holes, flush. Written against the object store's door only; knows no protocol.
//
// Byte-granular: a write of any length is one piece in the log, never a read-modify-write. A change is
// visible to every reader of the image when its commit returned; what survives which failure says
// SEMANTICS.md. Reactor thread. The device must outlive its calls, the volume the device.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/image_header.h"
#include "objectstore/object_store.h"

namespace cumulus {

// Every way in which a request can end, in a disk's terms; the door maps them one to one.
enum class BlockFault : std::uint8_t {
  beyond_end,   // the range is not all inside the disk; nothing was done
  read_only,    // the device was opened for reading, or the volume lost its right to write
  no_space,     // a quota or the log's disk is full; nothing was done
  bad_data,     // bytes are gone or do not verify, or the local disk failed
  unavailable,  // too few miners answered in time; the next try may succeed
  closed,       // the volume is being closed
};
template <class T>
using BlockResult = std::expected<T, BlockFault>;
using BlockStatus = std::expected<void, BlockFault>;

// Changes that are made together, in the order given: all or none. Filled by the device's users, committed
// once.
class BlockBatch {
 public:
  bool empty() const { return requests_ == 0; }
  std::size_t requests() const { return requests_; }
  std::uint64_t data_bytes() const { return data_bytes_; }

 private:
  friend class BlockDevice;
  Transaction transaction_;
  std::size_t requests_ = 0;
  std::uint64_t data_bytes_ = 0;
};

class BlockDevice {
 public:
  // `snapshot` empty: the head, writable unless `read_only`. Errors: not_found (image or snapshot), invalid
  // (not an image), corrupt, unsupported.
  static Task<Result<std::shared_ptr<BlockDevice>>> open(Volume& volume, std::string image,
                                                         std::string snapshot, bool read_only);

  DatasetId dataset() const { return dataset_; }
  bool read_only() const { return read_only_; }
  bool is_head() const { return is_head_; }
  std::uint64_t size() const { return size_; }
  const ImageHeader& header() const { return header_; }
  // Looks the size up again: it grows under an attached device when the image is resized.
  Task<Status> refresh();

  bool contains(std::uint64_t offset, std::uint64_t length) const {
    return offset <= size_ && length <= size_ - offset;
  }
  // Memory only: false when it must wait (then call read()). Fills `into` wholly; the range must be inside.
  bool try_read(std::uint64_t offset, MutableByteView into);
  Task<BlockStatus> read(std::uint64_t offset, MutableByteView into);

  // Adding to a batch checks the range and the right to write. `owner` keeps `data` unchanged until the
  // commit is written to the log.
  BlockStatus add_write(BlockBatch& batch, std::uint64_t offset, ByteView data,
                        std::shared_ptr<const void> owner);
  // Reads as zeros afterwards; a hole unless `allocated`.
  BlockStatus add_zero(BlockBatch& batch, std::uint64_t offset, std::uint64_t length, bool allocated);
  Task<BlockResult<Commit>> commit(BlockBatch batch);

  // Everything committed before the call, on whichever connection, is as durable as the volume's options say.
  Task<BlockStatus> flush();
  // The same for one commit.
  Task<BlockStatus> make_durable(Commit commit);
  // Less: it survives the end of this process, as it is written to the log.
  Task<BlockStatus> make_written(Commit commit);

  // Brings a range near, so that a read soon is local. Bounded work: at most kPrefetchMax bytes of it.
  Task<BlockStatus> prefetch(std::uint64_t offset, std::uint64_t length);
  static constexpr std::uint64_t kPrefetchMax = 64u << 20;

  // What stands where, merged, in order, from `offset` on without gaps. May cover less than asked, never
  // nothing: at most kExtentWindow bytes are looked at in one call.
  enum class Allocation : std::uint8_t { data, zero, hole };
  struct Extent {
    std::uint64_t length = 0;
    Allocation kind = Allocation::hole;
    bool operator==(const Extent&) const = default;
  };
  static constexpr std::uint64_t kExtentWindow = 256u << 20;
  Task<BlockResult<std::vector<Extent>>> extents(std::uint64_t offset, std::uint64_t length);
  // The same for "differs from the snapshot, or may": stretches of changed and unchanged.
  struct Changed {
    std::uint64_t length = 0;
    bool changed = false;
    bool operator==(const Changed&) const = default;
  };
  Task<BlockResult<std::vector<Changed>>> changed_since(std::string snapshot, std::uint64_t offset,
                                                        std::uint64_t length);
  std::vector<std::string> snapshots() const;

 private:
  BlockDevice(Volume& volume, DatasetId dataset, View view, bool read_only, bool is_head);
  BlockFault note(const Error& error, const char* what) const;

  Volume& volume_;
  DatasetId dataset_;
  View view_;
  bool read_only_;
  bool is_head_;
  std::uint64_t size_ = 0;
  ImageHeader header_;
};

}  // namespace cumulus
