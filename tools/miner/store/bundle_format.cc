#include "tools/miner/store/bundle_format.h"

#include <cstring>

#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/digest.h"

namespace cumulus::bundle {
namespace {

constexpr std::uint64_t kFileMagic = 0x314C444E424D5543;   // "CUMBNDL1"
constexpr std::uint64_t kBatchMagic = 0x31484354424D5543;  // "CUMBTCH1"
constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kSumSize = 16;
constexpr std::size_t kSummedFrom = 8 + kSumSize;  // magic and checksum come first

// SHA-256(secret, bytes), cut to 16 bytes: a checksum that only this store can make.
std::array<std::uint8_t, kSumSize> keyed_sum(const StoreSecret& secret, ByteView bytes) {
  Sha256 hash;
  hash.update(secret);
  hash.update(bytes);
  const Digest digest = hash.finish();
  std::array<std::uint8_t, kSumSize> sum;
  std::memcpy(sum.data(), digest.data(), kSumSize);
  return sum;
}

void seal(const StoreSecret& secret, std::uint64_t magic, MutableByteView bytes) {
  std::memcpy(bytes.data(), &magic, sizeof magic);
  const auto sum = keyed_sum(secret, bytes.subspan(kSummedFrom));
  std::memcpy(bytes.data() + 8, sum.data(), sum.size());
}

bool sum_holds(const StoreSecret& secret, ByteView bytes) {
  return equal(bytes.subspan(8, kSumSize), keyed_sum(secret, bytes.subspan(kSummedFrom)));
}

void encode_record(Bytes& out, const Record& record) {
  Encoder to(out);
  to.u8(static_cast<std::uint8_t>(record.type));
  to.u8(static_cast<std::uint8_t>(record.key.slice.segment.kind));
  to.u16(record.key.slice.index);
  to.u32(record.manifest_offset);
  to.u32(record.manifest_length);
  to.u32(record.before.bundle);
  to.u64(record.before.offset);
  to.u64(record.key.slice.segment.epoch);
  to.u64(record.key.slice.segment.sequence);
  to.u64(record.data_offset);
  to.u64(record.data_length);
  to.u64(record.victim.offset);
  to.u64(record.victim_length);
  to.u32(record.victim.bundle);
  to.zeros(20);
  to.bytes(record.key.volume.view());
  to.bytes(record.root);
}

Record decode_record(Decoder& from) {
  Record record;
  record.type = static_cast<RecordType>(from.u8());
  record.key.slice.segment.kind = static_cast<SegmentKind>(from.u8());
  record.key.slice.index = from.u16();
  record.manifest_offset = from.u32();
  record.manifest_length = from.u32();
  record.before.bundle = from.u32();
  record.before.offset = from.u64();
  record.key.slice.segment.epoch = from.u64();
  record.key.slice.segment.sequence = from.u64();
  record.data_offset = from.u64();
  record.data_length = from.u64();
  record.victim.offset = from.u64();
  record.victim_length = from.u64();
  record.victim.bundle = from.u32();
  from.bytes(20);
  record.key.volume.bytes = from.array<32>();
  record.root = from.array<32>();
  return record;
}

bool record_fits(const Record& record, const Batch& batch) {
  const auto kind = static_cast<std::uint8_t>(record.key.slice.segment.kind);
  if (kind < 1 || kind > 4) return false;
  if (record.type == RecordType::remove) return record.manifest_length == 0 && record.data_length == 0;
  if (record.type != RecordType::put) return false;
  const std::uint64_t manifest_end = std::uint64_t{record.manifest_offset} + record.manifest_length;
  return manifest_end <= batch.meta_length && record.data_length <= batch.total_length &&
         record.data_offset <= batch.total_length - record.data_length;
}

}  // namespace

void FileHeader::encode(const StoreSecret& secret, MutableByteView block) const {
  CHECK(block.size() >= kFileHeaderSize);
  std::memset(block.data(), 0, block.size());
  Bytes out;
  Encoder to(out);
  to.zeros(kSummedFrom);
  to.u16(kVersion);
  to.u16(0);
  to.u32(number);
  to.u64(0);  // incompatible-feature bits
  to.zeros(kFileHeaderSize - to.size());
  seal(secret, kFileMagic, out);
  std::memcpy(block.data(), out.data(), out.size());
}

Result<FileHeader> FileHeader::decode(const StoreSecret& secret, ByteView block) {
  Decoder from(block);
  const std::uint64_t magic = from.u64();
  from.bytes(kSumSize);
  const std::uint16_t version = from.u16();
  from.u16();
  FileHeader header;
  header.number = from.u32();
  const std::uint64_t features = from.u64();
  from.bytes(kFileHeaderSize - kSummedFrom - 16);
  if (!from.ok() || magic != kFileMagic) return fail(ErrorKind::corrupt, "not a bundle file");
  if (!sum_holds(secret, block.first(kFileHeaderSize)))
    return fail(ErrorKind::corrupt,
                "the bundle's header does not match its checksum (or is another store's)");
  if (version != kVersion || features != 0)
    return fail(ErrorKind::unsupported,
                cumulus::format("bundle version {} with features {:#x} is newer than this program", version,
                                features));
  return header;
}

std::optional<BatchSize> peek_batch(ByteView head, BundlePosition at) {
  Decoder from(head);
  const std::uint64_t magic = from.u64();
  from.bytes(kSumSize);
  const std::uint16_t version = from.u16();
  from.u16();
  const std::uint32_t records = from.u32();
  BatchSize size;
  const std::uint32_t number = from.u32();
  size.meta_length = from.u32();
  const std::uint64_t offset = from.u64();
  size.total_length = from.u64();
  const bool sane = from.ok() && magic == kBatchMagic && version == kVersion && number == at.bundle &&
                    offset == at.offset && records >= 1 && records <= kRecordsMax &&
                    size.meta_length >= kBatchHeaderSize + records * kRecordSize &&
                    size.meta_length <= kMetaMax && size.total_length >= size.meta_length &&
                    size.total_length % kBlock == 0 && size.total_length <= kBatchMax;
  if (!sane) return std::nullopt;
  return size;
}

Result<Batch> decode_batch(const StoreSecret& secret, ByteView meta, BundlePosition at) {
  const auto size = peek_batch(meta, at);
  if (!size || size->meta_length != meta.size()) return fail(ErrorKind::corrupt, "no batch header");
  if (!sum_holds(secret, meta)) return fail(ErrorKind::corrupt, "the batch does not match its checksum");
  Batch batch{.at = at, .meta_length = size->meta_length, .total_length = size->total_length, .records = {}};
  Decoder from(meta);
  from.bytes(kSummedFrom + 4);
  const std::uint32_t count = from.u32();
  from.bytes(kBatchHeaderSize - kSummedFrom - 8);
  batch.records.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    batch.records.push_back(decode_record(from));
    if (!from.ok() || !record_fits(batch.records.back(), batch))
      return fail(ErrorKind::corrupt, "a record of the batch is out of bounds");
  }
  return batch;
}

