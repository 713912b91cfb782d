#include "tests/sim/checkers.h"

#include <algorithm>

#include "objectstore/base/format.h"
#include "objectstore/log/segment_reader.h"
#include "objectstore/manifest.h"

namespace cumulus {
namespace {

using Salt = std::array<std::uint8_t, 16>;

std::map<Bytes, Bytes> as_map(const std::vector<OmapEntry>& entries) {
  std::map<Bytes, Bytes> map;
  for (const OmapEntry& entry : entries) map[entry.key] = entry.value;
  return map;
}

Comparison differs(std::string what) { return {std::move(what), std::nullopt}; }
Comparison unreadable(const Error& error, const std::string& where) { return {"", error.within(where)}; }

// One segment as the miners hold it.
struct StoredSegment {
  Manifest manifest;
  std::map<std::uint16_t, Bytes> data;                // intact slices, by index
  std::map<std::uint16_t, std::set<std::size_t>> at;  // on which miners
};

// By manifest, so that two homes' segments of one name are not mixed.
std::map<Bytes, StoredSegment> stored_segments(Cluster& cluster, bool with_data) {
  std::map<Bytes, StoredSegment> segments;
  for (std::size_t miner = 0; miner < cluster.network().size(); ++miner) {
    cluster.network().miner(miner).for_each_intact(
        cluster.keys().volume_id(), [&](const SliceId& slice, ByteView manifest, ByteView data) {
          const Bytes name(manifest.begin(), manifest.end());
          auto found = segments.find(name);
          if (found == segments.end()) {
            auto parsed = Manifest::decode(manifest);
            if (!parsed) return;
            found = segments.emplace(name, StoredSegment{std::move(*parsed), {}, {}}).first;
          }
          found->second.at[slice.index].insert(miner);
          if (with_data) found->second.data[slice.index] = Bytes(data.begin(), data.end());
        });
  }
  return segments;
}

Task<Comparison> compare_names(Volume& volume, const StoreModel& model) {
  std::set<std::string> have;
  for (const DatasetInfo& info : volume.datasets()) have.insert(info.name);
  std::set<std::string> want;
  for (const auto& [name, dataset] : model.datasets) want.insert(name);
  if (have == want) co_return Comparison{};
  std::string text = "datasets are";
  for (const std::string& name : have) text += " " + name;
  text += ", expected";
  for (const std::string& name : want) text += " " + name;
  co_return differs(text);
}

}  // namespace

Task<Comparison> compare_object(Volume& volume, View view, ObjectId id, const ModelObject* expected,
                                std::string where) {
  where += format(":{}", id);
  const auto stat = co_await volume.stat(view, id);
  if (!stat) co_return unreadable(stat.error(), where);
  if (stat->has_value() != (expected != nullptr))
    co_return differs(where + (expected == nullptr ? " exists and should not" : " is missing"));
  if (expected == nullptr) co_return Comparison{};
  if ((*stat)->size != expected->data.size())
    co_return differs(format("{} has {} bytes, expected {}", where, (*stat)->size, expected->data.size()));
  if ((*stat)->header != expected->header) co_return differs(where + ": wrong header");
  Bytes data(expected->data.size() + 100);
  const auto got = co_await volume.read(view, id, 0, data);
  if (!got) co_return unreadable(got.error(), where);
  data.resize(*got);
  if (data != expected->data) {
    const auto at = std::ranges::mismatch(data, expected->data).in1 - data.begin();
    co_return differs(
        format("{}: byte {} of {} is wrong (read {} bytes)", where, at, expected->data.size(), *got));
  }
  const auto xattrs = co_await volume.xattrs(view, id);
  if (!xattrs) co_return unreadable(xattrs.error(), where);
  if (as_map(*xattrs) != expected->xattrs) co_return differs(where + ": wrong xattrs");
  const auto omap = co_await volume.omap_list(view, id, std::nullopt, 1000);
  if (!omap) co_return unreadable(omap.error(), where);
  if (as_map(*omap) != expected->omap) co_return differs(where + ": wrong omap");
  co_return Comparison{};
}

Task<Comparison> compare_volume(Volume& volume, const StoreModel& model, SeededRandom& random) {
  Comparison names = co_await compare_names(volume, model);
  if (!names.same()) co_return names;
  for (const auto& [name, dataset] : model.datasets) {
    const DatasetInfo info = *volume.find_dataset(name);
    std::set<std::string> have;
    for (const SnapshotInfo& snapshot : info.snapshots) have.insert(snapshot.name);
    for (const auto& [snapshot, objects] : dataset.snapshots)
      if (have.erase(snapshot) == 0) co_return differs("snapshot " + name + "@" + snapshot + " is missing");
    if (!have.empty()) co_return differs("snapshot " + name + "@" + *have.begin() + " exists and should not");
    for (ObjectId id = 1; id <= dataset.highest_object; ++id) {
      const auto found = dataset.head.find(id);
      const ModelObject* expected = found == dataset.head.end() ? nullptr : found->second.get();
      Comparison object = co_await compare_object(volume, info.head, id, expected, name);
      if (!object.same()) co_return object;
    }
    for (const SnapshotInfo& snapshot : info.snapshots) {
      const ModelObjects& objects = dataset.snapshots.at(snapshot.name);
      for (ObjectId id = 1; id <= dataset.highest_object; ++id) {
        if (!random.once_in(3)) continue;
        const auto found = objects.find(id);
        const ModelObject* expected = found == objects.end() ? nullptr : found->second.get();
        Comparison object =
            co_await compare_object(volume, snapshot.view, id, expected, name + "@" + snapshot.name);
        if (!object.same()) co_return object;
      }
    }
  }
  co_return Comparison{};
}

// --- nonces ---

Violation NonceChecker::look(Cluster& cluster, Home& home) {
  for (const auto& [path, bytes] : home.disk->files()) {
    if (path.find("/segments/") == std::string::npos || bytes.size() < SegmentHeader::kEncodedSize) continue;
    if (Violation found = look_at_segment(cluster.keys(), bytes, bytes.size())) return found;
  }
  for (const auto& [name, segment] : stored_segments(cluster, true)) {
    const Manifest& manifest = segment.manifest;
    if (whole_.contains(name)) continue;
    Bytes bytes;
    for (std::uint16_t i = 0; i < manifest.k; ++i) {
      const auto slice = segment.data.find(i);
      if (slice == segment.data.end()) break;
      bytes.insert(bytes.end(), slice->second.begin(), slice->second.end());
    }
    if (bytes.size() < manifest.segment_length) continue;
    whole_.insert(name);
    if (Violation found = look_at_segment(cluster.keys(), bytes, manifest.segment_length)) return found;
  }
  return std::nullopt;
}

Violation NonceChecker::look_at_changes(Cluster& cluster, Home& home) {
  std::uint64_t& looked = looked_[home.name];
  const auto files = home.disk->files_changed_after(std::exchange(looked, home.disk->changes()));
  for (const auto& [path, bytes] : files) {
    if (path.find("/segments/") == std::string::npos || bytes.size() < SegmentHeader::kEncodedSize) continue;
    if (Violation found = look_at_segment(cluster.keys(), bytes, bytes.size())) return found;
  }
  return std::nullopt;
}

Violation NonceChecker::look_at_segment(const KeyTree& keys, ByteView bytes, std::uint64_t length) {
  const auto opened = open_segment_bytes(keys, bytes, length, std::nullopt, false);
  if (!opened) return std::nullopt;  // torn, recycled or rotten: others judge that
  const SegmentHeader& header = opened->scan.header;
  std::uint64_t at = std::uint64_t{1} << header.align_log2;
  for (const OpenedGroup& group : opened->groups) {
    const ByteView sealed = bytes.subspan(at + kGroupNonceSize, kGroupHeaderSize + kTagSize);
    const Bytes content(sealed.begin(), sealed.end());
    const auto [use, first] = seen_.try_emplace({header.id, header.salt, group.area.nonce, at}, content);
    if (!first && use->second != content)
      return format("nonce used twice: segment {} of epoch {}, offset {}, nonce {:x}", header.id.sequence,
                    header.id.epoch, at, group.area.nonce);
    at += group.header.total_length;
  }
  return std::nullopt;
}

// --- holders ---

Violation HolderChecker::look(Cluster& cluster) {
  const std::uint32_t quorum = cluster.quorum().quorum;
  for (std::size_t miner = 0; miner < cluster.network().size(); ++miner) {
    const HolderState* state = cluster.network().miner(miner).holder_state(cluster.keys().volume_id());
    if (state == nullptr || !state->accepted) continue;
    const Superblock& record = *state->accepted;
    const std::pair<Ballot, std::uint64_t> now{record.ballot, record.version};
    auto& before = highest_[miner];
    if (now < before && !cluster.stale_miners().contains(miner))
      return format("miner {} accepted version {} of epoch {} open {} after version {} of epoch {} open {}",
                    miner, now.second, now.first.epoch, now.first.open_number, before.second,
                    before.first.epoch, before.first.open_number);
    if (now == before) continue;
    before = now;
    const Digest digest = record.digest();
    auto& holders = accepted_[record.version][digest];
    holders.insert(miner);
    if (holders.size() < quorum) continue;
    const auto [chosen, first] = chosen_.try_emplace(record.version, digest);
    if (!first && chosen->second != digest)
      return format("two accepted records of version {}", record.version);
    if (!newest_ || record.newer_than(*newest_)) newest_ = record;
  }
  return std::nullopt;
}

std::size_t holders_covering(Cluster& cluster, LogPosition position) {
  std::size_t covering = 0;
  for (std::size_t miner = 0; miner < cluster.network().size(); ++miner) {
    const HolderState* state = cluster.network().miner(miner).holder_state(cluster.keys().volume_id());
    if (state != nullptr && state->accepted && state->accepted->tail.position >= position) ++covering;
  }
  return covering;
}

// --- what is stored ---

Violation check_tail(Cluster& cluster, const Superblock& record) {
  const auto segments = stored_segments(cluster, false);
  Digest chain = record.tail.chain;
  for (Sequence sequence = record.tail.through.sequence; sequence > 0; --sequence) {
    const StoredSegment* found = nullptr;
    for (const auto& [name, segment] : segments)
      if (segment.manifest.id().kind == SegmentKind::log && segment.manifest.id().sequence == sequence &&
          segment.manifest.chain() == chain)
        found = &segment;
    if (found == nullptr)
      return format("the tail says {}, and no miner has segment {} of its chain",
                    record.tail.through.sequence, sequence);
    if (found->at.size() < found->manifest.k)
      return format("the tail says {}, and of segment {} only {} good slices exist",
                    record.tail.through.sequence, sequence, found->at.size());
    chain = found->manifest.header.previous_chain;
  }
  return std::nullopt;
}

bool all_readable(Cluster& cluster, const Home& home, bool when_healed) {
  for (const auto& [name, segment] : stored_segments(cluster, false)) {
    std::size_t good = 0;
    for (const auto& [index, miners] : segment.at)
      if (std::ranges::any_of(miners,
                              [&](std::size_t miner) { return when_healed || cluster.serves(miner, home); }))
        ++good;
    if (good < segment.manifest.k) return false;
  }
  return true;
}

bool good_miners_suffice(Cluster& cluster) {
  return std::ranges::all_of(stored_segments(cluster, false), [&](const auto& entry) {
    const StoredSegment& segment = entry.second;
    const auto safe = std::ranges::count_if(segment.at, [&](const auto& slice) {
      return std::ranges::any_of(slice.second,
                                 [&](std::size_t miner) { return !cluster.bad_miners().contains(miner); });
    });
    return safe >= segment.manifest.k;
  });
}

bool crowded_ones_are_lost(Cluster& cluster) {
  const VolumeId volume = cluster.keys().volume_id();
  std::map<SegmentId, std::set<std::uint16_t>> sent;
  std::map<SegmentId, std::set<std::uint16_t>> intact;
  for (std::size_t i = 0; i < cluster.network().size(); ++i) {
    SimMiner& miner = cluster.network().miner(i);
    for (const auto& [of, slice] : miner.acknowledged())
      if (of == volume) sent[slice.segment].insert(slice.index);
    miner.for_each_intact(
        volume, [&](const SliceId& slice, ByteView, ByteView) { intact[slice.segment].insert(slice.index); });
  }
  const VolumeShape shape = cluster.shape();
  return std::ranges::any_of(sent, [&](const auto& entry) {
    const bool on_its_way = entry.second.size() < std::size_t{shape.k} + shape.m;
    return !on_its_way && intact[entry.first].size() < shape.k;
  });
}

}  // namespace cumulus
