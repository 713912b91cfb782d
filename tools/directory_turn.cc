#include "tools/directory_turn.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace cumulus {

DirectoryTurn::DirectoryTurn(const std::string& directory)
    : descriptor_(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  while (descriptor_ >= 0 && ::flock(descriptor_, LOCK_EX) != 0 && errno == EINTR) continue;
}

DirectoryTurn::~DirectoryTurn() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace cumulus
