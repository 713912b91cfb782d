// StoreVolume: small files of the home that say how far something has come. Losing one costs only time.
#include "objectstore/base/codec.h"
#include "objectstore/base/log.h"
#include "objectstore/crypto/digest.h"
#include "objectstore/log/replay.h"
#include "objectstore/store/store_volume.h"

namespace cumulus {

// --- the replay mark: DIR/replay ---
//
// magic "CUMREPLY" | version u16 | sequence u64 | previous chain 32 | last group before it u64 | its tag 16 |
// SHA-256 of all before. It says from which local segment on the log is needed; an older one is as good, only
// slower.

namespace {
constexpr std::string_view kReplayMagic = "CUMREPLY";
}

Task<Status> StoreVolume::save_replay_start() {
  const Semaphore::Hold turn = co_await mark_turn_.acquire();
  const ReplayMark mark = replay_marks_.front();
  Bytes bytes;
  Encoder out(bytes);
  out.bytes(view_of(kReplayMagic));
  out.u16(1);
  out.u64(mark.sequence + 1);
  out.bytes(mark.chain);
  out.u64(mark.last_group);
  out.bytes(mark.tag);
  out.bytes(sha256(bytes));
  CO_TRY_OK(co_await parts_.disk.replace_file(parts_.directory + "/replay", std::move(bytes)));
  // The floor moves after the mark: what is evicted is never needed by a restart.
  saved_mark_ = mark.sequence;
  slots_->set_replay_floor(mark.sequence + 1);
  co_return Status();
}

Task<ReplayStart> StoreVolume::load_replay_start() {
  ReplayStart start;  // the whole log
  const auto bytes = co_await parts_.disk.read_file(parts_.directory + "/replay", 4096);
  if (!bytes || bytes->size() < 32) co_return start;
  const ByteView body = ByteView(*bytes).first(bytes->size() - 32);
  Decoder in(body);
  const bool magic = text_of(in.bytes(kReplayMagic.size())) == kReplayMagic && in.u16() == 1;
  const Sequence sequence = in.u64();
  const Digest chain = in.array<32>();
  const LogPosition group = in.u64();
  const auto tag = in.array<16>();
  if (!magic || !in.done() || !equal(sha256(body), ByteView(*bytes).last(32))) co_return start;
  start.sequence = sequence;
  saved_mark_ = sequence - 1;
  start.previous_chain = chain;
  start.previous = LastGroup{group, tag};
  co_return start;
}

// --- how far a repair has come: DIR/repair (FORMAT.md) ---

namespace {
constexpr std::string_view kRepairMagic = "CUMREPAI";
}

// nullopt: begin anew. One that does not parse costs only time.
Task<std::optional<SegmentId>> StoreVolume::load_repair_position() {
  const auto bytes = co_await parts_.disk.read_file(parts_.directory + "/repair", 4096);
  if (!bytes || bytes->size() < 32) co_return std::nullopt;
  const ByteView body = ByteView(*bytes).first(bytes->size() - 32);
  Decoder in(body);
  const bool magic = text_of(in.bytes(kRepairMagic.size())) == kRepairMagic && in.u16() == 1;
  const std::uint8_t kind = in.u8();
  SegmentId through;
  through.kind = static_cast<SegmentKind>(kind);
  through.epoch = in.u64();
  through.sequence = in.u64();
  const bool known = kind >= static_cast<std::uint8_t>(SegmentKind::log) &&
                     kind <= static_cast<std::uint8_t>(SegmentKind::manifest);
  if (!magic || !known || !in.done() || !equal(sha256(body), ByteView(*bytes).last(32)))
    co_return std::nullopt;
  co_return through;
}

Task<void> StoreVolume::keep_repair_position(std::optional<SegmentId> through) {
  const std::string path = parts_.directory + "/repair";
  Status kept;
  if (through) {
    Bytes bytes;
    Encoder out(bytes);
    out.bytes(view_of(kRepairMagic));
    out.u16(1);
    out.u8(static_cast<std::uint8_t>(through->kind));
    out.u64(through->epoch);
    out.u64(through->sequence);
    out.bytes(sha256(bytes));
    kept = co_await parts_.disk.replace_file(path, std::move(bytes));
  } else if (const auto there = parts_.disk.exists(path); there && *there) {
    kept = parts_.disk.remove(path);
  }
  if (!kept) log_warn("how far the repair has come cannot be kept: {}", kept.error().message());
}

}  // namespace cumulus
