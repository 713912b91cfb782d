#include "objectstore/store/sealed_label.h"

#include <algorithm>
#include <bit>
#include <ctime>

#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/aead.h"
#include "objectstore/crypto/key_tree.h"

namespace cumulus {
namespace {

constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kNonceSize = std::tuple_size_v<Nonce>;
constexpr std::size_t kTextMax = 255;
constexpr std::size_t kMinersMax = 1024;
constexpr double kWeightMax = 1e9;
constexpr std::string_view kMinersLabel = "cumulus miners v1";
constexpr std::string_view kWriterLabel = "cumulus writer v1";

Bytes seal(const KeyTree& keys, Random& random, std::string_view label, ByteView plain) {
  Bytes sealed(kNonceSize + plain.size() + kAeadTagSize);
  Nonce nonce{};
  random.fill(nonce);
  copy_bytes(nonce, sealed.data());
  AeadKey(keys.label_key()).seal(nonce, view_of(label), plain, MutableByteView(sealed).subspan(kNonceSize));
  return sealed;
}

Result<Bytes> open(const KeyTree& keys, std::string_view label, ByteView sealed) {
  const auto refused = fail(ErrorKind::corrupt, format("'{}' in the superblock does not open", label));
  if (sealed.size() < kNonceSize + kAeadTagSize) return refused;
  Nonce nonce{};
  copy_bytes(sealed.first(kNonceSize), nonce.data());
  Bytes plain(sealed.size() - kNonceSize - kAeadTagSize);
  if (!AeadKey(keys.label_key()).open(nonce, view_of(label), sealed.subspan(kNonceSize), plain))
    return refused;
  return plain;
}

}  // namespace

Bytes encode_miners(const std::vector<MinerEntry>& miners) {
  Bytes plain;
  Encoder out(plain);
  out.u16(kVersion);
  out.varint(miners.size());
  for (const MinerEntry& miner : miners) {
    out.bytes(miner.id.view());
    out.text(miner.address);
    out.text(miner.domain);
    out.u64(miner.capacity);
    out.u64(std::bit_cast<std::uint64_t>(miner.weight));
  }
  return plain;
}

Result<std::vector<MinerEntry>> decode_miners(ByteView plain) {
  Decoder in(plain);
  if (const auto version = in.u16(); in.ok() && version != kVersion)
    return fail(ErrorKind::unsupported,
                format("miner list: format version {} is not known; a newer Cumulus wrote it", version));
  const std::uint64_t count = in.varint_max(kMinersMax);
  std::vector<MinerEntry> miners;
  for (std::uint64_t i = 0; i < count && in.ok(); ++i) {
    MinerEntry miner;
    miner.id.bytes = in.array<32>();
    miner.address = in.text(kTextMax);
    miner.domain = in.text(kTextMax);
    miner.capacity = in.u64();
    miner.weight = std::bit_cast<double>(in.u64());
    // Also refuses what is not a number.
    if (!(miner.weight >= 0 && miner.weight <= kWeightMax)) in.mark_bad();
    miners.push_back(std::move(miner));
  }
  if (!in.done()) return fail(ErrorKind::corrupt, "miner list: it does not parse");
  return miners;
}

Bytes encode_writer(const WriterLabel& label) {
  Bytes plain;
  Encoder out(plain);
  out.u16(kVersion);
  out.text(std::string_view(label.writer).substr(0, kTextMax));
  out.u64(label.opened_at);
  return plain;
}

Result<WriterLabel> decode_writer(ByteView plain) {
  Decoder in(plain);
  if (const auto version = in.u16(); in.ok() && version != kVersion)
    return fail(ErrorKind::unsupported, format("writer label: format version {} is not known", version));
  WriterLabel label;
  label.writer = in.text(kTextMax);
  label.opened_at = in.u64();
  if (!in.done()) return fail(ErrorKind::corrupt, "writer label: it does not parse");
  return label;
}

Bytes seal_miners(const KeyTree& keys, Random& random, const std::vector<MinerEntry>& miners) {
  return seal(keys, random, kMinersLabel, encode_miners(miners));
}

Result<std::vector<MinerEntry>> open_miners(const KeyTree& keys, ByteView sealed) {
  TRY(const Bytes plain, open(keys, kMinersLabel, sealed));
  return decode_miners(plain);
}

Bytes seal_writer(const KeyTree& keys, Random& random, const WriterLabel& label) {
  return seal(keys, random, kWriterLabel, encode_writer(label));
}

Result<WriterLabel> open_writer(const KeyTree& keys, ByteView sealed) {
  TRY(const Bytes plain, open(keys, kWriterLabel, sealed));
  return decode_writer(plain);
}

std::string describe_writer(const KeyTree& keys, const Superblock& record) {
  const auto label = open_writer(keys, record.sealed_writer);
  if (!label) return "an unknown writer";
  const auto seconds = static_cast<std::time_t>(label->opened_at / 1'000'000'000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  return format("{} since {:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC", label->writer, parts.tm_year + 1900,
                parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

}  // namespace cumulus
