#include "fs/names.h"

namespace cumulus {
namespace {

constexpr int kProbesMax = 64;

}  // namespace

Task<Result<std::optional<NamePlace>>> find_name(Volume& volume, View view, ObjectId directory, NameSalt salt,
                                                 std::string name, NameHash hash) {
  const std::uint64_t home = hash(salt, name);
  std::optional<std::uint64_t> free;
  for (int probe = 0; probe < kProbesMax; ++probe) {
    const std::uint64_t cookie = home + static_cast<std::uint64_t>(probe);
    CO_TRY(const auto value, co_await volume.omap(view, directory, cookie_key(cookie)));
    if (!value) co_return NamePlace{free.value_or(cookie), std::nullopt};
    CO_TRY(auto entry, EntryRecord::decode(*value));
    if (entry.object != 0 && entry.name == name) co_return NamePlace{cookie, std::move(entry)};
    if (entry.object == 0 && !free) free = cookie;
  }
  if (free) co_return NamePlace{*free, std::nullopt};
  co_return std::nullopt;
}

}  // namespace cumulus
