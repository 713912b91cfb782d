#include "tools/miner/server/holder_book.h"

#include <algorithm>

#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/digest.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kMagic = 0x31444C4F484D5543;  // "CUMHOLD1"
constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kFileMax = 128 * 1024;

}  // namespace

class HolderBook::Lock {
 public:
  Lock(HolderBook& book, VolumeId volume) : book_(book), volume_(volume) {}
  ~Lock() {
    book_.locked_.erase(volume_);
    book_.unlocked_.notify_all();
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  HolderBook& book_;
  VolumeId volume_;
};

Bytes HolderBook::encode_file(const HolderState& state) {
  Bytes out;
  Encoder to(out);
  to.u64(kMagic);
  to.u16(kVersion);
  to.u64(0);  // incompatible-feature bits
  to.bytes(state.encode());
  const Digest checksum = sha256(out);
  to.bytes(checksum);
  return out;
}

Result<HolderState> HolderBook::decode_file(ByteView bytes) {
  // The checksum first, which every version ends with: a flipped bit is damage, not a newer version.
  constexpr std::size_t kChecksumSize = 32;
  if (bytes.size() < kChecksumSize ||
      !equal(sha256(bytes.first(bytes.size() - kChecksumSize)), bytes.last(kChecksumSize)))
    return fail(ErrorKind::corrupt, "holder file: it does not match its checksum");
  Decoder from(bytes.first(bytes.size() - kChecksumSize));
  if (from.u64() != kMagic) return fail(ErrorKind::corrupt, "holder file: no magic number");
  const std::uint16_t version = from.u16();
  const std::uint64_t features = from.u64();
  if (!from.ok()) return fail(ErrorKind::corrupt, "holder file: short");
  if (version != kVersion || features != 0)
    return fail(
        ErrorKind::unsupported,
        cumulus::format("holder file: version {} with features {:#x} is not known", version, features));
  return HolderState::decode(from.bytes(from.remaining()));
}

Task<void> HolderBook::lock(VolumeId volume) {
  while (locked_.contains(volume)) co_await unlocked_.wait();
  locked_.insert(volume);
}

Task<Result<HolderState>> HolderBook::load(VolumeId volume) {
  if (const auto found = by_volume_.find(volume); found != by_volume_.end()) {
    cached_.splice(cached_.begin(), cached_, found->second);
    co_return cached_.front().second;
  }
  HolderState state;
  CO_TRY(const bool there, files_.exists(path(volume)));
  if (there) {
    CO_TRY(const Bytes bytes, co_await files_.read_file(path(volume), kFileMax));
    auto decoded = decode_file(bytes);
    if (!decoded) co_return fail(decoded.error().within(path(volume)));
    state = *std::move(decoded);
  }
  remember(volume, state);
  co_return state;
}

void HolderBook::remember(VolumeId volume, HolderState state) {
  if (const auto found = by_volume_.find(volume); found != by_volume_.end()) cached_.erase(found->second);
  cached_.emplace_front(volume, std::move(state));
  by_volume_[volume] = cached_.begin();
  if (cached_.size() <= kCachedMax) return;
  by_volume_.erase(cached_.back().first);
  cached_.pop_back();
}

Task<Status> HolderBook::keep(VolumeId volume, HolderState state) {
  const Status kept = co_await files_.replace_file(path(volume), encode_file(state));
  if (kept) {
    remember(volume, std::move(state));
  } else if (const auto found = by_volume_.find(volume); found != by_volume_.end()) {
    // Which of the two the disk holds is not known: look again before the next answer.
    cached_.erase(found->second);
    by_volume_.erase(found);
  }
  co_return kept;
}

Task<Result<HolderAnswer>> HolderBook::promise(BallotClaim claim) {
  co_await lock(claim.volume);
  const Lock held(*this, claim.volume);
  CO_TRY(const HolderState before, co_await load(claim.volume));
  HolderAnswer answer = hold_promise(before, claim);
  if (answer.accepted && answer.state.encode() != before.encode()) {
    CO_TRY_OK(co_await keep(claim.volume, answer.state));
  }
  co_return answer;
}

Task<Result<HolderAnswer>> HolderBook::accept(Superblock record) {
  co_await lock(record.volume);
  const Lock held(*this, record.volume);
  CO_TRY(const HolderState before, co_await load(record.volume));
  HolderAnswer answer = hold_accept(before, record);
  if (answer.accepted && answer.state.encode() != before.encode()) {
    CO_TRY_OK(co_await keep(record.volume, answer.state));
  }
  co_return answer;
}

Task<Result<HolderState>> HolderBook::state(VolumeId volume) {
  co_await lock(volume);
  const Lock held(*this, volume);
  co_return co_await load(volume);
}

Result<std::size_t> HolderBook::count() {
  TRY(const auto names, files_.list(directory_));
  return static_cast<std::size_t>(
      std::ranges::count_if(names, [](const std::string& name) { return name.ends_with(".holder"); }));
}

Task<Result<bool>> HolderBook::destroyed(VolumeId volume) {
  CO_TRY(const HolderState now, co_await state(volume));
  co_return now.accepted&& now.accepted->destroyed;
}

}  // namespace cumulus
