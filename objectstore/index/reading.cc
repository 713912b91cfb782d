// StoreIndex: look-ups at a view.
#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/index/store_index.h"
#include "objectstore/key_space.h"

namespace cumulus {
namespace {

constexpr std::size_t kChainPage = 256;

Result<RowValue> decode_row(RowKind kind, ByteView bytes) {
  if (kind == RowKind::header) return HeaderRow::decode(bytes);
  if (kind == RowKind::chunk) return ChunkRow::decode(bytes);
  return ValueRow::decode(bytes);
}

void append_extent(std::vector<Extent>& extents, const Extent& extent) {
  if (extent.length == 0) return;
  if (!extents.empty()) {
    Extent& last = extents.back();
    const bool joins = last.kind == extent.kind && last.offset + last.length == extent.offset &&
                       (extent.kind != Extent::Kind::data ||
                        (last.run == extent.run && last.skip + last.length == extent.skip));
    if (joins) {
      last.length += extent.length;
      return;
    }
  }
  extents.push_back(extent);
}

// The chunk's pieces within [from, to) as extents; gaps are holes.
void append_chunk(std::vector<Extent>& extents, const ChunkRow& row, std::uint64_t base, std::uint32_t from,
                  std::uint32_t to) {
  std::uint32_t at = from;
  const auto hole_to = [&](std::uint32_t until) {
    if (at < until) append_extent(extents, {.offset = base + at, .length = until - at});
    at = std::max(at, until);
  };
  auto piece = std::ranges::partition_point(row.pieces(), [&](const Piece& p) { return p.end() <= from; });
  for (; piece != row.pieces().end() && piece->offset < to; ++piece) {
    const Piece part = piece->part(from, to);
    hole_to(part.offset);
    Extent extent{.offset = base + part.offset, .length = part.length};
    if (part.kind == Piece::Kind::zero) extent.kind = Extent::Kind::zero;
    if (part.kind == Piece::Kind::data) {
      extent.kind = Extent::Kind::data;
      extent.run = part.run;
      extent.skip = part.skip;
    }
    append_extent(extents, extent);
    at = part.end();
  }
  hole_to(to);
}

}  // namespace

const StoreIndex::OverlayRows* StoreIndex::overlay_of(const std::string& prefix) const {
  const auto found = overlay_.find(prefix);
  return found == overlay_.end() ? nullptr : &found->second;
}

// Newest span first; in a span the newest version wins, the overlay before the engine for the same version.
template <class Row>
bool StoreIndex::find_point(const View& view, const std::function<std::string(DatasetId)>& prefix_of,
                            std::optional<Row>& found, std::string& missing) {
  found.reset();
  for (const ViewSpan& span : view) {
    const std::string prefix = prefix_of(span.dataset);
    const auto within = [&span](const auto& row) {
      return row.version >= span.from && row.version <= span.to;
    };
    const RowValue* value = nullptr;
    Version version = 0;
    if (const OverlayRows* rows = overlay_of(prefix)) {
      const auto row = std::ranges::find_if(*rows, within);
      if (row != rows->end()) {
        value = &row->value;
        version = row->version;
      }
    }
    const bool newest_possible =
        value != nullptr && span.to == ~Version{0} && version == dataset_version(span.dataset);
    if (!newest_possible) {
      const Chain* chain = cache_.find(prefix);
      if (chain == nullptr) {
        missing = prefix;
        return false;
      }
      const auto row = std::ranges::find_if(*chain, within);
      if (row != chain->end() && (value == nullptr || row->version > version)) value = &row->value;
    }
    if (value == nullptr) continue;
    const Row& row = std::get<Row>(*value);
    if (!row.removed) found = row;
    return true;
  }
  return true;
}

Version StoreIndex::dataset_version(DatasetId id) const {
  const DatasetInfo* info = catalogue_.find(id);
  return info == nullptr ? ~Version{0} : info->version;
}

bool StoreIndex::find_header(const View& view, ObjectId object, std::optional<HeaderRow>& found,
                             std::string& missing) {
  return find_point<HeaderRow>(
      view, [object](DatasetId dataset) { return header_prefix(dataset, object); }, found, missing);
}

std::uint8_t StoreIndex::chunk_log2_of(const View& view) const {
  // Clones have their parent's chunk size: any dataset of the view that still exists says it.
  for (const ViewSpan& span : view)
    if (const DatasetInfo* info = catalogue_.find(span.dataset)) return info->chunk_log2;
  return 20;
}

bool StoreIndex::assemble_chunk(const View& view, ObjectId object, std::uint64_t chunk, std::uint32_t from,
                                std::uint32_t to, ChunkRow& row, std::string& missing) {
  for (const ViewSpan& span : view) {
    const std::string prefix = chunk_prefix(span.dataset, object, chunk);
    const OverlayRows* above = overlay_of(prefix);
    const auto within = [&span](const auto& r) { return r.version >= span.from && r.version <= span.to; };
    auto next = above == nullptr ? OverlayRows::const_iterator{} : above->begin();
    const auto take_above = [&](Version floor) {
      for (; above != nullptr && next != above->end() && next->version >= floor; ++next)
        if (within(*next)) row.fill_from(std::get<ChunkRow>(next->value));
    };
    // Rows of the newest version need no look below when they cover what is asked.
    if (span.to == ~Version{0}) {
      take_above(dataset_version(span.dataset));
      if (row.covers(from, to)) return true;
    }
    const Chain* chain = cache_.find(prefix);
    if (chain == nullptr) {
      missing = prefix;
      return false;
    }
    for (const RowVersion& below : *chain) {
      take_above(below.version);
      if (row.covers(from, to)) return true;
      if (within(below)) row.fill_from(std::get<ChunkRow>(below.value));
    }
    take_above(0);
    if (row.covers(from, to)) return true;
  }
  return true;
}

Task<Status> StoreIndex::load_chain(std::string prefix) {
  const std::string end = with_version(prefix, 0) + '\0';
  for (;;) {
    Loading& loading = loading_[prefix];  // stays where it is until its count is zero
    ++loading.count;
    const std::uint64_t applied_before = loading.applied;
    Chain chain;
    Status status;
    for (std::string from = with_version(prefix, ~Version{0});;) {
      auto page = co_await engine_->scan(from, end, kChainPage);
      if (!page) {
        status = fail(page.error());
        break;
      }
      for (const KeyValue& row : *page) {
        ParsedKey key;
        if (!parse_key(row.key, key) || key.prefix != prefix) continue;
        auto value = decode_row(key.kind, row.value);
        if (!value) {
          status = fail(value.error());
          break;
        }
        chain.push_back({key.version, std::move(*value), 0});
      }
      if (!status || page->size() < kChainPage) break;
      from = page->back().key + '\0';
    }
    rows_loaded_.add();
    const bool stale = loading.applied != applied_before;
    if (--loading.count == 0) loading_.erase(prefix);
    CO_TRY_OK(status);
    if (stale) continue;
    cache_.insert(std::move(prefix), std::move(chain));
    co_return Status();
  }
}

Task<Result<std::optional<ObjectStat>>> StoreIndex::stat(View view, ObjectId object) {
  std::optional<HeaderRow> header;
  CO_TRY_OK(
      co_await with_rows([&](std::string& missing) { return find_header(view, object, header, missing); }));
  if (!header) co_return std::nullopt;
  co_return ObjectStat{header->size, std::move(header->header)};
}

template <class Row>
bool StoreIndex::find_of_object(const View& view, ObjectId object,
                                const std::function<std::string(DatasetId)>& prefix_of,
                                std::optional<Row>& found, std::string& missing) {
  std::optional<HeaderRow> header;
  if (!find_header(view, object, header, missing)) return false;
  found.reset();
  return !header || find_point<Row>(view, prefix_of, found, missing);
}

bool StoreIndex::try_size(const View& view, ObjectId object, std::uint64_t& size) {
  std::optional<HeaderRow> header;
  std::string missing;
  if (!find_header(view, object, header, missing) || !header) return false;
  size = header->size;
  return true;
}

Task<Result<std::vector<Extent>>> StoreIndex::extents(View view, ObjectId object, std::uint64_t offset,
                                                      std::uint64_t length) {
  const std::uint8_t log2 = chunk_log2_of(view);
  std::vector<Extent> all;
  const std::uint64_t end = offset + length;
  std::optional<HeaderRow> header;
  CO_TRY_OK(
      co_await with_rows([&](std::string& missing) { return find_header(view, object, header, missing); }));
  if (!header) {
    append_extent(all, {.offset = offset, .length = length});
    co_return all;
  }
  for (std::uint64_t at = offset; at < end;) {
    const std::uint64_t chunk = at >> log2;
    const std::uint64_t base = chunk << log2;
    const auto from = static_cast<std::uint32_t>(at - base);
    const auto to = static_cast<std::uint32_t>(std::min<std::uint64_t>(end - base, std::uint64_t{1} << log2));
    ChunkRow row;
    CO_TRY_OK(co_await with_rows([&](std::string& missing) {
      row = {};
      return assemble_chunk(view, object, chunk, from, to, row, missing);
    }));
    append_chunk(all, row, base, from, to);
    at = base + to;
  }
  co_return all;
}

Task<Result<std::optional<std::uint64_t>>> StoreIndex::next_written(View view, ObjectId object,
                                                                    std::uint64_t offset) {
  const std::uint8_t log2 = chunk_log2_of(view);
  std::optional<std::uint64_t> next;  // the chunk
  const auto consider = [&next](std::string_view subkey) {
    const std::uint64_t chunk = chunk_of_subkey(subkey);
    next = std::min(next.value_or(chunk), chunk);
  };
  for (const ViewSpan& span : view) {
    const std::string base = kind_prefix(span.dataset, object, RowKind::chunk);
    const std::string from = chunk_prefix(span.dataset, object, offset >> log2);
    // The overlay first: what leaves it while the engine is asked is in the engine's answer or seen here.
    const auto above = overlay_.lower_bound(from);
    if (above != overlay_.end() && above->first.starts_with(base))
      consider(std::string_view(above->first).substr(kKeyFixed));
    CO_TRY(const auto row, co_await engine_->first(from, after_prefix(base)));
    ParsedKey key;
    if (row && parse_key(row->key, key)) consider(key.subkey);
  }
  if (!next) co_return std::nullopt;
  co_return std::max(offset, *next << log2);
}

bool StoreIndex::try_extents(const View& view, ObjectId object, std::uint64_t offset, std::uint64_t length,
                             std::vector<Extent>& into) {
  const std::uint8_t log2 = chunk_log2_of(view);
  const std::uint64_t end = offset + length;
  std::string missing;
  for (std::uint64_t at = offset; at < end;) {
    const std::uint64_t chunk = at >> log2;
    const std::uint64_t base = chunk << log2;
    const auto from = static_cast<std::uint32_t>(at - base);
    const auto to = static_cast<std::uint32_t>(std::min<std::uint64_t>(end - base, std::uint64_t{1} << log2));
    // One span, nothing above it, one version below: the row's own pieces serve, without a copy of the row.
    const std::string prefix = chunk_prefix(view.front().dataset, object, chunk);
    const Chain* chain = view.size() == 1 && overlay_of(prefix) == nullptr ? cache_.find(prefix) : nullptr;
    if (chain != nullptr && chain->size() == 1 && chain->front().version >= view.front().from &&
        chain->front().version <= view.front().to) {
      append_chunk(into, std::get<ChunkRow>(chain->front().value), base, from, to);
    } else {
      ChunkRow row;
      if (!assemble_chunk(view, object, chunk, from, to, row, missing)) return false;
      append_chunk(into, row, base, from, to);
    }
    at = base + to;
  }
  return true;
}

Task<Result<std::optional<Bytes>>> StoreIndex::xattr(View view, ObjectId object, Bytes name) {
  std::optional<ValueRow> row;
  const auto prefix_of = [&](DatasetId dataset) { return xattr_prefix(dataset, object, name); };
  CO_TRY_OK(co_await with_rows(
      [&](std::string& missing) { return find_of_object<ValueRow>(view, object, prefix_of, row, missing); }));
  if (!row) co_return std::nullopt;
  co_return std::move(row->value);
}

Task<Result<std::optional<Bytes>>> StoreIndex::omap(View view, ObjectId object, Bytes key) {
  std::optional<ValueRow> row;
  const auto prefix_of = [&](DatasetId dataset) { return omap_prefix(dataset, object, key); };
  CO_TRY_OK(co_await with_rows(
      [&](std::string& missing) { return find_of_object<ValueRow>(view, object, prefix_of, row, missing); }));
  if (!row) co_return std::nullopt;
  co_return std::move(row->value);
}

Task<Result<std::vector<OmapEntry>>> StoreIndex::xattrs(View view, ObjectId object) {
  return list_values(std::move(view), object, RowKind::xattr, std::nullopt, ~std::size_t{0});
}

Task<Result<std::vector<OmapEntry>>> StoreIndex::omap_list(View view, ObjectId object,
                                                           std::optional<Bytes> after, std::size_t limit) {
  return list_values(std::move(view), object, RowKind::omap, std::move(after), limit);
}

// Puts what a scan met into the cache: whoever lists asks for all of it next, and one by one it would be a
// seek each. The last row may have more versions behind the page when that is not `complete`.
Status StoreIndex::keep_chains(const std::vector<KeyValue>& page, bool complete) {
  std::string prefix;
  Chain chain;
  const auto keep = [&] {
    if (!chain.empty() && cache_.find(prefix) == nullptr) cache_.insert(prefix, std::move(chain));
    chain = {};
  };
  for (const KeyValue& row : page) {
    ParsedKey key;
    if (!parse_key(row.key, key)) continue;
    if (key.prefix != prefix) keep();
    prefix = key.prefix;
    TRY(RowValue value, decode_row(key.kind, row.value));
    chain.push_back({key.version, std::move(value), 0});
  }
  if (complete) keep();
  return {};
}

Task<Result<std::set<std::string>>> StoreIndex::next_subkeys(const View& view, ObjectId object, RowKind kind,
                                                             std::optional<std::string> after,
                                                             std::size_t limit, bool& done) {
  std::set<std::string> subkeys;
  std::optional<std::string> horizon;  // beyond it some dataset may have rows that were not seen
  for (const ViewSpan& span : view) {
    const std::string base = kind_prefix(span.dataset, object, kind);
    // Past all versions of `after`.
    const std::string from =
        after ? base + *after + std::string(kKeyVersion + 1, static_cast<char>(0xFF)) : base;
    // The overlay first: what leaves it while the engine is asked is in the engine's answer or seen here.
    for (auto row = overlay_.lower_bound(from); row != overlay_.end() && row->first.starts_with(base);
         ++row) {
      const std::string_view subkey = std::string_view(row->first).substr(kKeyFixed);
      if (!after || subkey > *after) subkeys.emplace(subkey);
    }
    const std::uint64_t settled_before = settled_;
    CO_TRY(const auto page, co_await engine_->scan(from, after_prefix(base), limit));
    for (const KeyValue& row : page) {
      ParsedKey key;
      if (parse_key(row.key, key)) subkeys.emplace(key.subkey);
    }
    if (settled_ == settled_before) CO_TRY_OK(keep_chains(page, page.size() < limit));
    if (page.size() == limit) {
      ParsedKey last;
      CHECK(parse_key(page.back().key, last));
      if (!horizon || last.subkey < *horizon) horizon = std::string(last.subkey);
    }
  }
  done = !horizon;
  if (horizon) subkeys.erase(subkeys.upper_bound(*horizon), subkeys.end());
  co_return subkeys;
}

Task<Result<std::vector<OmapEntry>>> StoreIndex::list_values(View view, ObjectId object, RowKind kind,
                                                             std::optional<Bytes> after, std::size_t limit) {
  std::optional<std::string> cursor;
  if (after) cursor = omap_prefix(0, 0, *after).substr(kKeyFixed);
  std::vector<OmapEntry> entries;
  for (bool done = false; !done && entries.size() < limit;) {
    const std::size_t page = std::clamp<std::size_t>(limit - entries.size(), 16, 1024) + 16;
    CO_TRY(const auto subkeys, co_await next_subkeys(view, object, kind, cursor, page, done));
    for (const std::string& subkey : subkeys) {
      std::optional<ValueRow> row;
      const auto prefix_of = [&](DatasetId dataset) { return kind_prefix(dataset, object, kind) + subkey; };
      CO_TRY_OK(co_await with_rows([&](std::string& missing) {
        return find_of_object<ValueRow>(view, object, prefix_of, row, missing);
      }));
      if (row) entries.push_back({unescape_subkey(subkey), std::move(row->value)});
      if (entries.size() == limit) break;
    }
    if (!subkeys.empty()) cursor = *subkeys.rbegin();
  }
  co_return entries;
}

Task<Result<std::vector<ObjectId>>> StoreIndex::objects(View view, ObjectId after, std::size_t limit) {
  std::vector<ObjectId> found;
  for (ObjectId cursor = after; found.size() < limit;) {
    // The next object that any dataset of the view has a row of.
    std::optional<ObjectId> next;
    for (const ViewSpan& span : view) {
      const std::string from = object_prefix(span.dataset, cursor + 1);
      const auto consider = [&next](std::string_view row) {
        ParsedKey key;
        if (parse_key(row, key)) next = std::min(next.value_or(key.object), key.object);
      };
      // The overlay first: what leaves it while the engine is asked is in the engine's answer or seen here.
      const auto above = overlay_.lower_bound(from);
      if (above != overlay_.end() && above->first.starts_with(dataset_prefix(span.dataset)))
        consider(with_version(above->first, 0));
      CO_TRY(const auto row, co_await engine_->first(from, after_prefix(dataset_prefix(span.dataset))));
      if (row) consider(row->key);
    }
    if (!next) break;
    cursor = *next;
    CO_TRY(const auto stat, co_await stat(view, cursor));
    if (stat) found.push_back(cursor);
  }
  co_return found;
}

namespace {

// Versions of a dataset that one of the views sees and the other does not.
bool seen_differently(const View& a, const View& b, DatasetId dataset, Version version) {
  const auto sees = [&](const View& view) {
    return std::ranges::any_of(view, [&](const ViewSpan& span) {
      return span.dataset == dataset && version >= span.from && version <= span.to;
    });
  };
  return sees(a) != sees(b);
}

}  // namespace

Task<Result<std::vector<ObjectId>>> StoreIndex::diff_objects(View older, View newer, ObjectId after,
                                                             std::size_t limit) {
  std::set<DatasetId> datasets;
  for (const ViewSpan& span : older) datasets.insert(span.dataset);
  for (const ViewSpan& span : newer) datasets.insert(span.dataset);
  std::set<ObjectId> differing;
  for (const DatasetId dataset : datasets) {
    const std::string end = after_prefix(dataset_prefix(dataset));
    // The overlay first, as everywhere: what leaves it meanwhile is in the engine's answer.
    for (auto row = overlay_.lower_bound(object_prefix(dataset, after + 1));
         row != overlay_.end() && row->first < end; ++row) {
      ParsedKey key;
      if (!parse_key(with_version(row->first, 0), key)) continue;
      for (const OverlayRow& version : row->second)
        if (seen_differently(older, newer, dataset, version.version)) differing.insert(key.object);
    }
    std::size_t here = 0;
    for (std::string from = object_prefix(dataset, after + 1); here < limit;) {
      CO_TRY(const auto page, co_await engine_->scan(from, end, 1024));
      for (const KeyValue& row : page) {
        ParsedKey key;
        if (!parse_key(row.key, key) || !seen_differently(older, newer, dataset, key.version)) continue;
        if (differing.insert(key.object).second) ++here;
      }
      if (page.size() < 1024) break;
      from = page.back().key + '\0';
    }
  }
  std::vector<ObjectId> list(differing.begin(), differing.end());
  if (list.size() > limit) list.resize(limit);
  co_return list;
}

Task<Result<std::vector<Index::ByteRange>>> StoreIndex::diff_ranges(View older, View newer, ObjectId object,
                                                                    std::uint64_t offset,
                                                                    std::uint64_t length) {
  CO_TRY(const auto old_extents, co_await extents(std::move(older), object, offset, length));
  CO_TRY(const auto new_extents, co_await extents(std::move(newer), object, offset, length));
  std::vector<ByteRange> ranges;
  auto a = old_extents.begin();
  for (const Extent& b : new_extents) {
    for (std::uint64_t at = b.offset; at < b.offset + b.length;) {
      while (a->offset + a->length <= at) ++a;
      const std::uint64_t end = std::min(a->offset + a->length, b.offset + b.length);
      // Holes and zeros read alike; data is the same only when it is the same place of the same run.
      const bool data = a->kind == Extent::Kind::data || b.kind == Extent::Kind::data;
      const bool same = !data || (a->kind == b.kind && a->run == b.run &&
                                  a->skip + (at - a->offset) == b.skip + (at - b.offset));
      if (!same) {
        if (!ranges.empty() && ranges.back().offset + ranges.back().length == at) {
          ranges.back().length += end - at;
        } else {
          ranges.push_back({at, end - at});
        }
      }
      at = end;
    }
  }
  co_return ranges;
}

Task<Result<std::optional<PlacedSegment>>> StoreIndex::placed(SegmentId segment) {
  const auto staged = [&](const Group& group) -> const change::Placed* {
    const auto found = group.placed.find(segment);
    return found == group.placed.end() ? nullptr : &found->second;
  };
  if (const auto* found = staged(open_)) co_return PlacedSegment{*found};
  for (auto group = groups_.rbegin(); group != groups_.rend(); ++group)
    if (const auto* found = staged(*group)) co_return PlacedSegment{*found};
  if (const auto cached = placed_cache_.find(segment); cached != placed_cache_.end())
    co_return PlacedSegment{cached->second};
  const std::uint64_t applied_before = rows_applied_.value();
  CO_TRY(const auto row, co_await engine_->get(placed_key(segment)));
  if (!row) {
    // A group with it may have been applied while the engine was asked.
    if (rows_applied_.value() != applied_before) {
      CO_TRY(const auto again, co_await engine_->get(placed_key(segment)));
      if (!again) co_return std::nullopt;
      CO_TRY(auto decoded, decode_placed(*again));
      co_return PlacedSegment{std::move(decoded)};
    }
    co_return std::nullopt;
  }
  CO_TRY(auto decoded, decode_placed(*row));
  if (rows_applied_.value() == applied_before) {
    if (placed_cache_.size() >= 4096) placed_cache_.clear();
    placed_cache_[segment] = decoded;
  }
  co_return PlacedSegment{std::move(decoded)};
}

Task<Result<std::vector<PlacedSegment>>> StoreIndex::placed_list(SegmentKind kind, Sequence after,
                                                                 std::size_t limit) {
  const std::string from = placed_key({kind, ~Epoch{0}, after}) + '\0';
  const std::string end = placed_key({kind, ~Epoch{0}, ~Sequence{0}});
  // The overlay first: what leaves it while the engine is asked is in the engine's answer or seen here.
  std::map<SegmentId, PlacedSegment> above;
  const auto overlay = [&](const Group& group) {
    for (const auto& [segment, staged] : group.placed)
      if (segment.kind == kind && segment.sequence > after) above[segment] = {staged};
  };
  for (const Group& group : groups_) overlay(group);
  overlay(open_);
  CO_TRY(const auto rows, co_await engine_->scan(from, end, limit));
  std::map<SegmentId, PlacedSegment> found;
  for (const KeyValue& row : rows) {
    CO_TRY(auto decoded, decode_placed(row.value));
    const SegmentId segment = decoded.segment;
    found[segment] = {std::move(decoded)};
  }
  // Ordered by sequence in the engine, by epoch first in the map.
  Sequence horizon = ~Sequence{0};
  if (rows.size() == limit) {
    CO_TRY(const auto last, decode_placed(rows.back().value));
    horizon = last.segment.sequence;
  }
  for (auto& [segment, staged] : above)
    if (segment.sequence <= horizon) found[segment] = std::move(staged);
  std::vector<PlacedSegment> list;
  list.reserve(found.size());
  for (auto& [segment, entry] : found) list.push_back(std::move(entry));
  std::ranges::sort(list, {}, [](const PlacedSegment& entry) {
    return std::pair(entry.placed.segment.sequence, entry.placed.segment.epoch);
  });
  co_return list;
}

}  // namespace cumulus
