#include "objectstore/log/change.h"

#include <limits>
#include <utility>

#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"

namespace cumulus {
namespace {

// The numbers of FORMAT.md, "Change records". Never reuse one.
enum class Type : std::uint8_t {
  write = 1,
  zero = 2,
  truncate = 3,
  create = 4,
  remove = 5,
  set_header = 6,
  set_xattr = 7,
  remove_xattr = 8,
  set_omap = 9,
  remove_omap = 10,
  clone_range = 11,
  create_dataset = 32,
  remove_dataset = 33,
  rename_dataset = 34,
  set_quota = 35,
  create_snapshot = 36,
  remove_snapshot = 37,
  rollback = 38,
  add_usage = 39,
  detach = 40,
  placed = 64,
  relocate = 65,
};
constexpr std::uint8_t kRequired = 1;

enum class RunForm : std::uint8_t { relative = 0, absolute = 1 };

// What one field may hold: at least what a transaction may contain, and a bound on what a reader allocates.
constexpr std::size_t kValueMax = 64 * 1024;
constexpr std::size_t kXattrNameMax = 255;
constexpr std::size_t kOmapKeyMax = 1024;
constexpr std::size_t kTextMax = 1024;
constexpr std::size_t kSpansMax = 4096;
constexpr std::size_t kMinersMax = 64;
constexpr std::uint64_t kSizeMax = (std::uint64_t{1} << 63) - 1;
constexpr std::uint32_t kU32Max = std::numeric_limits<std::uint32_t>::max();

Type type_of(const change::Write&) { return Type::write; }
Type type_of(const change::Zero&) { return Type::zero; }
Type type_of(const change::Truncate&) { return Type::truncate; }
Type type_of(const change::Create&) { return Type::create; }
Type type_of(const change::Remove&) { return Type::remove; }
Type type_of(const change::SetHeader&) { return Type::set_header; }
Type type_of(const change::SetXattr&) { return Type::set_xattr; }
Type type_of(const change::RemoveXattr&) { return Type::remove_xattr; }
Type type_of(const change::SetOmap&) { return Type::set_omap; }
Type type_of(const change::RemoveOmap&) { return Type::remove_omap; }
Type type_of(const change::CloneRange&) { return Type::clone_range; }
Type type_of(const change::CreateDataset&) { return Type::create_dataset; }
Type type_of(const change::RemoveDataset&) { return Type::remove_dataset; }
Type type_of(const change::RenameDataset&) { return Type::rename_dataset; }
Type type_of(const change::SetQuota&) { return Type::set_quota; }
Type type_of(const change::CreateSnapshot&) { return Type::create_snapshot; }
Type type_of(const change::RemoveSnapshot&) { return Type::remove_snapshot; }
Type type_of(const change::Rollback&) { return Type::rollback; }
Type type_of(const change::Detach&) { return Type::detach; }
Type type_of(const change::AddUsage&) { return Type::add_usage; }
Type type_of(const change::Placed&) { return Type::placed; }
Type type_of(const change::Relocate&) { return Type::relocate; }

// Where slices lie is a hint (a miner's listing is the truth), so a reader may pass over it.
std::uint8_t flags_of(Type type) { return type == Type::placed ? 0 : kRequired; }

// One list of fields for each change, walked by a Writer (encodes) and a Reader (decodes and checks): the two
// directions cannot drift apart.
class Writer {
 public:
  Writer(Bytes& into, const StagedOffset& staged_offset) : out_(into), staged_offset_(staged_offset) {}

  void dataset(DatasetId id) { out_.varint(id); }
  void object(const ObjectRef& object) {
    out_.varint(object.dataset);
    out_.varint(object.object);
  }
  void u8(std::uint8_t value) { out_.u8(value); }
  void u32(std::uint32_t value) { out_.varint(value); }
  void u64(std::uint64_t value) { out_.varint(value); }
  void i64(std::int64_t value) {  // zigzag, so that small negative numbers stay small
    out_.varint((static_cast<std::uint64_t>(value) << 1) ^ static_cast<std::uint64_t>(value >> 63));
  }
  void size(std::uint64_t value) { out_.varint(value); }
  void time(WallTime value) { out_.u64(value); }
  void flag(bool value) { out_.u8(value ? 1 : 0); }
  void block(const Bytes& value, std::size_t) { out_.block(value); }
  void text(const std::string& value) { out_.text(value); }
  void dataset_type(DatasetType value) { out_.u8(static_cast<std::uint8_t>(value)); }
  void segment(const SegmentId& id) {
    out_.u8(static_cast<std::uint8_t>(id.kind));
    out_.varint(id.epoch);
    out_.varint(id.sequence);
  }
  void salt(const std::array<std::uint8_t, 16>& value) { out_.bytes(value); }
  void spans(const std::vector<ViewSpan>& spans) {
    out_.varint(spans.size());
    for (const ViewSpan& span : spans) {
      out_.varint(span.dataset);
      out_.varint(span.from);
      out_.varint(span.to);
    }
  }
  void miners(const std::vector<MinerId>& miners) {
    out_.varint(miners.size());
    for (const MinerId& miner : miners) out_.bytes(miner.view());
  }
  void run(const Run& run) {
    const bool staged = is_staged(run);
    out_.u8(static_cast<std::uint8_t>(staged ? RunForm::relative : RunForm::absolute));
    if (staged) {
      out_.varint(staged_offset_(run));
    } else {
      segment(run.segment);
      out_.u64(run.nonce);
      out_.varint(run.base);
    }
    out_.varint(run.plain_length);
    out_.u8(run.cell_log2);
    out_.u8(run.codec);
  }

