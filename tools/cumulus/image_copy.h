// Disks in and out of a volume: import from a file of any format, export to one. Holes stay holes, and an
// interrupted copy goes on where it was. Blocking; the command's thread.
#pragma once

#include <cstdint>
#include <string>

#include "tools/cumulus/client.h"

namespace cumulus {

struct ImageCopy {
  Home home;
  std::string volume;
  std::string image;     // without its snapshot
  std::string snapshot;  // export only
  std::string file;
  std::string file_format;  // qemu's name; empty: import guesses, export writes raw
};

// Makes the image when it is not there. exists: it is, and no import of this file was interrupted, or the
// file changed since or meanwhile, or it is a disk, whose import is never resumed: that does not tell when it
// changed.
Result<std::uint64_t> import_image(Client& client, const ImageCopy& copy);
// Replaces `file` whole or not at all; what is done so far lies beside it in FILE.part. Resumes only the
// export of the very same snapshot, which cannot have changed meanwhile.
Result<std::uint64_t> export_image(Client& client, const ImageCopy& copy);

}  // namespace cumulus
