#include "tools/miner/store/bundle_scanner.h"

#include <algorithm>

namespace cumulus {

using bundle::kBlock;

Task<Result<ByteView>> BundleScanner::peek(std::size_t length) {
  const std::uint64_t left = end_ - at_.offset;
  length = std::min<std::uint64_t>(length, left);
  const bool inside = at_.offset >= window_at_ && at_.offset + length <= window_at_ + window_filled_;
  if (!inside) {
    const std::size_t wanted = bundle::round_up(std::max(length, stepping_ ? kWindow : kFirstRead), kBlock);
    if (window_.size() < wanted) window_ = Buffer(wanted);
    window_at_ = at_.offset;
    window_filled_ = 0;
    CO_TRY(window_filled_, co_await files_.read(at_.bundle, at_.offset, window_.view(0, wanted)));
    length = std::min(length, window_filled_);
  }
  co_return ByteView(window_.view(at_.offset - window_at_, length));
}

Task<Result<std::optional<BundleScanner::Found>>> BundleScanner::try_here() {
  std::optional<Found> found;
  CO_TRY(const ByteView head, co_await peek(bundle::kBatchHeaderSize));
  const auto size = bundle::peek_batch(head, at_);
  if (!size || size->total_length > end_ - at_.offset) co_return found;
  CO_TRY(const ByteView meta, co_await peek(size->meta_length));
  if (meta.size() < size->meta_length) co_return found;
  auto batch = bundle::decode_batch(secret_, meta, at_);
  if (!batch) co_return found;
  found.emplace(Found{*std::move(batch), Bytes(meta.begin(), meta.end())});
  co_return found;
}

Task<Result<std::optional<BundleScanner::Found>>> BundleScanner::next() {
  std::optional<Found> found;
  while (at_.offset + kBlock <= end_) {
    auto here = co_await try_here();
    if (!here) co_return fail(here.error());
    if (*here) {
      found = *std::move(here);
      at_.offset += found->batch.total_length;
      good_end_ = at_.offset;
      skipped_ += std::exchange(pending_skip_, 0);
      stepping_ = false;
      break;
    }
    stepping_ = true;
    CO_TRY(const ByteView block, co_await peek(kBlock));
    if (block.empty()) break;  // the file is shorter than was said
    if (std::ranges::any_of(block, [](std::uint8_t byte) { return byte != 0; })) pending_skip_ += kBlock;
    at_.offset += kBlock;
  }
  co_return found;
}

}  // namespace cumulus
