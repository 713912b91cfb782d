// StoreIndex: what each change means. One meaning for new changes and for replay.
#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/index/store_index.h"
#include "objectstore/key_space.h"

namespace cumulus {
namespace {
constexpr std::uint64_t kLoadsAhead = 32;  // half of what the cache keeps whatever it weighs
}

// --- overlay ---

// The row of the open group at a version, made from `empty` when the group has none yet.
RowValue& StoreIndex::overlay_row(const std::string& prefix, Version version, RowValue empty) {
  const auto entry = overlay_.try_emplace(prefix).first;
  OverlayRows& rows = entry->second;
  const auto at = std::ranges::find_if(rows, [&](const OverlayRow& row) { return row.version <= version; });
  if (at != rows.end() && at->version == version && at->group == open_.number) return at->value;
  open_.touched.emplace_back(entry, version);
  return rows.insert(at, {version, open_.number, std::move(empty)})->value;
}

void StoreIndex::put_header(ObjectRef object, HeaderRow header) {
  overlay_row(header_prefix(object.dataset, object.object), dataset_version(object.dataset), HeaderRow{}) =
      std::move(header);
}

void StoreIndex::put_value(const std::string& prefix, DatasetId dataset, ValueRow row) {
  overlay_row(prefix, dataset_version(dataset), ValueRow{}) = std::move(row);
}

void StoreIndex::put_piece(ObjectRef object, std::uint64_t chunk, const Piece& piece) {
  auto& row = overlay_row(chunk_prefix(object.dataset, object.object, chunk), dataset_version(object.dataset),
                          ChunkRow{});
  std::get<ChunkRow>(row).put(piece);
}

// Zeros or a hole over a range. Whole chunks that exist nowhere need no hole.
void StoreIndex::put_range(ObjectRef object, std::uint64_t offset, std::uint64_t length, Piece::Kind kind,
                           const std::set<std::uint64_t>& existing) {
  const std::uint8_t log2 = catalogue_.find(object.dataset)->chunk_log2;
  const std::uint64_t size = std::uint64_t{1} << log2;
  const std::uint64_t end = offset + length;
  const auto put = [&](std::uint64_t chunk) {
    const std::uint64_t base = chunk << log2;
    const auto from = static_cast<std::uint32_t>(std::max(offset, base) - base);
    const auto to = static_cast<std::uint32_t>(std::min(end - base, size));
    put_piece(object, chunk, {.offset = from, .length = to - from, .kind = kind});
  };
  if (length == 0) return;
  const std::uint64_t first = offset >> log2;
  const std::uint64_t last = (end - 1) >> log2;
  if (kind == Piece::Kind::zero) {
    for (std::uint64_t chunk = first; chunk <= last; ++chunk) put(chunk);
    return;
  }
  for (auto chunk = existing.lower_bound(first); chunk != existing.end() && *chunk <= last; ++chunk)
    put(*chunk);
}

// --- preparing ---

Task<Status> StoreIndex::prepare(const std::vector<Change>& changes) {
  // A plan is good for the next change only, and what loads much may push out what was loaded first: the
  // rest is prepared when its turn comes.
  const std::uint64_t loaded_before = rows_loaded_.value();
  std::optional<ObjectRef> written;  // the object of the write before
  for (const Change& change : changes) {
    const auto* write = std::get_if<change::Write>(&change);
    if (write != nullptr && write->object == written) continue;
    written = write == nullptr ? std::nullopt : std::optional(write->object);
    CO_TRY_OK(co_await prepare_one(change));
    if (planned(change) || rows_loaded_.value() > loaded_before + kLoadsAhead) break;
  }
  co_return Status();
}

// A plan is there that was made for this change, and nothing was staged since.
bool StoreIndex::planned(const Change& change) const {
  return plan_ && plan_->stage_count == stage_count_ && plan_->change == change;
}

Task<Result<std::set<std::uint64_t>>> StoreIndex::existing_chunks(const View& view, ObjectId object,
                                                                  std::uint64_t from, std::uint64_t to) {
  std::set<std::uint64_t> chunks;
  // The overlay first: what leaves it while the engine is asked is in the engine's answer or seen here.
  for (const ViewSpan& span : view) {
    const std::string until = kind_prefix(span.dataset, object, RowKind::chunk);
    for (auto row = overlay_.lower_bound(chunk_prefix(span.dataset, object, from));
         row != overlay_.end() && row->first.starts_with(until); ++row) {
      const std::uint64_t chunk = chunk_of_subkey(std::string_view(row->first).substr(kKeyFixed));
      if (chunk > to) break;
      chunks.insert(chunk);
    }
  }
  for (const ViewSpan& span : view) {
    const std::string end =
        chunk_prefix(span.dataset, object, to) + std::string(kKeyVersion + 1, static_cast<char>(0xFF));
    for (std::string begin = chunk_prefix(span.dataset, object, from);;) {
      CO_TRY(const auto page, co_await engine_->scan(begin, end, 1024));
      for (const KeyValue& row : page) {
        ParsedKey key;
        if (parse_key(row.key, key) && key.kind == RowKind::chunk) chunks.insert(chunk_of_subkey(key.subkey));
      }
      if (page.size() < 1024) break;
      begin = page.back().key + '\0';
    }
  }
  co_return chunks;
}

namespace {

// The object whose header the change reads, if any.
std::optional<ObjectRef> header_read(const Change& change) {
  return std::visit(
      []<class C>(const C& c) -> std::optional<ObjectRef> {
        if constexpr (std::is_same_v<C, change::CloneRange>) return c.target;
        if constexpr (std::is_same_v<C, change::Write> || std::is_same_v<C, change::Zero> ||
                      std::is_same_v<C, change::Truncate> || std::is_same_v<C, change::Create> ||
                      std::is_same_v<C, change::Remove> || std::is_same_v<C, change::SetHeader> ||
                      std::is_same_v<C, change::SetXattr> || std::is_same_v<C, change::RemoveXattr> ||
                      std::is_same_v<C, change::SetOmap> || std::is_same_v<C, change::RemoveOmap>)
          return c.object;
        return std::nullopt;
      },
      change);
}

}  // namespace

Task<Status> StoreIndex::prepare_one(const Change& change) {
  if (const auto object = header_read(change)) {
    const DatasetInfo* info = catalogue_.find(object->dataset);
    if (info == nullptr) co_return Status();  // stage() will say so
    const View head = info->head;
    std::optional<HeaderRow> header;
    CO_TRY_OK(co_await with_rows(
        [&](std::string& missing) { return find_header(head, object->object, header, missing); }));
    const auto* truncate = std::get_if<change::Truncate>(&change);
    const auto* zero = std::get_if<change::Zero>(&change);
    const auto* clone = std::get_if<change::CloneRange>(&change);
    if (truncate == nullptr && zero == nullptr && clone == nullptr) co_return Status();
    Plan plan{change, stage_count_, written_count_, {}, {}};
    const std::uint8_t log2 = info->chunk_log2;
    std::uint64_t from = 0;
    std::uint64_t to = ~std::uint64_t{0};
    if (truncate != nullptr) from = truncate->size >> log2;
    if (zero != nullptr) {
      from = zero->offset >> log2;
      to = zero->length == 0 ? from : (zero->offset + zero->length - 1) >> log2;
    }
    if (clone != nullptr) {
      const DatasetInfo* source = catalogue_.find(clone->source.dataset);
      if (source == nullptr) co_return Status();
      const View source_head = source->head;
      CO_TRY_OK(co_await with_rows([&](std::string& missing) {
        return find_header(source_head, clone->source.object, header, missing);
      }));
      from = clone->target_offset >> log2;
      to = clone->length == 0 ? from : (clone->target_offset + clone->length - 1) >> log2;
      CO_TRY(plan.extents,
             co_await extents(source_head, clone->source.object, clone->source_offset, clone->length));
    }
    CO_TRY(plan.chunks, co_await existing_chunks(head, object->object, from, to));
    plan_ = std::move(plan);
  }
  if (const auto* relocate = std::get_if<change::Relocate>(&change)) {
    const DatasetInfo* info = catalogue_.find(relocate->object.dataset);
    if (info == nullptr) co_return Status();
    const std::string prefix =
        chunk_prefix(relocate->object.dataset, relocate->object.object, relocate->offset >> info->chunk_log2);
    if (cache_.find(prefix) == nullptr) CO_TRY_OK(co_await load_chain(prefix));
  }
  co_return Status();
}

// --- staging ---

bool StoreIndex::stage(const Change& change) {
  const Staged staged = stage_change(change);
  CHECK(staged != Staged::contradiction);
  if (staged == Staged::done) ++stage_count_;
  return staged == Staged::done;
}

StoreIndex::Staged StoreIndex::header_of(ObjectRef object, HeaderRow& header) {
  const DatasetInfo* info = catalogue_.find(object.dataset);
  if (info == nullptr) return Staged::contradiction;
  std::optional<HeaderRow> found;
  std::string missing;
  if (!find_header(info->head, object.object, found, missing)) return Staged::needs_rows;
  if (!found) return Staged::contradiction;
  header = std::move(*found);
  return Staged::done;
}

StoreIndex::Staged StoreIndex::stage_change(const Change& change) {
  if (const auto* write = std::get_if<change::Write>(&change)) return stage_write(*write);
  if (const auto* zero = std::get_if<change::Zero>(&change)) return stage_zero(*zero);
  if (const auto* truncate = std::get_if<change::Truncate>(&change)) return stage_truncate(*truncate);
  if (const auto* clone = std::get_if<change::CloneRange>(&change)) return stage_clone(*clone);
  if (const auto* relocate = std::get_if<change::Relocate>(&change)) return stage_relocate(*relocate);
  if (const auto* placed = std::get_if<change::Placed>(&change)) {
    open_.placed[placed->segment] = *placed;
    return Staged::done;
  }
  if (const auto object = header_read(change)) {
    HeaderRow header;
    const Staged known = header_of(*object, header);
    if (const auto* create = std::get_if<change::Create>(&change)) {
      if (known == Staged::needs_rows) return known;
      if (known == Staged::done || catalogue_.find(object->dataset) == nullptr) return Staged::contradiction;
      put_header(*object, {false, 0, create->header});
      catalogue_.note_object(object->dataset, object->object);
      counted_datasets_.insert(object->dataset);
      return Staged::done;
    }
    if (known != Staged::done) return known;
    const DatasetId dataset = object->dataset;
    if (std::holds_alternative<change::Remove>(change)) {
      put_header(*object, {true, 0, {}});
    } else if (const auto* blob = std::get_if<change::SetHeader>(&change)) {
      put_header(*object, {false, header.size, blob->header});
    } else if (const auto* xattr = std::get_if<change::SetXattr>(&change)) {
      put_value(xattr_prefix(dataset, object->object, xattr->name), dataset, {false, xattr->value});
    } else if (const auto* gone = std::get_if<change::RemoveXattr>(&change)) {
      put_value(xattr_prefix(dataset, object->object, gone->name), dataset, {true, {}});
    } else if (const auto* entry = std::get_if<change::SetOmap>(&change)) {
      put_value(omap_prefix(dataset, object->object, entry->key), dataset, {false, entry->value});
    } else if (const auto* dropped = std::get_if<change::RemoveOmap>(&change)) {
      put_value(omap_prefix(dataset, object->object, dropped->key), dataset, {true, {}});
    }
    return Staged::done;
  }
  return catalogue_.apply(change, changed_datasets_, counted_datasets_) ? Staged::done
                                                                        : Staged::contradiction;
}

StoreIndex::Staged StoreIndex::stage_write(const change::Write& write) {
  HeaderRow header;
  if (const Staged known = header_of(write.object, header); known != Staged::done) return known;
  const std::uint64_t end = write.offset + write.length;
  if (end < write.offset || write.length == 0 || write.skip > write.run.plain_length ||
      write.length > write.run.plain_length - write.skip)
    return Staged::contradiction;
  const std::uint8_t log2 = catalogue_.find(write.object.dataset)->chunk_log2;
  const std::uint64_t size = std::uint64_t{1} << log2;
  for (std::uint64_t at = write.offset; at < end;) {
    const std::uint64_t within = at & (size - 1);
    const std::uint64_t part = std::min(size - within, end - at);
    Piece piece{.offset = static_cast<std::uint32_t>(within),
                .length = static_cast<std::uint32_t>(part),
                .kind = Piece::Kind::data};
    piece.skip = write.skip + static_cast<std::uint32_t>(at - write.offset);
    piece.run = write.run;
    put_piece(write.object, at >> log2, piece);
    at += part;
  }
  if (end > header.size) {
    header.size = end;
    put_header(write.object, std::move(header));
  }
  return Staged::done;
}

StoreIndex::Staged StoreIndex::stage_zero(const change::Zero& zero) {
  HeaderRow header;
  if (const Staged known = header_of(zero.object, header); known != Staged::done) return known;
  const std::uint64_t end = zero.offset + zero.length;
  if (end < zero.offset) return Staged::contradiction;
  if (!planned(zero)) return Staged::needs_rows;
  put_range(zero.object, zero.offset, zero.length, zero.allocated ? Piece::Kind::zero : Piece::Kind::hole,
            plan_->chunks);
  plan_.reset();
  if (zero.grow && end > header.size) {
    header.size = end;
    put_header(zero.object, std::move(header));
  }
  return Staged::done;
}

StoreIndex::Staged StoreIndex::stage_truncate(const change::Truncate& truncate) {
  HeaderRow header;
  if (const Staged known = header_of(truncate.object, header); known != Staged::done) return known;
  if (truncate.size < header.size) {
    if (!planned(truncate)) return Staged::needs_rows;
    // Up to the end of the last chunk: what was allocated beyond the size goes too.
    const std::uint8_t log2 = catalogue_.find(truncate.object.dataset)->chunk_log2;
    const std::uint64_t size = std::uint64_t{1} << log2;
    const std::uint64_t last =
        std::max((header.size - 1) >> log2, plan_->chunks.empty() ? 0 : *plan_->chunks.rbegin());
    put_range(truncate.object, truncate.size, (last << log2) + size - truncate.size, Piece::Kind::hole,
              plan_->chunks);
    plan_.reset();
  }
  header.size = truncate.size;
  put_header(truncate.object, std::move(header));
  return Staged::done;
}

StoreIndex::Staged StoreIndex::stage_clone(const change::CloneRange& clone) {
  HeaderRow source;
  HeaderRow header;
  if (const Staged known = header_of(clone.source, source); known != Staged::done) return known;
  if (const Staged known = header_of(clone.target, header); known != Staged::done) return known;
  const std::uint64_t end = clone.target_offset + clone.length;
  if (end < clone.target_offset || clone.source_offset + clone.length < clone.source_offset)
    return Staged::contradiction;
  if (!planned(clone)) return Staged::needs_rows;
  const bool staged = std::ranges::any_of(
      plan_->extents, [](const Extent& e) { return e.kind == Extent::Kind::data && is_staged(e.run); });
  if (staged && plan_->written_count != written_count_)
    return Staged::needs_rows;  // they have a place by now

  const std::uint8_t log2 = catalogue_.find(clone.target.dataset)->chunk_log2;
  const std::uint64_t size = std::uint64_t{1} << log2;
  for (const Extent& extent : plan_->extents) {
    const std::uint64_t to = clone.target_offset + (extent.offset - clone.source_offset);
    if (extent.kind != Extent::Kind::data) {
      put_range(clone.target, to, extent.length,
                extent.kind == Extent::Kind::zero ? Piece::Kind::zero : Piece::Kind::hole, plan_->chunks);
      continue;
    }
    for (std::uint64_t done = 0; done < extent.length;) {
      const std::uint64_t within = (to + done) & (size - 1);
      const std::uint64_t part = std::min(size - within, extent.length - done);
      Piece piece{.offset = static_cast<std::uint32_t>(within),
                  .length = static_cast<std::uint32_t>(part),
                  .kind = Piece::Kind::data};
      piece.skip = extent.skip + static_cast<std::uint32_t>(done);
      piece.run = extent.run;
      put_piece(clone.target, (to + done) >> log2, piece);
      done += part;
    }
  }
  if (staged) open_.has_clones = true;
  plan_.reset();
  if (end > header.size) {
    header.size = end;
    put_header(clone.target, std::move(header));
  }
  return Staged::done;
}

// Every version of the chunk keeps its bytes and gets their new place; nothing is overlaid.
StoreIndex::Staged StoreIndex::stage_relocate(const change::Relocate& relocate) {
  const DatasetInfo* info = catalogue_.find(relocate.object.dataset);
  if (info == nullptr) return Staged::done;  // removed meanwhile: nothing refers to it
  if (relocate.from.plain_length != relocate.to.plain_length) return Staged::contradiction;
  const std::string prefix =
      chunk_prefix(relocate.object.dataset, relocate.object.object, relocate.offset >> info->chunk_log2);
  const Chain* chain = cache_.find(prefix);
  if (chain == nullptr) return Staged::needs_rows;
  std::map<Version, ChunkRow> rows;  // as readers see each version now
  for (const RowVersion& below : *chain) rows[below.version] = std::get<ChunkRow>(below.value);
  if (const OverlayRows* above = overlay_of(prefix))
    for (auto row = above->rbegin(); row != above->rend(); ++row)
      rows[row->version].put_all(std::get<ChunkRow>(row->value));
  for (const auto& [version, row] : rows) {
    for (Piece piece : row.pieces()) {
      if (piece.kind != Piece::Kind::data || piece.run != relocate.from) continue;
      piece.run = relocate.to;
      std::get<ChunkRow>(overlay_row(prefix, version, ChunkRow{})).put(piece);
    }
  }
  return Staged::done;
}

}  // namespace cumulus
