// The bytes of a bundle file: file header, batches, records. FORMAT.md (one folder up) has the layout, the
// reasons and a worked example. Strict parsers; nothing here does I/O. Pure; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"
#include "tools/miner/store/slice_key.h"

namespace cumulus::bundle {

inline constexpr std::uint64_t kBlock = 4096;  // alignment of batches and of data that is not packed
inline constexpr std::uint64_t kPackedAlign = 64;
inline constexpr std::uint64_t kPackedMax = 60 * 1024;  // longer data gets its own extent
inline constexpr std::size_t kFileHeaderSize = 64;      // in a block of its own
inline constexpr std::size_t kBatchHeaderSize = 64;
inline constexpr std::size_t kRecordSize = 160;
inline constexpr std::size_t kRecordsMax = 4096;
inline constexpr std::size_t kMetaMax = 8 * 1024 * 1024;  // header, records and manifests of one batch
inline constexpr std::uint64_t kBatchMax = 128 * 1024 * 1024;

constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t to) { return (value + to - 1) / to * to; }

// The store's secret: 32 random bytes, in DIR/config, never sent. Every checksum is keyed with it, so that no
// slice's content can pass for a header, whatever a client uploads.
using StoreSecret = std::array<std::uint8_t, 32>;

struct FileHeader {
  std::uint32_t number = 0;
  void encode(const StoreSecret& secret, MutableByteView block) const;  // fills the whole block
  // unsupported for another version or unknown feature bits; corrupt for anything else.
  static Result<FileHeader> decode(const StoreSecret& secret, ByteView block);
};

enum class RecordType : std::uint8_t {
  put = 1,
  remove = 2,  // kills every earlier put of the key that lies before `before`
};

struct Record {
  RecordType type = RecordType::put;
  SliceKey key;
  Digest root{};                      // put
  std::uint32_t manifest_offset = 0;  // put; within the batch
  std::uint32_t manifest_length = 0;
  std::uint64_t data_offset = 0;  // put; within the batch
  std::uint64_t data_length = 0;
  BundlePosition before;  // remove; where the removal was first written when it was carried forward
  BundlePosition victim;  // remove; data of the slice that it killed: its space may be given back
  std::uint64_t victim_length = 0;

  bool operator==(const Record&) const = default;
};

struct Batch {
  BundlePosition at;
  std::uint32_t meta_length = 0;   // header, records, manifests: what the checksum covers
  std::uint64_t total_length = 0;  // a multiple of kBlock; the next batch begins after it
  std::vector<Record> records;
};

// What decoding the first block tells: how much to read for the whole of it.
struct BatchSize {
  std::uint32_t meta_length = 0;
  std::uint64_t total_length = 0;
};
// Absent when there is no batch header for this position (zeros, torn, foreign). `head`: >= kBatchHeaderSize
// bytes.
std::optional<BatchSize> peek_batch(ByteView head, BundlePosition at);
// Checks the checksum over `meta` (exactly meta_length bytes), position, limits and every record. corrupt
// otherwise.
Result<Batch> decode_batch(const StoreSecret& secret, ByteView meta, BundlePosition at);

// Assembles a batch: add() everything, then layout says what to write where.
class BatchBuilder {
 public:
  BatchBuilder(const StoreSecret& secret, BundlePosition at) : secret_(secret), at_(at) {}

  // `data` must stay until finish(); longer than kPackedMax: it is written by the caller at extent_offset().
  void add_put(const SliceKey& key, const Digest& root, ByteView manifest, ByteView data);
  void add_remove(const SliceKey& key, BundlePosition before, BundlePosition victim,
                  std::uint64_t victim_length);

  // An upper bound of total_length before finish().
  std::uint64_t size_estimate() const { return estimate_; }
  std::size_t count() const { return records_.size(); }

  // Lays the batch out and fills `head` (whole blocks: header, records, manifests, packed data).
  const Batch& finish(Buffer& head);

 private:
  struct Source {
    ByteView manifest;
    ByteView data;
  };
  void encode_meta(MutableByteView meta) const;

  const StoreSecret& secret_;
  BundlePosition at_;
  std::vector<Record> records_;
  std::vector<Source> sources_;
  std::uint64_t estimate_ = 2 * kBlock;
  Batch batch_;
};

}  // namespace cumulus::bundle
