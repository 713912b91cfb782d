// What the tests of pusher, repairer, checker and destroyer share: segments to push, and a look at what
// miners hold. Header-only.
#pragma once

#include <cstring>
#include <map>
#include <set>

#include "objectstore/crypto/merkle.h"
#include "objectstore/store/pusher.h"
#include "tests/unit/store_world.h"

namespace cumulus {

// Log segments with a true header and a chain; the groups behind it are any bytes.
class SegmentMaker {
 public:
  SegmentMaker(Runtime& runtime, VolumeId volume) : runtime_(runtime), volume_(volume) {}

  SealedSegment next(std::uint64_t length) {
    SealedSegment segment;
    segment.header.volume = volume_;
    segment.header.id = {SegmentKind::log, 1, ++sequence_};
    runtime_.random().fill(segment.header.salt);
    segment.header.previous_chain = chain_;
    segment.length = length;
    segment.first_group = sequence_ * 10 - 9;
    segment.last_group = sequence_ * 10;
    runtime_.random().fill(segment.last_group_tag);
    chain_ = segment.chain = chain_value(segment.header, segment.last_group_tag, length);
    auto bytes = std::make_shared<Buffer>(length);
    runtime_.random().fill(bytes->view());
    Bytes header;
    segment.header.encode(header);
    std::ranges::copy(header, bytes->data());
    segment.memory = bytes;
    return segment;
  }

 private:
  Runtime& runtime_;
  VolumeId volume_;
  Sequence sequence_ = 0;
  Digest chain_{};
};

class PushWorld : public StoreWorld {
 public:
  explicit PushWorld(std::size_t miners, std::uint64_t capacity_each = 4ull << 30)
      : StoreWorld(miners, capacity_each), home(*this, "home", 1), maker(reactor, keys.volume_id()) {}

  static constexpr std::uint64_t kSegment = 64 << 10;

  Task<Status> open(std::uint8_t k, std::uint8_t m) {
    shape = {k, m, 16};
    co_return co_await home.create(k, m);
  }
  Pusher& start_pusher(std::uint64_t queue_memory_max = 64 << 20) {
    PusherOptions options;
    options.shape = shape;
    options.request_deadline = 300ms;
    options.queue_memory_max = queue_memory_max;
    Pusher::LoadSegment load = [this](SealedSegment segment) -> Task<Result<std::shared_ptr<const Buffer>>> {
      ++loads;
      const auto found = local.find(segment.header.id);
      if (found == local.end()) co_return fail(ErrorKind::not_found, "no local copy");
      co_return found->second;
    };
    Pusher::OnStored on_stored = [this](change::Placed now, Manifest) -> Task<Status> {
      placed[now.segment] = std::move(now);
      co_return Status();
    };
    pusher = std::make_unique<Pusher>(reactor, home.transport, keys, *home.tail, options, std::move(load),
                                      std::move(on_stored), metrics);
    pusher->start(home.tail->accepted().tail);
    return *pusher;
  }
  SealedSegment make(std::uint64_t length = kSegment) {
    SealedSegment segment = maker.next(length);
    local[segment.header.id] = segment.memory;
    return segment;
  }
  SimMiner* find(const MinerId& id) {
    for (std::size_t at = 0; at < network.size(); ++at)
      if (network.miner(at).id() == id) return &network.miner(at);
    return nullptr;
  }
  // Slices that are where the Placed change says, with the right bytes.
  std::size_t present(const change::Placed& where) {
    std::size_t count = 0;
    for (std::uint16_t i = 0; i < where.miners.size(); ++i) {
      SimMiner* miner = find(where.miners[i]);
      if (miner != nullptr && miner->holds(where_volume(), {where.segment, i})) ++count;
    }
    return count;
  }
  VolumeId where_volume() const { return keys.volume_id(); }
  static std::size_t distinct(const change::Placed& where) {
    return std::set<MinerId>(where.miners.begin(), where.miners.end()).size();
  }
  static std::size_t most_on_one(const change::Placed& where) {
    std::size_t most = 0;
    for (const MinerId& id : where.miners)
      most = std::max<std::size_t>(most, static_cast<std::size_t>(std::ranges::count(where.miners, id)));
    return most;
  }
  Task<void> end() {
    if (pusher) co_await pusher->close();
    co_await home.end();
  }

  Home home;
  SegmentMaker maker;
  VolumeShape shape;
  std::unique_ptr<Pusher> pusher;
  std::map<SegmentId, change::Placed> placed;
  std::map<SegmentId, std::shared_ptr<const Buffer>> local;
  std::size_t loads = 0;
};

}  // namespace cumulus
