#include "objectstore/store/holder_survey.h"

#include <algorithm>
#include <memory>
#include <set>

#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/miner_sets.h"
#include "objectstore/store/sealed_label.h"

namespace cumulus {
namespace {

constexpr int kSurveysMax = 4;  // each begins with a list that the one before it brought

bool contains(const std::vector<MinerId>& ids, const MinerId& id) {
  return std::ranges::find(ids, id) != ids.end();
}

// Shared with the requests, so that a slow one may end after the survey did: it then finds `over`.
struct Asking {
  explicit Asking(Runtime& runtime) : changed(runtime) {}
  Survey survey;
  Signal changed;
};

void note_answer(Asking& asking, VolumeId volume, const MinerId& miner, HolderState state) {
  asking.survey.heard.insert(miner);
  if (state.promised && state.promised->volume == volume)
    asking.survey.highest = std::max(asking.survey.highest, state.promised->ballot);
  if (!state.accepted || state.accepted->volume != volume) return;
  asking.survey.highest = std::max(asking.survey.highest, state.accepted->ballot);
  auto& newest = asking.survey.newest;
  if (!newest || state.accepted->newer_than(*newest)) newest = *std::move(state.accepted);
}

Task<void> ask(SliceTransport& transport, VolumeId volume, MinerId miner, TimePoint deadline,
               std::shared_ptr<Asking> asking) {
  auto state = co_await transport.superblock(miner, deadline);
  if (state)
    note_answer(*asking, volume, miner, *std::move(state));
  else
    asking->survey.errors.emplace(miner, state.error());
  asking->changed.notify_all();
}

}  // namespace

std::vector<MinerId> choose_holders(const std::vector<MinerEntry>& miners, std::uint8_t m,
                                    const std::vector<MinerId>& current) {
  if (miners.empty()) return {};
  const std::size_t wanted = QuorumShape::for_volume(static_cast<std::uint32_t>(miners.size()), m).holders;
  std::vector<MinerId> chosen;
  std::set<std::string> domains;
  const auto take = [&](const MinerEntry& miner) {
    chosen.push_back(miner.id);
    domains.insert(miner.domain);
  };
  for (const MinerId& holder : current) {
    const auto found = std::ranges::find(miners, holder, &MinerEntry::id);
    if (found != miners.end() && chosen.size() < wanted) take(*found);
  }
  for (const bool fresh_domain : {true, false}) {
    for (const MinerEntry& miner : miners) {
      if (chosen.size() == wanted) break;
      if (contains(chosen, miner.id) || (fresh_domain && domains.contains(miner.domain))) continue;
      take(miner);
    }
  }
  return chosen;
}

bool quorum_of(const Superblock& record, const std::function<bool(const MinerId&)>& yes) {
  const auto enough = [&](const std::vector<MinerId>& holders) {
    const auto count = static_cast<std::uint32_t>(std::ranges::count_if(holders, yes));
    return count >= QuorumShape::quorum_of(static_cast<std::uint32_t>(holders.size()), record.m);
  };
  return enough(record.holders) && (record.next_holders.empty() || enough(record.next_holders));
}

std::string quorum_in_words(const Superblock& record) {
  const auto of = [&](const std::vector<MinerId>& holders, const char* which) {
    return format("{} of the {} {}",
                  QuorumShape::quorum_of(static_cast<std::uint32_t>(holders.size()), record.m),
                  holders.size(), which);
  };
  std::string words = of(record.holders, "holders of the volume");
  if (!record.next_holders.empty()) words += " and " + of(record.next_holders, "that it moves to");
  return words;
}

Task<Result<Survey>> survey_holders(Runtime& runtime, SliceTransport& transport, VolumeId volume,
                                    HomeRecord home, Duration patience, TaskGroup& stragglers) {
  const TimePoint deadline = runtime.now() + patience;
  auto asking = std::make_shared<Asking>(runtime);
  const std::vector<MinerEntry> miners = transport.miners();
  for (const MinerEntry& miner : miners) stragglers.spawn(ask(transport, volume, miner.id, deadline, asking));

  const auto reached = [&] {
    return asking->survey.newest && quorum_of(*asking->survey.newest, [&](const MinerId& id) {
             return asking->survey.heard.contains(id);
           });
  };
  const auto all_ended = [&] {
    return asking->survey.heard.size() + asking->survey.errors.size() >= miners.size();
  };
  while (!reached() && !all_ended()) {
    const bool woken = co_await asking->changed.wait_until(deadline);
    if (!woken) break;
  }
  Survey survey = asking->survey;
  survey.quorum_reached = reached();
  if (survey.quorum_reached && home.rolled_back(*survey.newest))
    co_return fail(
        ErrorKind::corrupt,
        "the miners show a state older than this machine has seen: they were rolled back, or restored "
        "from an old copy. Nothing was changed; restore the miners, or recover from another quorum");
  co_return survey;
}

bool follow_list(SliceTransport& transport, const KeyTree& keys, const Superblock& record,
                 bool keep_addresses, const std::set<MinerId>& heard) {
  if (record.version == 0) return false;
  auto listed = open_miners(keys, record.sealed_miners);
  if (!listed || listed->empty()) {
    log_warn("volume {}: the miner list of the newest record cannot be read: this home's is used",
             record.volume.brief());
    return false;
  }
  const Miners before = transport.miners();
  Miners found_there = before;
  if (!keep_addresses)
    std::erase_if(found_there, [&](const MinerEntry& miner) { return !heard.contains(miner.id); });
  Miners now = at_addresses_of(*std::move(listed), found_there);
  if (now == before) return false;
  transport.set_miners(std::move(now));
  return true;
}

Task<Result<Survey>> survey_members(Runtime& runtime, SliceTransport& transport, const KeyTree& keys,
                                    HomeRecord home, bool given, Duration patience, TaskGroup& stragglers) {
  for (int round = 1;; ++round) {
    CO_TRY(Survey survey,
           co_await survey_holders(runtime, transport, keys.volume_id(), home, patience, stragglers));
    if (!survey.newest) co_return survey;
    const bool keep = given || home.wrote(*survey.newest);
    const bool other = follow_list(transport, keys, *survey.newest, keep, survey.heard);
    if (!other || survey.quorum_reached || round == kSurveysMax) co_return survey;
  }
}

}  // namespace cumulus
