// The paths that differ between two instants of one file system, or of a clone and what it came from.
//
// Memory is bounded whatever differs: the numbers of the objects that differ are kept as ranges of bits, the
// names that moved up to a limit (DifferenceLimits says what happens beyond). Every name of both trees is
// listed once, and only what differs is looked at more closely. Reactor thread of the volume, which goes on
// working between pages; the volume outlives the call. An instant that is written meanwhile (a head) gives an
// answer that mixes before and after.
#pragma once

#include <functional>
#include <string>

#include "objectstore/object_store.h"

namespace cumulus {

// A node is the same in both when it has the same number and was born at the same time. A name that shows
// another plain file than before, the old one being gone, is modified: programs replace files so. Modified:
// bytes or length differ, or may: what was written again counts. Metadata: owner, mode, device number,
// xattrs, or the time of the last change of what is no directory; nothing is said of access times, and of
// directories whose names changed.
struct PathChange {
  enum class Kind : std::uint8_t { added, removed, modified, metadata, renamed };
  Kind kind = Kind::added;
  std::uint32_t mode = 0;  // the node's kind only
  std::string path;        // from the root; in the newer instant, of what was removed in the older
  std::string from;        // of what was renamed: the path in the older instant
};
// May suspend; a failure ends the comparison with it.
using PathChangeSink = std::function<Task<Status>(PathChange change)>;

struct DifferenceLimits {
  // Beyond it every node is looked at more closely: slower, the same answer.
  std::size_t object_bytes = 64u << 20;
  // Beyond it a rename is told as removed and added.
  std::size_t rename_bytes = 64u << 20;
};

// Removed ones first, by the older tree; then the others, by the newer; then names that went while their file
// has others. Of a moved directory only itself is told, and what else differs below. Errors: invalid (not two
// instants of one file system), corrupt, and those of reading.
Task<Status> file_system_difference(Runtime& runtime, Volume& volume, View older, View newer,
                                    DifferenceLimits limits, PathChangeSink sink);

}  // namespace cumulus
