// The miner's files: bundle headers, batches, config, allow list, holder files. Whatever bytes come, they are
// refused, or what was read lies within bounds and comes back the same when written again. Checksums are made
// right first, so that the parsers behind them are reached. The first byte chooses the parser.
#include <algorithm>
#include <cstring>

#include "objectstore/base/check.h"
#include "objectstore/crypto/digest.h"
#include "tests/fakes/sample_formats.h"
#include "tools/miner/miner_directory.h"
#include "tools/miner/server/allow_list.h"
#include "tools/miner/server/holder_book.h"
#include "tools/miner/store/bundle_format.h"

namespace cumulus {
namespace {

constexpr bundle::StoreSecret kSecret{1, 2, 3};
constexpr std::size_t kSumAt = 8;
constexpr std::size_t kSumSize = 16;

// The keyed checksum over what follows it, as FORMAT.md says.
Bytes summed(ByteView input, std::size_t length) {
  Bytes bytes(input.begin(), input.end());
  if (length < kSumAt + kSumSize || bytes.size() < length) return bytes;
  Sha256 hash;
  hash.update(kSecret);
  hash.update(ByteView(bytes).subspan(kSumAt + kSumSize, length - kSumAt - kSumSize));
  const Digest sum = hash.finish();
  std::memcpy(bytes.data() + kSumAt, sum.data(), kSumSize);
  return bytes;
}

void try_header(ByteView input) {
  const Bytes bytes = summed(input, bundle::kFileHeaderSize);
  const auto header = bundle::FileHeader::decode(kSecret, bytes);
  if (!header) return;
  Buffer again(bundle::kBlock);
  header->encode(kSecret, again.view());
  CHECK(bundle::FileHeader::decode(kSecret, again.view())->number == header->number);
}

void try_batch(ByteView input) {
  constexpr std::size_t kNumberAt = 32;
  constexpr std::size_t kOffsetAt = 40;
  if (input.size() < bundle::kBatchHeaderSize) return;
  const Bytes bytes = summed(input, input.size());
  BundlePosition at;
  std::memcpy(&at.bundle, bytes.data() + kNumberAt, sizeof at.bundle);
  std::memcpy(&at.offset, bytes.data() + kOffsetAt, sizeof at.offset);
  const auto batch = bundle::decode_batch(kSecret, bytes, at);
  if (!batch) return;
  CHECK(batch->meta_length == bytes.size() && !batch->records.empty());
  for (const auto& record : batch->records) {
    if (record.type != bundle::RecordType::put) continue;
    CHECK(std::uint64_t{record.manifest_offset} + record.manifest_length <= bytes.size());
    CHECK(record.data_length <= batch->total_length &&
          record.data_offset <= batch->total_length - record.data_length);
  }
}

std::string_view text_in(ByteView input) { return text_of(input); }

void try_config(ByteView input) {
  const auto config = MinerConfig::parse(text_in(input));
  if (!config) return;
  const std::string printed = config->print();
  const auto again = MinerConfig::parse(printed);
  CHECK(again && again->print() == printed && again->secret == config->secret);
}

void try_allow(ByteView input) {
  const auto quotas = AllowList::parse(text_in(input));
  if (!quotas) return;
  const auto again = AllowList::parse(AllowList::print(*quotas));
  CHECK(again && *again == *quotas);
}

void try_holder(ByteView input) {
  Bytes bytes(input.begin(), input.end());
  if (bytes.size() > sizeof(Digest)) {
    const std::size_t digest_at = bytes.size() - sizeof(Digest);
    const Digest sum = sha256(ByteView(bytes).first(digest_at));
    std::ranges::copy(sum, bytes.begin() + static_cast<std::ptrdiff_t>(digest_at));
  }
  const auto state = HolderBook::decode_file(bytes);
  if (state) CHECK(HolderBook::encode_file(*state) == bytes);
}

using Parser = void (*)(ByteView);
constexpr Parser kParsers[] = {try_header, try_batch, try_config, try_allow, try_holder};

std::vector<std::uint8_t> seed(std::uint8_t which, ByteView bytes) {
  std::vector<std::uint8_t> input{which};
  input.insert(input.end(), bytes.begin(), bytes.end());
  return input;
}

Bytes sample_batch() {
  const Bytes manifest(200, 3);
  Bytes data(300, 4);
  bundle::BatchBuilder builder(kSecret, {3, 8192});
  const SliceKey key{sample_volume(), {{SegmentKind::log, 1, 7}, 2}};
  builder.add_put(key, Digest{}, manifest, data);
  builder.add_remove(key, {3, 8192}, {2, 4096}, 300);
  Buffer head;
  const bundle::Batch& batch = builder.finish(head);
  return Bytes(head.data(), head.data() + batch.meta_length);
}

}  // namespace
}  // namespace cumulus

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cumulus;
  if (size > 0) kParsers[data[0] % std::size(kParsers)]({data + 1, size - 1});
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds();
std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  using namespace cumulus;
  Buffer block(bundle::kBlock);
  bundle::FileHeader header;
  header.number = 7;
  header.encode(kSecret, block.view());
  const Bytes batch = sample_batch();
  CHECK(bundle::decode_batch(kSecret, batch, {3, 8192}));  // the seed reaches the records
  MinerConfig config;
  config.capacity = 1 << 30;
  config.domain = "rack 1";
  const std::string printed = config.print();
  std::map<VolumeId, std::uint64_t> quotas;
  quotas[sample_volume()] = 1 << 20;
  const std::string allowed = AllowList::print(quotas);
  HolderState state;
  state.promised = sample_claim();
  state.accepted = sample_superblock();
  return {seed(0, block.view(0, bundle::kFileHeaderSize)), seed(1, batch), seed(2, view_of(printed)),
          seed(3, view_of(allowed)), seed(4, HolderBook::encode_file(state))};
}
