// Images: making disks in a volume. Reactor thread.
#pragma once

#include <string>

#include "blockdev/image_header.h"
#include "objectstore/object_store.h"

namespace cumulus {

// A thin disk of `size` bytes. Errors: exists, invalid (name, size), and the volume's own. A making that
// fails half-way is undone; one that is interrupted by the end of the program leaves an image that says so
// when it is opened, and can be removed.
Task<Result<DatasetId>> create_image(Volume& volume, std::string name, std::uint64_t size, WallTime now);

}  // namespace cumulus
