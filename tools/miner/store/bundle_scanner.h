// BundleScanner: reads the batches of one bundle in order, for replay and for rewriting. Where no batch
// begins (a torn tail, rot, the zeros of an allocation) it steps on block by block: the checksums are keyed,
// so nothing but this store's own batches can be found, and none behind a damaged one is lost. Reactor
// thread.
#pragma once

#include <optional>

#include "tools/miner/store/bundle_files.h"
#include "tools/miner/store/bundle_format.h"

namespace cumulus {

class BundleScanner {
 public:
  // `from`: where a batch begins. `end`: the file's size or less.
  BundleScanner(BundleFiles& files, const bundle::StoreSecret& secret, BundlePosition from, std::uint64_t end)
      : files_(files), secret_(secret), at_(from), end_(end) {}

  struct Found {
    bundle::Batch batch;
    Bytes meta;  // header, records, manifests

    ByteView manifest(const bundle::Record& record) const {
      return ByteView(meta).subspan(record.manifest_offset, record.manifest_length);
    }
  };
  // The next whole batch (its data is not looked at); nothing at the end. io when the disk does not answer.
  Task<Result<std::optional<Found>>> next();
  // Where the last batch found ends.
  std::uint64_t good_end() const { return good_end_; }
  // Bytes before the last batch found that belong to none and are not zero: damage.
  std::uint64_t skipped() const { return skipped_; }

 private:
  static constexpr std::size_t kWindow = 256 * 1024;
  static constexpr std::size_t kFirstRead = 16 * 1024;

  // At least `length` bytes at the current offset, or what is left; empty at the end.
  Task<Result<ByteView>> peek(std::size_t length);
  Task<Result<std::optional<Found>>> try_here();

  BundleFiles& files_;
  const bundle::StoreSecret& secret_;
  BundlePosition at_;
  std::uint64_t end_;
  std::uint64_t good_end_ = 0;
  std::uint64_t skipped_ = 0;
  std::uint64_t pending_skip_ = 0;
  bool stepping_ = false;
  Buffer window_;
  std::uint64_t window_at_ = 0;
  std::size_t window_filled_ = 0;
};

}  // namespace cumulus
