// Where a name lies in its directory, and where a new one goes: the rule of FORMAT.md in one place. Reactor
// thread of the volume.
#pragma once

#include <optional>
#include <string>

#include "fs/records.h"
#include "objectstore/object_store.h"

namespace cumulus {

struct NamePlace {
  std::uint64_t cookie = 0;
  std::optional<EntryRecord> entry;  // nullopt: a new entry would go here
};
using NameHash = std::uint64_t (*)(const NameSalt& salt, std::string_view name);
// nullopt: the name is not there, and all places that it could have are taken.
Task<Result<std::optional<NamePlace>>> find_name(Volume& volume, View view, ObjectId directory, NameSalt salt,
                                                 std::string name, NameHash hash = cookie_of);

}  // namespace cumulus
