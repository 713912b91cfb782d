#include "objectstore/miner_sets.h"

#include <algorithm>

namespace cumulus {

bool names(const Miners& miners, const MinerId& id) {
  return std::ranges::find(miners, id, &MinerEntry::id) != miners.end();
}

Miners only_in(const Miners& these, const Miners& others) {
  Miners only;
  std::ranges::copy_if(these, std::back_inserter(only),
                       [&](const MinerEntry& miner) { return !names(others, miner.id); });
  return only;
}

Miners at_addresses_of(Miners these, const Miners& others) {
  for (MinerEntry& miner : these) {
    const auto known = std::ranges::find(others, miner.id, &MinerEntry::id);
    if (known != others.end()) miner.address = known->address;
  }
  return these;
}

Miners with_guests(Miners first, const Miners& second) {
  for (MinerEntry guest : only_in(second, first)) {
    guest.weight = 0;
    first.push_back(std::move(guest));
  }
  return first;
}

}  // namespace cumulus
