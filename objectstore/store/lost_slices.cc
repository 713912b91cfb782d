#include "objectstore/store/lost_slices.h"

#include <algorithm>

#include "objectstore/io/sync.h"

namespace cumulus {
namespace {

constexpr Duration kAskMin = std::chrono::seconds(1);

}  // namespace

bool is_listed(const SliceTransport& transport, const MinerId& miner) {
  return std::ranges::any_of(transport.miners(), [&](const MinerEntry& entry) { return entry.id == miner; });
}

Task<bool> find_lost_slices(Runtime& runtime, SliceTransport& transport, change::Placed& placed,
                            TimePoint until) {
  std::vector<SliceId> lost;
  for (std::uint16_t i = 0; i < placed.miners.size(); ++i)
    if (!is_listed(transport, placed.miners[i])) lost.push_back({placed.segment, i});
  if (lost.empty()) co_return false;
  const std::vector<MinerEntry> miners = transport.miners();
  bool learned = false;
  TaskGroup asks(runtime);
  for (const MinerEntry& entry : miners) {
    asks.spawn([&, miner = entry.id]() -> Task<void> {
      const auto answer = co_await transport.have(miner, lost, std::max(until, runtime.now() + kAskMin));
      if (!answer || answer->size() != lost.size()) co_return;
      for (std::size_t i = 0; i < lost.size(); ++i) {
        MinerId& holder = placed.miners[lost[i].index];
        if (!(*answer)[i] || is_listed(transport, holder)) continue;
        holder = miner;
        learned = true;
      }
    });
  }
  co_await asks.join();
  co_return learned;
}

}  // namespace cumulus
