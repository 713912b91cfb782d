// Many callers at once, who change the same few names and files in any order: nobody knows what must come of
// it, but no call may break, and the records fit together whenever it ends. Reactor thread.
#pragma once

#include <string>
#include <vector>

#include "fs/file_system.h"

namespace cumulus {

struct FsStorm {
  PosixFileSystem& files;
  Runtime& runtime;
  std::vector<NodeId> directories;  // that the callers know; grow
  std::vector<NodeId> nodes;
  std::uint64_t calls = 0;
  std::uint64_t refused = 0;
  std::string failure;  // the first call that broke; empty: none

  // Until each of `callers` has made `calls_each`. The storm outlives the task.
  Task<void> blow(std::size_t callers, std::uint64_t calls_each);

 private:
  struct Draw;
  Task<void> caller(std::uint64_t seed, std::uint64_t most);
  Task<void> change_names(Draw& draw);
  Task<void> change_data(Draw& draw);
  Task<void> look(Draw& draw);
  template <class T>
  bool fine(const FsResult<T>& result, const char* what);
  void removed(Draw& draw, const FsResult<NodeId>& lost_name, const char* what);
};

}  // namespace cumulus
