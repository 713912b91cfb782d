#include "objectstore/store/segment_audit.h"

#include <algorithm>
#include <map>

#include "objectstore/base/format.h"
#include "objectstore/crypto/merkle.h"
#include "objectstore/erasure/geometry.h"
#include "objectstore/store/lost_slices.h"

namespace cumulus {
namespace {

constexpr std::size_t kPlacedPage = 1024;
constexpr std::size_t kBuffersKept = 32;
constexpr std::size_t kHaveBatch = 512;  // slices asked about in one request

}  // namespace

std::string_view to_string(SliceState state) {
  switch (state) {
    case SliceState::good:
      return "good";
    case SliceState::missing:
      return "missing";
    case SliceState::wrong:
      return "wrong";
    case SliceState::unreached:
      return "not reached";
  }
  return "unknown";
}

Task<Result<std::vector<change::Placed>>> placed_segments(Index& index) {
  std::vector<change::Placed> all;
  for (const SegmentKind kind :
       {SegmentKind::log, SegmentKind::bulk, SegmentKind::index, SegmentKind::manifest}) {
    Sequence after = 0;
    for (;;) {
      CO_TRY(std::vector<PlacedSegment> page, co_await index.placed_list(kind, after, kPlacedPage));
      if (page.empty()) break;
      after = page.back().placed.segment.sequence;
      for (PlacedSegment& segment : page) all.push_back(std::move(segment.placed));
    }
  }
  co_return all;
}

std::size_t AuditedSegment::count(SliceState state) const {
  return static_cast<std::size_t>(std::ranges::count(slices, state, &AuditedSlice::state));
}

SegmentAudit::SegmentAudit(Runtime& runtime, SliceTransport& transport, VolumeId volume,
                           Duration request_deadline)
    : runtime_(runtime), transport_(transport), volume_(volume), request_deadline_(request_deadline) {}

std::shared_ptr<Buffer> SegmentAudit::slice_buffer(std::size_t length) {
  if (!slices_ || slices_->buffer_size() < length) slices_.emplace(length, kBuffersKept);
  return slices_->acquire();
}

// A manifest is signed by the owner, but two homes may have written one identity: it must be the one that was
// placed.
Result<Manifest> SegmentAudit::fitting(ByteView encoded, const change::Placed& placed) const {
  TRY(Manifest manifest, Manifest::decode(encoded));
  const SliceGeometry geometry = SliceGeometry::of(placed.length, placed.k, placed.m);
  if (manifest.header.volume != volume_ || manifest.id() != placed.segment ||
      manifest.header.salt != placed.salt || manifest.k != placed.k || manifest.m != placed.m ||
      manifest.segment_length != placed.length || manifest.slice_length != geometry.slice_length)
    return fail(ErrorKind::corrupt, "the manifest is another segment's");
  return manifest;
}

Task<AuditedSegment> SegmentAudit::examine(change::Placed& placed) {
  TriedHolders tried;
  std::vector<std::uint16_t> lost;
  for (const std::uint16_t i : slice_indices(placed.miners.size()))
    if (!is_listed(transport_, placed.miners[i])) lost.push_back(i);
  co_await find_lost_slices(runtime_, transport_, placed, std::move(lost), tried,
                            runtime_.now() + request_deadline_);
  AuditedSegment audited = co_await examine_named(placed);
  while (audited.count(SliceState::good) < placed.k) {
    std::vector<std::uint16_t> bad;
    for (const std::uint16_t i : slice_indices(audited.slices.size()))
      if (audited.slices[i].state != SliceState::good) bad.push_back(i);
    change::Placed other = placed;
    const bool learned = co_await find_lost_slices(runtime_, transport_, other, std::move(bad), tried,
                                                   runtime_.now() + request_deadline_);
    if (!learned) break;
    AuditedSegment elsewhere;
    elsewhere.manifest = audited.manifest;
    elsewhere.slices.resize(placed.miners.size());
    TaskGroup reads(runtime_);
    for (const std::uint16_t i : slice_indices(placed.miners.size())) {
      if (other.miners[i] == placed.miners[i]) continue;
      tried.insert({i, other.miners[i]});
      reads.spawn([&, i]() -> Task<void> { co_await read_slice(other, i, elsewhere); });
    }
    co_await reads.join();
    // Of the others only what is good counts: they need not have it.
    audited.manifest = elsewhere.manifest;
    for (const std::uint16_t i : slice_indices(placed.miners.size())) {
      if (elsewhere.slices[i].state != SliceState::good) continue;
      audited.slices[i] = std::move(elsewhere.slices[i]);
      placed.miners[i] = other.miners[i];
    }
  }
  co_return audited;
}

Task<AuditedSegment> SegmentAudit::examine_named(const change::Placed& placed) {
  AuditedSegment audited;
  audited.slices.resize(placed.miners.size());
  TaskGroup reads(runtime_);
  for (const std::uint16_t i : slice_indices(placed.miners.size()))
    reads.spawn([this, &placed, &audited, i]() -> Task<void> { co_await read_slice(placed, i, audited); });
  co_await reads.join();
  co_return audited;
}

Task<SliceState> SegmentAudit::examine_slice(change::Placed placed, std::uint16_t index) {
  AuditedSegment audited;
  audited.slices.resize(placed.miners.size());
  co_await read_slice(placed, index, audited);
  co_return audited.slices[index].state;
}

Task<void> SegmentAudit::read_slice(change::Placed placed, std::uint16_t index, AuditedSegment& into) {
  AuditedSlice& slice = into.slices[index];
  const MinerId miner = placed.miners[index];
  const std::uint64_t length = SliceGeometry::of(placed.length, placed.k, placed.m).stored_length(index);
  std::shared_ptr<Buffer> buffer = slice_buffer(std::max<std::uint64_t>(1, length));
  SliceRead request;
  request.slice = {placed.segment, index};
  request.length = length;
  request.with_manifest = true;
  request.into = buffer->view(0, length);
  request.owner = buffer;
  const TimePoint deadline = runtime_.now() + request_deadline_;
  auto answer = co_await transport_.read(miner, std::move(request), deadline);
  if (!answer) {
    const ErrorKind kind = answer.error().kind();
    slice.state = kind == ErrorKind::not_found ? SliceState::missing
                  : kind == ErrorKind::corrupt ? SliceState::wrong
                                               : SliceState::unreached;
    slice.detail = answer.error().message();
    co_return;
  }
  slice.state = SliceState::wrong;
  const auto checked = co_await runtime_.offload([&]() -> Result<Manifest> {
    TRY(Manifest manifest, fitting(answer->manifest, placed));
    if (merkle_root(buffer->view(0, length)) != manifest.roots[index])
      return fail(ErrorKind::corrupt, "its bytes do not match the signed manifest");
    return manifest;
  });
  if (!checked) {
    slice.detail = checked.error().message();
    co_return;
  }
  // Two manifests that both fit differ in their roots only if the owner signed two contents under one salt.
  if (into.manifest && into.manifest->roots != checked->roots) {
    slice.detail = "its signed manifest differs from the other miners'";
    co_return;
  }
  if (!into.manifest) into.manifest = *checked;
  slice.state = SliceState::good;
  slice.bytes = buffer->view(0, length);
  slice.owner = std::move(buffer);
}

Task<std::vector<std::uint32_t>> SegmentAudit::count_missing(std::vector<change::Placed> segments) {
  struct Asked {
    std::vector<SliceId> slices;
    std::vector<std::size_t> segments;  // whose slice it is
  };
  std::vector<std::uint32_t> missing(segments.size(), 0);
  std::map<MinerId, std::vector<Asked>> batches;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    for (const std::uint16_t i : slice_indices(segments[s].miners.size())) {
      auto& list = batches[segments[s].miners[i]];
      if (list.empty() || list.back().slices.size() == kHaveBatch) list.emplace_back();
      list.back().slices.push_back({segments[s].segment, i});
      list.back().segments.push_back(s);
    }
  }
  TaskGroup asks(runtime_);
  for (const auto& entry : batches) {
    asks.spawn([this, &missing, &entry]() -> Task<void> {
      bool silent = false;
      for (const Asked& asked : entry.second) {
        Result<std::vector<std::optional<Digest>>> have = fail(ErrorKind::unavailable, "it did not answer");
        const TimePoint deadline = runtime_.now() + request_deadline_;
        if (!silent) have = co_await transport_.have(entry.first, asked.slices, deadline);
        silent = silent || (!have && have.error().kind() == ErrorKind::unavailable);
        for (std::size_t i = 0; i < asked.slices.size(); ++i)
          if (!have || have->size() != asked.slices.size() || !(*have)[i]) ++missing[asked.segments[i]];
      }
    });
  }
  co_await asks.join();
  co_return missing;
}

}  // namespace cumulus
