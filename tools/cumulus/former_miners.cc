#include "tools/cumulus/former_miners.h"

#include "netclient/miner_list.h"
#include "objectstore/miner_sets.h"

namespace cumulus {
namespace {

std::string path_of(const Home& home, const std::string& volume) {
  return home.volume(volume) + "/former_miners.toml";
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
  TRY(const Miners known, former_miners(home, volume));
  Miners former = only_in(known, before);
  const Miners gone = only_in(before, after);
  former.insert(former.end(), gone.begin(), gone.end());
  if (former == known || former.empty()) return {};
  return Home::write_file(path_of(home, volume), view_of(print_miner_list(former)));
}

}  // namespace cumulus