 private:
  Encoder out_;
  const StagedOffset& staged_offset_;
};

class Reader {
 public:
  Reader(ByteView body, const CellArea& area) : in_(body), area_(area) {}

  bool done() const { return in_.done(); }
  bool unsupported() const { return unsupported_; }
  void mark_bad() { in_.mark_bad(); }

  void dataset(DatasetId& id) { u32(id); }
  void object(ObjectRef& object) {
    u32(object.dataset);
    object.object = in_.varint_max(kObjectIdMax);
    require(object.object != 0);
  }
  void u8(std::uint8_t& value) { value = in_.u8(); }
  void u32(std::uint32_t& value) { value = static_cast<std::uint32_t>(in_.varint_max(kU32Max)); }
  void u64(std::uint64_t& value) { value = in_.varint(); }
  void i64(std::int64_t& value) {
    const std::uint64_t raw = in_.varint();
    value = static_cast<std::int64_t>((raw >> 1) ^ (~(raw & 1) + 1));
  }
  void size(std::uint64_t& value) { value = in_.varint_max(kSizeMax); }
  void time(WallTime& value) { value = in_.u64(); }
  void flag(bool& value) {
    const std::uint8_t raw = in_.u8();
    require(raw <= 1);
    value = raw == 1;
  }
  void block(Bytes& value, std::size_t most) {
    const ByteView raw = in_.block(most);
    value.assign(raw.begin(), raw.end());
  }
  void text(std::string& value) { value = in_.text(kTextMax); }
  void dataset_type(DatasetType& value) {
    const std::uint8_t raw = in_.u8();
    require(raw >= static_cast<std::uint8_t>(DatasetType::bucket) &&
            raw <= static_cast<std::uint8_t>(DatasetType::image));
    value = static_cast<DatasetType>(raw);
  }
  void segment(SegmentId& id) {
    const std::uint8_t kind = in_.u8();
    require(kind >= static_cast<std::uint8_t>(SegmentKind::log) &&
            kind <= static_cast<std::uint8_t>(SegmentKind::manifest));
    id.kind = static_cast<SegmentKind>(kind);
    id.epoch = in_.varint();
    id.sequence = in_.varint();
    require(id.sequence != 0);
  }
  void salt(std::array<std::uint8_t, 16>& value) { value = in_.array<16>(); }
  void spans(std::vector<ViewSpan>& spans) {
    const std::uint64_t count = in_.varint_max(kSpansMax);
    for (std::uint64_t i = 0; i < count && in_.ok(); ++i) {
      ViewSpan& span = spans.emplace_back();
      u32(span.dataset);
      span.from = in_.varint();
      span.to = in_.varint();
    }
  }
  void miners(std::vector<MinerId>& miners) {
    const std::uint64_t count = in_.varint_max(kMinersMax);
    for (std::uint64_t i = 0; i < count && in_.ok(); ++i) miners.push_back(MinerId{in_.array<32>()});
  }
  void run(Run& run) {
    const std::uint8_t form = in_.u8();
    std::uint64_t base = 0;
    if (form == static_cast<std::uint8_t>(RunForm::relative)) {
      run.segment = area_.segment;
      run.nonce = area_.nonce;
      base = in_.varint_max(kU32Max) + area_.base;
    } else {
      require(form == static_cast<std::uint8_t>(RunForm::absolute));
      segment(run.segment);
      run.nonce = in_.u64();
      base = in_.varint_max(kU32Max);
    }
    u32(run.plain_length);
    run.cell_log2 = in_.u8();
    run.codec = in_.u8();
    if (run.codec != 0) unsupported_ = true;
    require(run.cell_log2 >= 9 && run.cell_log2 <= 20 && run.plain_length != 0);
    if (!in_.ok()) return;
    // In 64 bits: neither the cells nor their tags may pass the 32-bit offsets of a segment.
    const std::uint64_t cells = (std::uint64_t{run.plain_length} + run.cell_size() - 1) >> run.cell_log2;
    require(base + run.plain_length + cells * kTagSize <= kU32Max);
    run.base = static_cast<std::uint32_t>(base);
  }
  void require(bool good) {
    if (!good) in_.mark_bad();
  }

