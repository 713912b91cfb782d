// Images: making disks in a volume. Reactor thread.
#pragma once

#include <optional>
#include <string>

#include "blockdev/image_header.h"
#include "objectstore/object_store.h"

namespace cumulus {

// A thin disk of `size` bytes. Errors: exists, invalid (name, size), and the volume's own. A making that
// fails half-way is undone; one that is interrupted by the end of the program leaves an image that says so
// when it is opened, and can be removed.
Task<Result<DatasetId>> create_image(Volume& volume, std::string name, std::uint64_t size, WallTime now);

// Its dataset. not_found: there is no such image (a bucket or a file system of that name is none).
Result<DatasetId> find_image(const Volume& volume, const std::string& name);
// The same, by its number. not_found: it was removed, as it may be whenever something was waited for. Valid
// until the next wait.
Result<const DatasetInfo*> image_info(const Volume& volume, DatasetId image);
// What a long piece of work has noted at the image's head under this name; nullopt: nothing.
Task<Result<std::optional<Bytes>>> noted_mark(Volume& volume, DatasetId image, std::string name);
// The disk's size in bytes. This and all below: not_found when the image was removed.
Task<Result<std::uint64_t>> image_size(Volume& volume, DatasetId image);

// Grows or shrinks a disk; what is cut off is gone. invalid: it would shrink without `shrink`, or the size is
// none. Who shrinks sees to it that nobody has it attached.
Task<Status> resize_image(Volume& volume, DatasetId image, std::uint64_t size, bool shrink);

// How far an import has come: an attribute of the image while it is not finished, so that it is resumed where
// it stands. `source` tells the imported file from others (its size, its time).
struct ImportMark {
  std::uint64_t position = 0;  // bytes before it are in the image and durable
  std::uint64_t source_size = 0;
  std::int64_t source_modified_ns = 0;
  bool operator==(const ImportMark&) const = default;

  Bytes encode() const;
  static Result<ImportMark> decode(ByteView bytes);
};
Task<Result<std::optional<ImportMark>>> import_mark(Volume& volume, DatasetId image);
// unavailable: the image's import, or that of a difference into it, was interrupted or is under way: what it
// holds is no disk yet.
Task<Status> check_import_done(Volume& volume, DatasetId image);
// nullopt: the import is finished.
Task<Status> set_import_mark(Volume& volume, DatasetId image, std::optional<ImportMark> mark);

}  // namespace cumulus
