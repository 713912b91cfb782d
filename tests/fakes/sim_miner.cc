#include "tests/fakes/sim_miner.h"

#include <algorithm>

#include "objectstore/base/codec.h"
#include "objectstore/crypto/merkle.h"
#include "objectstore/manifest.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kLeaf = std::uint64_t{1} << Manifest::kLeafLog2;

Bytes cursor_of(const SliceId& slice) {
  Bytes bytes;
  Encoder out(bytes);
  out.u8(static_cast<std::uint8_t>(slice.segment.kind));
  out.u64(slice.segment.epoch);
  out.u64(slice.segment.sequence);
  out.u16(slice.index);
  return bytes;
}

Result<SliceId> slice_of(ByteView cursor) {
  Decoder in(cursor);
  SliceId slice;
  slice.segment.kind = static_cast<SegmentKind>(in.u8());
  slice.segment.epoch = in.u64();
  slice.segment.sequence = in.u64();
  slice.index = in.u16();
  if (!in.done()) return fail(ErrorKind::invalid, "LIST: not a cursor of this miner");
  return slice;
}

}  // namespace

SimMiner::SimMiner(MinerId id, std::uint64_t capacity, Random& random, SimFaultCounts& faults)
    : id_(id), capacity_(capacity), random_(random), faults_(faults) {}

bool SimMiner::happens(unsigned share) { return share != 0 && random_.below(1000) < share; }

Result<SimMiner::Volume*> SimMiner::admit(const VolumeId& volume) {
  if (allowed_ && !allowed_->contains(volume))
    return fail(ErrorKind::denied, "volume " + volume.brief() + " is not allowed on this miner");
  return &volumes_[volume];
}

Status SimMiner::check_room(const Volume& volume, std::uint64_t size) {
  if (read_only_) {
    count(SimFault::read_only);
    return fail(ErrorKind::no_space, "the miner's disk refuses writes");
  }
  if (draining_) return fail(ErrorKind::no_space, "the miner is draining");
  if (used_ + size > capacity_ || volume.used + size > quota_) {
    count(SimFault::full);
    return fail(ErrorKind::no_space, "the miner is full");
  }
  return {};
}

Status SimMiner::put(const VolumeId& volume, const SliceId& slice, ByteView manifest, ByteView data) {
  TRY(Volume * where, admit(volume));
  if (where->holder.accepted && where->holder.accepted->destroyed)
    return fail(ErrorKind::fenced, "the volume was destroyed");
  TRY(const Manifest parsed, Manifest::decode(manifest));
  if (parsed.header.volume != volume || parsed.id() != slice.segment || slice.index >= parsed.k + parsed.m)
    return fail(ErrorKind::invalid, "PUT: the manifest is of another volume or segment");
  const Digest& root = parsed.roots[slice.index];
  if (data.size() != parsed.stored_length(slice.index) || merkle_root(data) != root)
    return fail(ErrorKind::corrupt, "PUT: the bytes are not what the manifest says");
  if (const auto found = where->slices.find(slice); found != where->slices.end()) {
    if (found->second.root != root) return fail(ErrorKind::exists, "PUT: the slice exists with another root");
    if (!equal(found->second.manifest, manifest))
      return fail(ErrorKind::exists, "PUT: the slice exists under another manifest");
    if (intact(found->second)) return {};
    used_ -= found->second.charged;
    where->used -= found->second.charged;
    where->slices.erase(found);
  }
  const std::uint64_t charged = manifest.size() + data.size();
  TRY_OK(check_room(*where, charged));
  Stored stored{Bytes(manifest.begin(), manifest.end()), {}, root, happens(lies_.put_forgotten), charged};
  if (stored.forgotten)
    count(SimFault::put_forgotten);
  else
    stored.data.assign(data.begin(), data.end());
  used_ += charged;
  where->used += charged;
  where->slices.insert_or_assign(slice, std::move(stored));
  acknowledged_.insert({volume, slice});
  return {};
}

bool SimMiner::intact(const Stored& stored) const {
  return !stored.forgotten && merkle_root(stored.data) == stored.root;
}

void SimMiner::alter(Bytes& bytes) {
  if (bytes.empty()) return;
  bytes[random_.below(bytes.size())] ^= static_cast<std::uint8_t>(1 + random_.below(255));
}

