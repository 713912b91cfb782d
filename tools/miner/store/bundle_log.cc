#include "tools/miner/store/bundle_log.h"

#include <algorithm>
#include <cstring>

#include "objectstore/base/check.h"
#include "objectstore/base/log.h"

namespace cumulus {

using bundle::kBlock;
using bundle::RecordType;

Task<Result<bundle::Batch>> BundleLog::write(const std::vector<LogEntry>& entries) {
  const bool only_removes =
      std::ranges::all_of(entries, [](const LogEntry& entry) { return entry.type == RecordType::remove; });
  Error failure(ErrorKind::io, "");
  CO_TRY_OK(co_await cut_failed_batch());
  for (int attempt = 0; attempt < 2; ++attempt) {
    bundle::BatchBuilder sized(secret_, {});
    for (const auto& entry : entries) {
      if (entry.type == RecordType::put)
        sized.add_put(entry.key, entry.root, entry.manifest, entry.data);
      else
        sized.add_remove(entry.key, entry.before, entry.victim, entry.victim_length);
    }
    CO_TRY_OK(co_await ensure_room(sized.size_estimate(), only_removes));
    const BundlePosition at{open_->made.number, open_->end};
    bundle::BatchBuilder builder(secret_, at);
    for (const auto& entry : entries) {
      if (entry.type == RecordType::put)
        builder.add_put(entry.key, entry.root, entry.manifest, entry.data);
      else
        builder.add_remove(entry.key, entry.before == BundlePosition{} ? at : entry.before, entry.victim,
                           entry.victim_length);
    }
    Buffer head;
    const bundle::Batch& batch = builder.finish(head);
    CHECK(batch.total_length <= open_->made.size - open_->end);
    Status written = co_await write_parts(batch, head, entries);
    if (written) written = co_await open_->made.file->datasync();
    if (written) {
      open_->end += batch.total_length;
      if (open_->end > open_->made.size / 2) make_spare();
      co_return batch;
    }
    failure = written.error().within("write " + files_.path(at.bundle));
    log_error("{}; the bundle is left and a new one begun", failure.message());
    failed_ = std::exchange(open_, std::nullopt);
    CO_TRY_OK(co_await cut_failed_batch());
  }
  co_return fail(failure);
}

Task<Status> BundleLog::write_parts(const bundle::Batch& batch, const Buffer& head,
                                    const std::vector<LogEntry>& entries) {
  File& file = *open_->made.file;
  const std::uint64_t base = batch.at.offset;
  Status outcome;
  TaskGroup extents(runtime_);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].type != RecordType::put || entries[i].data.size() <= bundle::kPackedMax) continue;
    const std::size_t length = entries[i].data.size();
    const std::size_t padded = bundle::round_up(length, kBlock);
    std::uint8_t* const memory = entries[i].data.data();
    std::memset(memory + length, 0, padded - length);
    extents.spawn(
        [&file, &outcome, memory, padded, at = base + batch.records[i].data_offset]() -> Task<void> {
          const Status written = co_await file.write_at(at, ByteView(memory, padded));
          if (!written && outcome) outcome = written;
        });
  }
  const Status head_written = co_await file.write_at(base, head.view());
  co_await extents.join();
  if (!head_written) co_return head_written;
  co_return outcome;
}

Task<Status> BundleLog::ensure_room(std::uint64_t length, bool only_removes) {
  if (open_ && open_->made.size - open_->end >= length) co_return Status();
  leave_open_bundle();
  if (making_spare_) co_await background_.join();
  if (spare_ && spare_->size >= kBlock + length) {
    open_ = Open{*std::exchange(spare_, std::nullopt)};
    co_return Status();
  }
  if (spare_) {  // too small for this batch: begin anew, in order of numbers
    const auto small = *std::exchange(spare_, std::nullopt);
    (void)co_await files_.remove(small.number);
  }
  const std::uint64_t size_min = kBlock + length;
  const std::uint32_t number = next_number_++;
  auto made = co_await files_.make(number, std::max(bundle_size_, size_min), size_min, only_removes);
  if (!made) co_return fail(made.error());
  open_ = Open{*std::move(made)};
  co_return Status();
}

void BundleLog::leave_open_bundle() {
  if (!open_) return;
  // Gives the rest of the allocation back; if that fails the space is lost until the bundle is rewritten.
  background_.spawn([this, number = open_->made.number, end = open_->end]() -> Task<void> {
    const Status cut = co_await files_.cut(number, end);
    if (!cut) log_warn("cut {} to its length: {}", files_.path(number), cut.error().message());
  });
  open_.reset();
}

Task<Status> BundleLog::cut_failed_batch() {
  if (!failed_) co_return Status();
  File& file = *failed_->made.file;
  Status cut = co_await file.truncate(failed_->end);
  if (cut) cut = co_await file.datasync();
  if (!cut) co_return fail(cut.error().within("cut a failed batch off " + files_.path(failed_->made.number)));
  failed_.reset();
  co_return Status();
}

void BundleLog::make_spare() {
  if (spare_ || making_spare_) return;
  making_spare_ = true;
  background_.spawn([this, number = next_number_++]() -> Task<void> {
    auto made = co_await files_.make(number, bundle_size_, bundle_size_, false);
    if (made) spare_ = *std::move(made);  // otherwise the next batch that needs room says why
    making_spare_ = false;
  });
}

Task<void> BundleLog::close() {
  leave_open_bundle();
  co_await background_.join();
  if (spare_) (void)co_await files_.remove(std::exchange(spare_, std::nullopt)->number);
}

}  // namespace cumulus
