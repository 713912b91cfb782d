// What a file system shows to those who walk through it, and a checker that walks below it: through the
// records of its objects, where no verb of the door can gloss over what does not fit. Reactor thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "fs/file_system.h"
#include "tests/model/fs_model.h"

namespace cumulus {

struct FsWalk {
  FsPicture picture;
  std::map<std::string, NodeId> nodes;  // by path
  std::string trouble;                  // what failed or contradicts itself; empty: nothing
};
// From the root down, listing `page` entries at a time: each name is listed, looked up, and read to its end.
Task<FsWalk> walk(PosixFileSystem& files, std::size_t page);

struct FsCheck {
  std::vector<std::string> problems;
  std::size_t objects = 0;
  std::size_t orphans =
      0;  // noted as such: right while the file system is open, and not after it was mounted
};
// Every object of the dataset's head, or of one of its snapshots, is reached by as many names as it counts,
// each entry leads to an object of its kind and is where its name's hash says, directories know their parent,
// allocation and usage sums are what lies there.
Task<FsCheck> check_file_system(Volume& volume, DatasetId dataset, std::string snapshot);

}  // namespace cumulus