 private:
  Decoder in_;
  const CellArea& area_;
  bool unsupported_ = false;
};

template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::Write>
void walk(Walk& w, C& c) {
  w.object(c.object);
  w.size(c.offset);
  w.u32(c.length);
  w.u32(c.skip);
  w.run(c.run);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::Zero>
void walk(Walk& w, C& c) {
  w.object(c.object);
  w.size(c.offset);
  w.size(c.length);
  w.flag(c.allocated);
  w.flag(c.grow);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::Truncate>
void walk(Walk& w, C& c) {
  w.object(c.object);
  w.size(c.size);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::Create> ||
           std::is_same_v<std::remove_const_t<C>, change::SetHeader>
void walk(Walk& w, C& c) {
  w.object(c.object);
  w.block(c.header, kValueMax);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::Remove>
void walk(Walk& w, C& c) {
  w.object(c.object);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::SetXattr>
void walk(Walk& w, C& c) {
  w.object(c.object);
  w.block(c.name, kXattrNameMax);
  w.block(c.value, kValueMax);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::RemoveXattr>
void walk(Walk& w, C& c) {
  w.object(c.object);
  w.block(c.name, kXattrNameMax);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::SetOmap>
void walk(Walk& w, C& c) {
  w.object(c.object);
  w.block(c.key, kOmapKeyMax);
  w.block(c.value, kValueMax);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::RemoveOmap>
void walk(Walk& w, C& c) {
  w.object(c.object);
  w.block(c.key, kOmapKeyMax);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::CloneRange>
void walk(Walk& w, C& c) {
  w.object(c.source);
  w.object(c.target);
  w.size(c.source_offset);
  w.size(c.target_offset);
  w.size(c.length);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::CreateDataset>
void walk(Walk& w, C& c) {
  w.dataset(c.id);
  w.dataset_type(c.type);
  w.u8(c.chunk_log2);
  w.u8(c.cell_log2);
  w.text(c.name);
  w.spans(c.inherited);
  w.u64(c.next_object);
  w.text(c.parent);
  w.time(c.created_at);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::RemoveDataset> ||
           std::is_same_v<std::remove_const_t<C>, change::Detach>
void walk(Walk& w, C& c) {
  w.dataset(c.id);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::RenameDataset> ||
           std::is_same_v<std::remove_const_t<C>, change::RemoveSnapshot>
void walk(Walk& w, C& c) {
  w.dataset(c.id);
  w.text(c.name);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::SetQuota>
void walk(Walk& w, C& c) {
  w.dataset(c.id);
  w.u32(c.tree);
  w.u64(c.bytes);
  w.u64(c.objects);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::CreateSnapshot>
void walk(Walk& w, C& c) {
  w.dataset(c.id);
  w.text(c.name);
  w.time(c.created_at);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::Rollback>
void walk(Walk& w, C& c) {
  w.dataset(c.id);
  w.text(c.snapshot);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::AddUsage>
void walk(Walk& w, C& c) {
  w.dataset(c.id);
  w.u32(c.tree);
  w.i64(c.bytes);
  w.i64(c.objects);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::Placed>
void walk(Walk& w, C& c) {
  w.segment(c.segment);
  w.salt(c.salt);
  w.u32(c.length);
  w.u8(c.k);
  w.u8(c.m);
  w.miners(c.miners);
}
template <class Walk, class C>
  requires std::is_same_v<std::remove_const_t<C>, change::Relocate>
void walk(Walk& w, C& c) {
  w.object(c.object);
  w.size(c.offset);
  w.run(c.from);
  w.run(c.to);
}

// What a single field cannot know.
bool plausible(const change::Write& c) {
  return c.length != 0 && std::uint64_t{c.skip} + c.length <= c.run.plain_length &&
         c.offset <= kSizeMax - c.length;
}
bool plausible(const change::Zero& c) { return c.offset <= kSizeMax - c.length; }
bool plausible(const change::CloneRange& c) {
  return c.source_offset <= kSizeMax - c.length && c.target_offset <= kSizeMax - c.length;
}
bool plausible(const change::CreateDataset& c) {
  return c.cell_log2 >= 9 && c.cell_log2 <= 20 && c.chunk_log2 >= c.cell_log2 && c.chunk_log2 <= 30 &&
         c.next_object != 0 && c.next_object <= kObjectIdMax + 1;
}
bool plausible(const change::Placed& c) { return c.miners.size() <= std::size_t{c.k} + c.m; }
bool plausible(const change::Relocate& c) { return c.from.plain_length == c.to.plain_length; }
template <class C>
bool plausible(const C&) {
  return true;
}

template <class C>
Result<Change> read_as(ByteView body, const CellArea& area) {
  C value;
  Reader in(body, area);
  walk(in, value);
  if (in.done() && in.unsupported())
    return fail(ErrorKind::unsupported,
                "change record: cells are coded in a way that is not known; a newer "
                "Cumulus wrote them");
  if (!in.done() || !plausible(value))
    return fail(ErrorKind::corrupt, "change record: a field does not parse");
  return Change(std::move(value));
}

Result<Change> read_body(std::uint8_t type, ByteView body, const CellArea& area) {
  switch (static_cast<Type>(type)) {
    case Type::write:
      return read_as<change::Write>(body, area);
    case Type::zero:
      return read_as<change::Zero>(body, area);
    case Type::truncate:
      return read_as<change::Truncate>(body, area);
    case Type::create:
      return read_as<change::Create>(body, area);
    case Type::remove:
      return read_as<change::Remove>(body, area);
    case Type::set_header:
      return read_as<change::SetHeader>(body, area);
    case Type::set_xattr:
      return read_as<change::SetXattr>(body, area);
    case Type::remove_xattr:
      return read_as<change::RemoveXattr>(body, area);
    case Type::set_omap:
      return read_as<change::SetOmap>(body, area);
    case Type::remove_omap:
      return read_as<change::RemoveOmap>(body, area);
    case Type::clone_range:
      return read_as<change::CloneRange>(body, area);
    case Type::create_dataset:
      return read_as<change::CreateDataset>(body, area);
    case Type::remove_dataset:
      return read_as<change::RemoveDataset>(body, area);
    case Type::rename_dataset:
      return read_as<change::RenameDataset>(body, area);
    case Type::set_quota:
      return read_as<change::SetQuota>(body, area);
    case Type::create_snapshot:
      return read_as<change::CreateSnapshot>(body, area);
    case Type::remove_snapshot:
      return read_as<change::RemoveSnapshot>(body, area);
    case Type::rollback:
      return read_as<change::Rollback>(body, area);
    case Type::detach:
      return read_as<change::Detach>(body, area);
    case Type::add_usage:
      return read_as<change::AddUsage>(body, area);
    case Type::placed:
      return read_as<change::Placed>(body, area);
    case Type::relocate:
      return read_as<change::Relocate>(body, area);
  }
  return fail(ErrorKind::not_found, "");
}

}  // namespace

void encode_change(const Change& change, const StagedOffset& staged_offset, Bytes& into) {
  const Type type = std::visit([](const auto& c) { return type_of(c); }, change);
  into.push_back(static_cast<std::uint8_t>(type));
  into.push_back(flags_of(type));
  const std::size_t body_at = into.size();
  Writer out(into, staged_offset);
  std::visit([&out](const auto& c) { walk(out, c); }, change);
  // The length goes before the body, and is one or two bytes for nearly all.
  Bytes length;
  Encoder(length).varint(into.size() - body_at);
  into.insert(into.begin() + static_cast<std::ptrdiff_t>(body_at), length.begin(), length.end());
}

Result<std::vector<Change>> decode_changes(ByteView records, const CellArea& area) {
  std::vector<Change> changes;
  Decoder in(records);
  while (in.remaining() != 0) {
    const std::uint8_t type = in.u8();
    const std::uint8_t flags = in.u8();
    const ByteView body = in.block(records.size());
    if (!in.ok() || type == 0) return fail(ErrorKind::corrupt, "change records: they do not parse");
    if ((flags & ~kRequired) != 0)
      return fail(ErrorKind::unsupported,
                  format("change record: flags {:#x} are not known; a newer Cumulus wrote it", flags));
    Result<Change> change = read_body(type, body, area);
    if (change && flags != flags_of(static_cast<Type>(type)))
      return fail(ErrorKind::corrupt, format("change record: type {} has the wrong flags", type));
    if (change) {
      changes.push_back(*std::move(change));
    } else if (change.error().kind() != ErrorKind::not_found) {
      return fail(change.error().within(format("type {}", type)));
    } else if ((flags & kRequired) != 0) {
      return fail(ErrorKind::unsupported,
                  format("change record: type {} is not known; a newer Cumulus wrote it", type));
    }
  }
  return changes;
}

}  // namespace cumulus
