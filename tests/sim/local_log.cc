#include "tests/sim/local_log.h"

#include <algorithm>

#include "objectstore/log/segment_reader.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kSector = 512;

std::optional<LocalSegment> newest_of(const std::vector<LocalSegment>& segments) {
  const auto newest = std::ranges::max_element(segments, {}, [](const LocalSegment& segment) {
    return std::pair(segment.header.id.sequence, segment.header.id.epoch);
  });
  return newest == segments.end() ? std::nullopt : std::optional(*newest);
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> whole_groups(const KeyTree& keys, ByteView bytes) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> groups;
  const auto opened = open_segment_bytes(keys, bytes, bytes.size(), std::nullopt, true);
  if (!opened) return groups;
  std::uint64_t at = std::uint64_t{1} << opened->scan.header.align_log2;
  for (const OpenedGroup& group : opened->groups) {
    groups.emplace_back(at, group.header.total_length);
    at += group.header.total_length;
  }
  return groups;
}

}  // namespace

std::vector<LocalSegment> local_segments(const std::map<std::string, ByteView>& files, const KeyTree& keys) {
  std::vector<LocalSegment> segments;
  for (const auto& [path, bytes] : files) {
    // Not those that were set aside with an older state of the home.
    if (!path.starts_with("/home/volume/segments/") || bytes.size() < SegmentHeader::kEncodedSize) continue;
    auto header = SegmentHeader::decode(bytes.first(SegmentHeader::kEncodedSize));
    if (header && header->volume == keys.volume_id() && header->id.kind == SegmentKind::log)
      segments.push_back({path, *header, bytes});
  }
  return segments;
}

LocalCopies LocalCopies::of(Cluster& cluster, const Home& home) {
  LocalCopies copies;
  for (const LocalSegment& segment : local_segments(home.disk->files(), cluster.keys())) {
    Copies& same = copies.by_salt[segment.header.salt];
    same.segment = segment.header.id;
    same.paths.insert(segment.path);
  }
  return copies;
}

std::uint64_t LocalCopies::doubled(Sequence stored) const {
  return static_cast<std::uint64_t>(std::ranges::count_if(by_salt, [&](const auto& entry) {
    return entry.second.segment.sequence > stored && entry.second.paths.size() > 1;
  }));
}

std::uint64_t LocalCopies::moved(const LocalCopies& later) const {
  return static_cast<std::uint64_t>(std::ranges::count_if(by_salt, [&](const auto& entry) {
    const auto now = later.by_salt.find(entry.first);
    return now != later.by_salt.end() && std::ranges::none_of(now->second.paths, [&](const auto& path) {
             return entry.second.paths.contains(path);
           });
  }));
}

NewestSegment NewestSegment::of(Cluster& cluster, const Home& home) {
  NewestSegment newest;
  const auto found = newest_of(local_segments(home.disk->files(), cluster.keys()));
  if (!found) return newest;
  newest.path_ = found->path;
  newest.header_ = found->header;
  newest.bytes_.assign(found->bytes.begin(), found->bytes.end());
  newest.groups_ = whole_groups(cluster.keys(), newest.bytes_);
  return newest;
}

bool NewestSegment::torn(Cluster& cluster, const Home& home) const {
  const auto files = home.disk->files();
  const auto file = files.find(path_);
  if (groups_.empty() || file == files.end() || file->second.size() != bytes_.size()) return false;
  const ByteView now = file->second;
  const std::size_t whole = whole_groups(cluster.keys(), now).size();
  if (whole >= groups_.size()) return false;
  const auto [begin, length] = groups_[whole];
  for (std::uint64_t at = begin; at + kSector <= begin + length; at += kSector) {
    const ByteView before = ByteView(bytes_).subspan(at, kSector);
    const bool written = std::ranges::any_of(before, [](std::uint8_t byte) { return byte != 0; });
    if (written && std::ranges::equal(before, now.subspan(at, kSector))) return true;
  }
  return false;
}

std::string newest_stored(Cluster& cluster, const Home& home, Sequence stored) {
  constexpr Sequence kLast = 3;
  std::vector<std::string> paths;
  for (const LocalSegment& segment : local_segments(home.disk->files(), cluster.keys()))
    if (segment.header.id.sequence <= stored && segment.header.id.sequence + kLast > stored)
      paths.push_back(segment.path);
  return paths.empty() ? "" : paths[cluster.random().below(paths.size())];
}

}  // namespace cumulus