Result<SimMiner::ReadOutcome> SimMiner::read(const VolumeId& volume, const SliceId& slice,
                                             std::uint64_t offset, std::uint64_t length, bool with_proof,
                                             bool with_manifest) {
  TRY(Volume * where, admit(volume));
  auto found = where->slices.find(slice);
  if (found == where->slices.end() || found->second.forgotten)
    return fail(ErrorKind::not_found, "the miner has no such slice");
  if (where->slices.size() > 1 && happens(lies_.other_slice)) {
    count(SimFault::other_slice);
    found =
        std::next(where->slices.begin(), static_cast<std::ptrdiff_t>(random_.below(where->slices.size())));
  }
  Bytes whole = found->second.data;
  const bool with_fitting_proof = happens(lies_.wrong_bytes_with_proof);
  if (with_fitting_proof) {
    count(SimFault::wrong_bytes_with_proof);
    for (int i = 0; i < 64; ++i) alter(whole);
  }
  if (length > whole.size() || offset > whole.size() - length)
    return fail(ErrorKind::invalid, "READ: the range lies outside the slice");
  ReadOutcome outcome;
  outcome.offset = offset;
  std::uint64_t end = offset + length;
  if (with_proof) {
    outcome.offset = offset / kLeaf * kLeaf;
    end = std::min<std::uint64_t>((end + kLeaf - 1) / kLeaf * kLeaf, whole.size());
    outcome.proof = merkle_proof(merkle_leaves(whole), outcome.offset / kLeaf,
                                 (end - outcome.offset + kLeaf - 1) / kLeaf);
  }
  outcome.bytes.assign(whole.begin() + static_cast<std::ptrdiff_t>(outcome.offset),
                       whole.begin() + static_cast<std::ptrdiff_t>(end));
  if (happens(lies_.wrong_bytes)) {
    count(SimFault::wrong_bytes);
    alter(outcome.bytes);
  }
  if (with_manifest) outcome.manifest = found->second.manifest;
  return outcome;
}

Result<SliceListPage> SimMiner::list(const VolumeId& volume, const std::optional<Bytes>& from) {
  TRY(Volume * where, admit(volume));
  auto at = where->slices.begin();
  if (from) {
    TRY(const SliceId after, slice_of(*from));
    at = where->slices.upper_bound(after);
  }
  SliceListPage page;
  for (; at != where->slices.end() && page.slices.size() < page_slices_; ++at)
    page.slices.push_back({at->first.index, at->second.manifest});
  if (at != where->slices.end()) page.next = cursor_of(std::prev(at)->first);
  return page;
}

Result<std::vector<std::optional<Digest>>> SimMiner::have(const VolumeId& volume,
                                                          const std::vector<SliceId>& slices) {
  TRY(Volume * where, admit(volume));
  std::vector<std::optional<Digest>> roots;
  for (const SliceId& slice : slices) {
    const auto found = where->slices.find(slice);
    roots.emplace_back();
    if (found != where->slices.end()) roots.back() = found->second.root;
  }
  return roots;
}

Status SimMiner::remove(const VolumeId& volume, const std::vector<SliceId>& slices) {
  TRY(Volume * where, admit(volume));
  for (const SliceId& slice : slices) {
    const auto found = where->slices.find(slice);
    if (found == where->slices.end()) continue;
    used_ -= found->second.charged;
    where->used -= found->second.charged;
    where->slices.erase(found);
  }
  return {};
}

HolderAnswer SimMiner::hold(Volume& volume, HolderAnswer answer) {
  if (happens(lies_.old_state) && !volume.history.empty()) {
    count(SimFault::old_state);
    return {true, volume.history[random_.below(volume.history.size())]};
  }
  if (answer.accepted) {
    volume.history.push_back(volume.holder);
    volume.holder = answer.state;
  }
  return answer;
}

Result<HolderAnswer> SimMiner::promise(const VolumeId& volume, const BallotClaim& claim) {
  TRY(Volume * where, admit(volume));
  if (claim.volume != volume) return fail(ErrorKind::invalid, "PROMISE: the ballot is of another volume");
  HolderAnswer answer = hold_promise(where->holder, claim);
  if (holds_anything_) answer = {true, {claim, where->holder.accepted}};
  return hold(*where, std::move(answer));
}

