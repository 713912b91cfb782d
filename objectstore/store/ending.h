// Ending a volume (Volume::destroy), and what an opening must know of it. The file DIR/destroying says that
// the destroyed mark was offered to holders from this home: some may have taken it, so the volume is never
// opened here again, and ending it goes on when it is called again. Reactor thread.
#pragma once

#include <string>

#include "objectstore/base/result.h"
#include "objectstore/io/file.h"
#include "objectstore/store/home_file.h"

namespace cumulus {

Error destroyed_error();
// fenced when the volume of this home was destroyed, or is being destroyed, as far as the home knows.
Status check_not_ending(FileSystem& disk, const std::string& directory, const HomeRecord& home);

}  // namespace cumulus
