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
                            std::vector<std::uint16_t> lost, TriedHolders& tried, TimePoint until) {
  if (lost.empty()) co_return false;
  std::vector<SliceId> slices;
  slices.reserve(lost.size());
  for (const std::uint16_t index : lost) {
    slices.push_back({placed.segment, index});
    tried.insert({index, placed.miners[index]});
  }
  const std::vector<MinerEntry> miners = transport.miners();
  bool learned = false;
  TaskGroup asks(runtime);
  for (const MinerEntry& entry : miners) {
    asks.spawn([&, miner = entry.id]() -> Task<void> {
      const auto answer = co_await transport.have(miner, slices, std::max(until, runtime.now() + kAskMin));
      if (!answer || answer->size() != slices.size()) co_return;
      for (std::size_t i = 0; i < lost.size(); ++i) {
        MinerId& holder = placed.miners[lost[i]];
        const bool known = !tried.contains({lost[i], holder});
        if (!(*answer)[i] || known || tried.contains({lost[i], miner})) continue;
        holder = miner;
        learned = true;
      }
    });
  }
  co_await asks.join();
  co_return learned;
}

}  // namespace cumulus