Result<HolderAnswer> SimMiner::accept(const VolumeId& volume, const Superblock& record) {
  TRY(Volume * where, admit(volume));
  if (record.volume != volume) return fail(ErrorKind::invalid, "ACCEPT: the record is of another volume");
  HolderAnswer answer = hold_accept(where->holder, record);
  if (holds_anything_) answer = {true, {where->holder.promised, record}};
  return hold(*where, std::move(answer));
}

Result<HolderState> SimMiner::superblock(const VolumeId& volume) {
  TRY(Volume * where, admit(volume));
  if (happens(lies_.old_state) && !where->history.empty()) {
    count(SimFault::old_state);
    return where->history[random_.below(where->history.size())];
  }
  return where->holder;
}

Result<SimMiner::ReadOutcome> SimMiner::challenge(const VolumeId& volume, const SliceChallenge& request) {
  TRY(Volume * where, admit(volume));
  const auto found = where->slices.find(request.slice);
  if (found == where->slices.end() || found->second.forgotten)
    return fail(ErrorKind::not_found, "the miner has no such slice");
  const std::uint64_t size = found->second.data.size();
  if (request.leaf > size / kLeaf || request.leaf * kLeaf >= size)
    return fail(ErrorKind::invalid, "CHALLENGE: the slice has no such leaf");
  const std::uint64_t begin = request.leaf * kLeaf;
  return read(volume, request.slice, begin, std::min(kLeaf, size - begin), true, false);
}

Result<MinerStatus> SimMiner::status(const VolumeId& volume) {
  TRY(Volume * where, admit(volume));
  MinerStatus status;
  status.capacity = capacity_;
  status.used = used_;
  status.volume_quota = std::min(quota_, capacity_);
  status.volume_used = where->used;
  status.volume_slices = where->slices.size();
  status.draining = draining_;
  status.read_only = read_only_;
  status.version = "simulated";
  return status;
}

void SimMiner::wipe() {
  volumes_.clear();
  used_ = 0;
}

std::size_t SimMiner::rot(std::size_t most) {
  std::vector<Stored*> candidates;
  for (auto& [id, volume] : volumes_)
    for (auto& [slice, stored] : volume.slices)
      if (!stored.data.empty()) candidates.push_back(&stored);
  std::size_t done = 0;
  for (; done < most && !candidates.empty(); ++done) {
    const std::size_t at = random_.below(candidates.size());
    alter(candidates[at]->data);
    candidates.erase(candidates.begin() + static_cast<std::ptrdiff_t>(at));
  }
  return done;
}

void SimMiner::scrub() {
  for (auto& [id, volume] : volumes_) {
    for (auto at = volume.slices.begin(); at != volume.slices.end();) {
      if (at->second.forgotten || intact(at->second)) {
        ++at;
        continue;
      }
      count(SimFault::rotten);
      used_ -= at->second.charged;
      volume.used -= at->second.charged;
      at = volume.slices.erase(at);
    }
  }
}

std::size_t SimMiner::slice_count(const VolumeId& volume) const {
  const auto found = volumes_.find(volume);
  return found == volumes_.end() ? 0 : found->second.slices.size();
}

bool SimMiner::holds(const VolumeId& volume, const SliceId& slice) const {
  const auto found = volumes_.find(volume);
  if (found == volumes_.end()) return false;
  const auto stored = found->second.slices.find(slice);
  return stored != found->second.slices.end() && intact(stored->second);
}

const HolderState* SimMiner::holder_state(const VolumeId& volume) const {
  const auto found = volumes_.find(volume);
  return found == volumes_.end() ? nullptr : &found->second.holder;
}

void SimMiner::for_each_intact(
    const VolumeId& volume,
    const std::function<void(const SliceId&, ByteView manifest, ByteView data)>& visit,
    Sequence after) const {
  const auto found = volumes_.find(volume);
  if (found == volumes_.end()) return;
  for (const auto& [slice, stored] : found->second.slices)
    if (slice.segment.sequence > after && intact(stored)) visit(slice, stored.manifest, stored.data);
}

}  // namespace cumulus
