#include "tools/cumulus/former_miners.h"

#include <algorithm>

#include "netclient/miner_list.h"

namespace cumulus {
namespace {

std::string path_of(const Home& home, const std::string& volume) {
  return home.volume(volume) + "/former_miners.toml";
}

bool names(const std::vector<MinerEntry>& miners, const MinerId& id) {
  return std::ranges::find(miners, id, &MinerEntry::id) != miners.end();
}

}  // namespace

Result<std::vector<MinerEntry>> former_miners(const Home& home, const std::string& volume) {
  const std::string path = path_of(home, volume);
  TRY(const bool there, Home::is_there(path));
  if (!there) return std::vector<MinerEntry>();
  auto miners = load_miner_list(path);
  if (!miners)
    return fail(ErrorKind::corrupt, miners.error().message() +
                                        ": mend it, or delete it and what was drained "
                                        "before stays on those miners");
  return miners;
}

Status note_former_miners(const Home& home, const std::string& volume, const std::vector<MinerEntry>& before,
                          const std::vector<MinerEntry>& after) {
  TRY(std::vector<MinerEntry> former, former_miners(home, volume));
  const std::vector<MinerEntry> known = former;
  std::erase_if(former, [&](const MinerEntry& miner) { return names(before, miner.id); });
  std::ranges::copy_if(before, std::back_inserter(former),
                       [&](const MinerEntry& miner) { return !names(after, miner.id); });
  if (former == known || former.empty()) return {};
  return Home::write_file(path_of(home, volume), view_of(print_miner_list(former)));
}

}  // namespace cumulus
