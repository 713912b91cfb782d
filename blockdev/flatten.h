// Flatten: makes a clone stand on its own, so that its parents can be removed. No byte of the disk is copied:
// the clone gets rows of its own that name the very places its parents' rows name. Reactor thread; the volume
// outlives the calls.
#pragma once

#include "objectstore/object_store.h"

namespace cumulus {

// Works in small steps beside whoever uses the disk, attached or not; each step is one transaction that notes
// how far it came, so an interrupted one goes on there. A snapshot of the image that was taken before the end
// still stands on the parents. An image without parents is done at once. Errors: not_found (removed
// meanwhile), closed (`progress` said stop), and the volume's own. Progress in bytes of the disk.
Task<Status> flatten_image(Volume& volume, DatasetId image, Progress progress);

// NAME@SNAPSHOT that the image's head stands on now; empty when it stands on its own.
std::string image_parent(const Volume& volume, DatasetId image);

// How far a flattening has come: an attribute of the image. Good for this very dataset only, since a clone
// shows its parent's attributes too.
struct FlattenMark {
  DatasetId dataset = 0;
  std::uint64_t position = 0;  // bytes before it stand on their own
  bool operator==(const FlattenMark&) const = default;

  Bytes encode() const;
  static Result<FlattenMark> decode(ByteView bytes);
};
// The position of the image's own mark; nullopt: none has begun, or it is finished.
Task<Result<std::optional<std::uint64_t>>> flatten_position(Volume& volume, DatasetId image);

}  // namespace cumulus