void BatchBuilder::add_put(const SliceKey& key, const Digest& root, ByteView manifest, ByteView data) {
  Record record;
  record.type = RecordType::put;
  record.key = key;
  record.root = root;
  record.manifest_length = static_cast<std::uint32_t>(manifest.size());
  record.data_length = data.size();
  records_.push_back(record);
  sources_.push_back({manifest, data});
  estimate_ += kRecordSize + manifest.size() +
               round_up(data.size(), data.size() <= kPackedMax ? kPackedAlign : kBlock);
}

void BatchBuilder::add_remove(const SliceKey& key, BundlePosition before, BundlePosition victim,
                              std::uint64_t victim_length) {
  Record record;
  record.type = RecordType::remove;
  record.key = key;
  record.before = before;
  record.victim = victim;
  record.victim_length = victim_length;
  records_.push_back(record);
  sources_.push_back({});
  estimate_ += kRecordSize;
}

const Batch& BatchBuilder::finish(Buffer& head) {
  CHECK(!records_.empty() && records_.size() <= kRecordsMax);
  std::uint64_t end = kBatchHeaderSize + records_.size() * kRecordSize;
  for (auto& record : records_) {
    record.manifest_offset = record.type == RecordType::put ? static_cast<std::uint32_t>(end) : 0;
    end += record.manifest_length;
  }
  CHECK(end <= kMetaMax);
  batch_.at = at_;
  batch_.meta_length = static_cast<std::uint32_t>(end);
  for (auto& record : records_) {
    if (record.type != RecordType::put || record.data_length > kPackedMax) continue;
    record.data_offset = end = round_up(end, kPackedAlign);
    end += record.data_length;
  }
  const std::uint64_t head_length = end = round_up(end, kBlock);
  for (auto& record : records_) {
    if (record.type != RecordType::put || record.data_length <= kPackedMax) continue;
    record.data_offset = end;
    end = round_up(end + record.data_length, kBlock);
  }
  CHECK(end <= kBatchMax);
  batch_.total_length = end;
  batch_.records = records_;

  head = Buffer(head_length);
  encode_meta(head.view());
  return batch_;
}

void BatchBuilder::encode_meta(MutableByteView head) const {
  std::memset(head.data(), 0, head.size());
  Bytes out;
  out.reserve(batch_.meta_length);
  Encoder to(out);
  to.zeros(kSummedFrom);
  to.u16(kVersion);
  to.u16(0);
  to.u32(static_cast<std::uint32_t>(records_.size()));
  to.u32(batch_.at.bundle);
  to.u32(batch_.meta_length);
  to.u64(batch_.at.offset);
  to.u64(batch_.total_length);
  to.zeros(kBatchHeaderSize - to.size());
  for (const auto& record : records_) encode_record(out, record);
  for (const auto& source : sources_) to.bytes(source.manifest);
  seal(secret_, kBatchMagic, out);
  std::memcpy(head.data(), out.data(), out.size());
  for (std::size_t i = 0; i < records_.size(); ++i) {
    if (records_[i].type != RecordType::put || sources_[i].data.empty() ||
        records_[i].data_length > kPackedMax)
      continue;
    std::memcpy(head.data() + records_[i].data_offset, sources_[i].data.data(), sources_[i].data.size());
  }
}

}  // namespace cumulus::bundle
