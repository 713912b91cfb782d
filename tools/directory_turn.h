// DirectoryTurn: held by a command from before it reads a file of a directory that it changes until after, so
// that of two commands at once the second sees what the first wrote. A daemon may run. Any thread.
#pragma once

#include <string>

namespace cumulus {

class DirectoryTurn {
 public:
  // Waits for the one before it. Of a directory that cannot be opened there is no turn, and nothing to read.
  explicit DirectoryTurn(const std::string& directory);
  DirectoryTurn(const DirectoryTurn&) = delete;
  DirectoryTurn& operator=(const DirectoryTurn&) = delete;
  ~DirectoryTurn();

 private:
  int descriptor_;
};

}  // namespace cumulus
