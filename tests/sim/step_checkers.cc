#include "tests/sim/step_checkers.h"

#include <algorithm>

#include "objectstore/base/format.h"
#include "objectstore/log/segment_reader.h"

namespace cumulus {

// --- R1 ---

Violation IndexChecker::look(Cluster& cluster, const Home& home, const Tail& stored) {
  const LogPosition position = home.engine->position;
  if (position == seen_ || position <= stored.position) return std::nullopt;
  seen_ = position;
  ++looks_;
  std::vector<LocalSegment> segments = local_segments(home.disk->durable_files(), cluster.keys());
  std::erase_if(segments, [&](const LocalSegment& segment) {
    return segment.header.id.sequence <= stored.through.sequence;
  });
  std::ranges::sort(segments, std::ranges::greater(),
                    [](const LocalSegment& segment) { return segment.header.id.sequence; });
  // The one that has the position, and then, back from it, what its chain names.
  std::optional<Digest> wanted;
  for (const LocalSegment& segment : segments) {
    const auto opened =
        open_segment_bytes(cluster.keys(), segment.bytes, segment.bytes.size(), std::nullopt, true);
    if (!opened || opened->scan.last_group == 0) continue;
    const SegmentScan& scan = opened->scan;
    const Digest chain = chain_value(scan.header, scan.last_group_tag, scan.good_length);
    if (wanted ? chain != *wanted : position < scan.first_group || position > scan.last_group) continue;
    if (wanted) whole_.insert(chain);
    wanted = scan.header.previous_chain;
    if (*wanted == stored.chain || whole_.contains(*wanted) ||
        scan.header.id.sequence <= stored.through.sequence + 1)
      return std::nullopt;
  }
  return format("the durable index is at {}, past the durable log{}", position,
                wanted ? ", which has a hole" : "");
}

// --- R2 ---

Violation TailChecker::look(Cluster& cluster, const Tail& accepted) {
  if (accepted == checked_) return std::nullopt;
  if (accepted.through.sequence < checked_.through.sequence)
    return format("the accepted tail goes back from segment {} to {}", checked_.through.sequence,
                  accepted.through.sequence);
  const std::size_t n = std::size_t{cluster.shape().k} + cluster.shape().m;
  struct Found {
    SegmentId id;
    Digest chain{};
    Digest previous{};
    LogPosition last = 0;
    std::set<std::uint16_t> intact;
  };
  std::map<Bytes, Found> found;  // by manifest
  for (std::size_t miner = 0; miner < cluster.network().size(); ++miner)
    cluster.network().miner(miner).for_each_intact(
        cluster.keys().volume_id(),
        [&](const SliceId& slice, ByteView manifest, ByteView) {
          if (slice.segment.kind != SegmentKind::log) return;
          const auto [at, first] = found.try_emplace(Bytes(manifest.begin(), manifest.end()));
          if (const auto parsed = first ? Manifest::decode(manifest) : fail(ErrorKind::exists, ""))
            at->second = {
                parsed->id(), parsed->chain(), parsed->header.previous_chain, parsed->last_group, {}};
          at->second.intact.insert(slice.index);
        },
        checked_.through.sequence);
  const auto acknowledged = [&](const SegmentId& segment) {
    std::set<std::uint16_t> slices;
    for (std::size_t miner = 0; miner < cluster.network().size(); ++miner)
      for (std::uint16_t i = 0; i < n; ++i)
        if (cluster.network().miner(miner).acknowledged().contains(
                {cluster.keys().volume_id(), {segment, i}}))
          slices.insert(i);
    return slices.size();
  };
  Digest chain = accepted.chain;
  LogPosition last = accepted.position;
  for (Sequence at = accepted.through.sequence; at > checked_.through.sequence; --at) {
    const auto segment = std::ranges::find_if(found, [&](const auto& entry) {
      return entry.second.id.sequence == at && entry.second.chain == chain;
    });
    if (segment == found.end()) {
      // All of its slices went to miners that lost them: it was crowded.
      if (at == accepted.through.sequence && acknowledged(accepted.through) == n) break;
      return format("the accepted tail is segment {}, and no miner has segment {} of its chain",
                    accepted.through.sequence, at);
    }
    const auto& [id, of, previous, last_group, intact] = segment->second;
    if (const std::size_t slices = acknowledged(id); slices != n)
      return format("the accepted tail covers segment {}, of which {} of {} slices were acknowledged", at,
                    slices, n);
    if (intact.size() < cluster.shape().k && !crowded_ones_are_lost(cluster))
      return format("the accepted tail covers segment {}, of which {} slices exist", at, intact.size());
    if (last_group > last || (at == accepted.through.sequence && last_group != last))
      return format("the accepted tail is at group {}, and segment {} ends at {}", last, at, last_group);
    ++segments_;
    last = last_group;
    chain = previous;
    if (at == checked_.through.sequence + 1 && chain != checked_.chain)
      return format("segment {} does not continue the accepted tail before it", at);
  }
  if (accepted.through.sequence == checked_.through.sequence && accepted.chain != checked_.chain)
    return format("two accepted tails end with segment {}", accepted.through.sequence);
  checked_ = accepted;
  return std::nullopt;
}

// --- bounds ---

Violation BoundsChecker::look(Cluster& cluster, const Home& home, const VolumeStatus& status,
                              const VolumeOptions& options) {
  const std::uint64_t slot = std::uint64_t{1} << cluster.shape().segment_log2;
  // The cache's budget, and beside it what a rescue, and the copy that an opening makes, may take. A budget
  // that was made smaller is reached by and by: until then there are never more.
  constexpr std::uint64_t kReserve = 4;
  const std::uint64_t most = std::max<std::uint64_t>(options.cache_bytes / slot, 4) + kReserve + 1;
  std::uint64_t files = 0;
  for (const auto& [path, bytes] : home.disk->files())
    if (path.starts_with("/home/volume/segments/")) ++files;
  const auto [before, first] = files_.try_emplace(home.name, files);
  const bool grows = !first && files > before->second;
  before->second = files;
  if (files > most && grows) return format("{} local segment files, and {} may be", files, most);
  if (status.cache_bytes > files * slot)
    return format("the cache says {} bytes, and has {} files of {}", status.cache_bytes, files, slot);
  // What no miner has yet lies in those files.
  if (status.dirty > files * slot)
    return format("{} bytes are dirty, and {} files of {} are here", status.dirty, files, slot);
  if (status.durable > status.written || status.written > status.accepted || status.remote > status.written)
    return format("accepted {}, written {}, durable {}, remote {}", status.accepted, status.written,
                  status.durable, status.remote);
  // Calls between two steps: the slices of the segments that are on their way, which the product bounds.
  // Reads are bounded by bytes, not by number: 496 is the most that a seed showed, and what grows without a
  // bound passes this one.
  constexpr std::uint64_t kOthersMost = 2048;
  const std::uint64_t n = std::uint64_t{cluster.shape().k} + cluster.shape().m;
  const FakeTransport& transport = *home.machine->transport;
  const std::uint64_t puts = transport.puts_under_way();
  const std::uint64_t puts_most = options.pushes_in_flight_max * n;
  if (puts > puts_most) return format("{} slices are on their way to miners, and {} may be", puts, puts_most);
  const std::uint64_t calls = transport.under_way();
  if (calls > puts_most + kOthersMost)
    return format("{} calls are unanswered, and {} may be", calls, puts_most + kOthersMost);
  // Each has its deadline; beside them wait the intervals of the parts, and segments that are tried again.
  constexpr std::uint64_t kIntervals = 64;
  const std::uint64_t timers = home.machine->process->timers();
  if (timers > calls + puts + kIntervals) return format("{} timers wait beside {} calls", timers, calls);
  return std::nullopt;
}

}  // namespace cumulus
