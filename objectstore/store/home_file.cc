#include "objectstore/store/home_file.h"

#include <algorithm>

#include "objectstore/ballot_codec.h"
#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/digest.h"

namespace cumulus {
namespace {

constexpr std::uint32_t kMagic = 0x484F4D43;  // "CMOH"
constexpr std::uint16_t kVersion = 1;

}  // namespace

bool HomeRecord::wrote(const Superblock& record) const {
  return std::ranges::any_of(authored, [&](const Authored& mine) {
    return mine.ballot == record.ballot && record.version <= mine.ceiling;
  });
}

bool HomeRecord::rolled_back(const Superblock& record) const { return seen && seen->newer_than(record); }

Ballot HomeRecord::next_ballot(const Ballot& highest, bool take_over, InstanceId instance) const {
  Ballot next;
  next.instance = instance;
  if (take_over || ballot.epoch == 0) {
    next.epoch = std::max(highest.epoch, ballot.epoch) + 1;
    next.open_number = 1;
    return next;
  }
  // The epoch is kept: a higher one that somebody else claimed must win over this home, not be outbid by it.
  next.epoch = ballot.epoch;
  next.open_number = ballot.open_number + 1;
  if (highest.epoch == next.epoch) next.open_number = std::max(next.open_number, highest.open_number + 1);
  return next;
}

void HomeRecord::note_accepted(const Superblock& record) {
  std::erase_if(authored, [&](const Authored& mine) { return mine.ballot < record.ballot; });
  seen = record;
}

void HomeRecord::reserve(const Ballot& under, std::uint64_t ceiling) {
  const auto found = std::ranges::find(authored, under, &Authored::ballot);
  if (found != authored.end()) {
    found->ceiling = std::max(found->ceiling, ceiling);
    return;
  }
  // The first is the last one known to a quorum and must stay; of the ones never heard of again, the oldest
  // goes.
  if (authored.size() == kAuthoredMax) authored.erase(authored.begin() + 1);
  authored.push_back({under, ceiling});
}

Bytes HomeRecord::encode() const {
  Bytes bytes;
  Encoder out(bytes);
  out.u32(kMagic);
  out.u16(kVersion);
  out.u16(0);
  out.u64(0);  // incompatible-feature bits
  out.bytes(volume.view());
  put_ballot(out, ballot);
  out.u8(static_cast<std::uint8_t>(authored.size()));
  for (const Authored& mine : authored) {
    put_ballot(out, mine.ballot);
    out.u64(mine.ceiling);
  }
  out.block(seen ? seen->encode() : Bytes{});
  const Digest checksum = sha256(bytes);
  out.bytes(checksum);
  return bytes;
}

Result<HomeRecord> HomeRecord::decode(ByteView bytes) {
  // The checksum first, which every version ends with: a flipped bit is damage, not a newer version.
  constexpr std::size_t kChecksumSize = 32;
  if (bytes.size() < kChecksumSize ||
      !equal(sha256(bytes.first(bytes.size() - kChecksumSize)), bytes.last(kChecksumSize)))
    return fail(
        ErrorKind::corrupt,
        "home file: damaged, its checksum does not match: put back a copy of it, or move the volume's "
        "folder away and use 'cumulus volume recover'");
  Decoder in(bytes.first(bytes.size() - kChecksumSize));
  if (in.u32() != kMagic) return fail(ErrorKind::corrupt, "home file: no magic number");
  if (const auto version = in.u16(); version != kVersion)
    return fail(ErrorKind::unsupported,
                format("home file: format version {} is not known; a newer Cumulus wrote it", version));
  if (in.u16() != 0) return fail(ErrorKind::corrupt, "home file: a reserved field is set");
  if (const auto features = in.u64(); features != 0)
    return fail(ErrorKind::unsupported, format("home file: features {:#x} are not known", features));
  HomeRecord record;
  record.volume.bytes = in.array<32>();
  record.ballot = take_ballot(in);
  const std::uint8_t count = in.u8();
  if (count > kAuthoredMax) in.mark_bad();
  for (unsigned i = 0; i < count && in.ok(); ++i) {
    Authored mine;
    mine.ballot = take_ballot(in);
    mine.ceiling = in.u64();
    record.authored.push_back(mine);
  }
  const ByteView seen = in.block(Superblock::kEncodedSizeMax);
  if (!in.done()) return fail(ErrorKind::corrupt, "home file: short, or with bytes after its end");
  if (!seen.empty()) {
    TRY(record.seen, Superblock::decode(seen));
    if (record.seen->volume != record.volume)
      return fail(ErrorKind::corrupt, "home file: its record is of another volume");
  }
  return record;
}

HomeFile::HomeFile(FileSystem& disk, std::string directory)
    : disk_(disk), path_(std::move(directory) + "/home") {}

Task<Status> HomeFile::load(VolumeId volume) {
  record_ = HomeRecord();
  record_.volume = volume;
  auto content = co_await disk_.read_file(path_, HomeRecord::kEncodedSizeMax);
  if (!content) {
    if (content.error().kind() == ErrorKind::not_found) co_return Status();
    co_return fail(content.error().within("read " + path_));
  }
  auto record = HomeRecord::decode(*content);
  if (!record) co_return fail(record.error().within(path_));
  if (record->volume != volume)
    co_return fail(ErrorKind::invalid, path_ + " belongs to volume " + record->volume.brief() + ", not to " +
                                           volume.brief() + ": use another directory");
  record_ = *std::move(record);
  co_return Status();
}

Task<Status> HomeFile::save(HomeRecord next) {
  const Status saved = co_await disk_.replace_file(path_, next.encode());
  if (!saved) co_return fail(saved.error().within("write " + path_));
  record_ = std::move(next);
  co_return Status();
}

}  // namespace cumulus
