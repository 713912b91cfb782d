// Change records: the logical operations of the log. One list of types, one encoding (FORMAT.md, "Change
// records"), one meaning (index/apply): writing, replaying after a crash and rebuilding from the miners all
// run the same changes.
//
// Replay is deterministic: a change depends only on the changes before it. A record is {type u8, flags u8
// (bit 0: a reader that does not know the type must refuse the log), length varint, body}. Cells that are in
// the same group are named relative to the group's cell area; all others by absolute segment and offset.
// Pure; any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/clock.h"
#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"
#include "objectstore/dataset.h"
#include "objectstore/log/run.h"

namespace cumulus {

namespace change {

struct Write {  // object bytes [offset, offset + length) = run's plain bytes from `skip` on; grows the size
  ObjectRef object;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  std::uint32_t skip = 0;
  Run run;
  bool operator==(const Write&) const = default;
};
struct Zero {  // reads as zeros from now on; `allocated` (fallocate, NBD no-hole) or a hole (trim, punch)
  ObjectRef object;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  bool allocated = false;
  bool grow = false;  // extends the size when it ends beyond it
  bool operator==(const Zero&) const = default;
};
struct Truncate {
  ObjectRef object;
  std::uint64_t size = 0;
  bool operator==(const Truncate&) const = default;
};
struct Create {  // the object must never have existed in the view; the dataset's next id moves past it
  ObjectRef object;
  Bytes header;
  bool operator==(const Create&) const = default;
};
struct Remove {
  ObjectRef object;
  bool operator==(const Remove&) const = default;
};
struct SetHeader {
  ObjectRef object;
  Bytes header;
  bool operator==(const SetHeader&) const = default;
};
struct SetXattr {
  ObjectRef object;
  Bytes name;
  Bytes value;
  bool operator==(const SetXattr&) const = default;
};
struct RemoveXattr {
  ObjectRef object;
  Bytes name;
  bool operator==(const RemoveXattr&) const = default;
};
struct SetOmap {
  ObjectRef object;
  Bytes key;
  Bytes value;
  bool operator==(const SetOmap&) const = default;
};
struct RemoveOmap {
  ObjectRef object;
  Bytes key;
  bool operator==(const RemoveOmap&) const = default;
};
struct CloneRange {  // by reference; both at the head of their datasets; copies holes too; grows the target's
                     // size
  ObjectRef source;
  ObjectRef target;
  std::uint64_t source_offset = 0;
  std::uint64_t target_offset = 0;
  std::uint64_t length = 0;
  bool operator==(const CloneRange&) const = default;
};
struct CreateDataset {  // also clones: `inherited` are the parent's spans, behind the new dataset's own
  DatasetId id = 0;
  DatasetType type = DatasetType::bucket;
  std::uint8_t chunk_log2 = 20;
  std::uint8_t cell_log2 = 14;
  std::string name;
  std::vector<ViewSpan> inherited;
  ObjectId next_object = 1;
  std::string parent;  // "NAME@SNAPSHOT" for people; empty when none
  WallTime created_at = 0;
  bool operator==(const CreateDataset&) const = default;
};
struct RemoveDataset {
  DatasetId id = 0;
  bool operator==(const RemoveDataset&) const = default;
};
struct RenameDataset {
  DatasetId id = 0;
  std::string name;
  bool operator==(const RenameDataset&) const = default;
};
struct SetQuota {  // tree 0: the whole dataset; 0 = no limit
  DatasetId id = 0;
  std::uint32_t tree = 0;
  std::uint64_t bytes = 0;
  std::uint64_t objects = 0;
  bool operator==(const SetQuota&) const = default;
};
struct CreateSnapshot {
  DatasetId id = 0;
  std::string name;
  WallTime created_at = 0;
  bool operator==(const CreateSnapshot&) const = default;
};
struct RemoveSnapshot {
  DatasetId id = 0;
  std::string name;
  bool operator==(const RemoveSnapshot&) const = default;
};
struct Rollback {
  DatasetId id = 0;
  std::string snapshot;
  bool operator==(const Rollback&) const = default;
};
struct Detach {  // the head keeps the dataset's own spans only: whoever writes it has made them cover all
  DatasetId id = 0;
  bool operator==(const Detach&) const = default;
};
struct AddUsage {  // quota trees: signed differences
  DatasetId id = 0;
  std::uint32_t tree = 0;
  std::int64_t bytes = 0;
  std::int64_t objects = 0;
  bool operator==(const AddUsage&) const = default;
};
struct Placed {  // bookkeeping: a segment is on these miners, slice i on miners[i]
  SegmentId segment;
  std::array<std::uint8_t, 16> salt{};
  std::uint32_t length = 0;
  std::uint8_t k = 0;
  std::uint8_t m = 0;
  std::vector<MinerId> miners;
  bool operator==(const Placed&) const = default;
};
struct Relocate {  // garbage collection: wherever `from` stands in any version of the chunk, `to` stands from
                   // now on
  ObjectRef object;
  std::uint64_t offset = 0;  // of the chunk in the object
  Run from;
  Run to;  // same plain bytes
  bool operator==(const Relocate&) const = default;
};

}  // namespace change

using Change =
    std::variant<change::Write, change::Zero, change::Truncate, change::Create, change::Remove,
                 change::SetHeader, change::SetXattr, change::RemoveXattr, change::SetOmap,
                 change::RemoveOmap, change::CloneRange, change::CreateDataset, change::RemoveDataset,
                 change::RenameDataset, change::SetQuota, change::CreateSnapshot, change::RemoveSnapshot,
                 change::Rollback, change::Detach, change::AddUsage, change::Placed, change::Relocate>;

// The cell area of the group that a record stands in: where its relative run offsets count from.
struct CellArea {
  SegmentId segment;
  std::uint32_t base = 0;
  std::uint64_t nonce = 0;
};

// Where a staged run will lie, relative to the cell area of its group. Asked for every staged run while
// encoding.
using StagedOffset = std::function<std::uint32_t(const Run& staged)>;

// Appends one record. A staged run is written relative; any other run absolute.
void encode_change(const Change& change, const StagedOffset& staged_offset, Bytes& into);

// Decodes all records of one group; relative runs become absolute. Unknown optional records are skipped;
// unknown required ones are `unsupported`; anything that does not parse or is beyond limits is `corrupt`.
Result<std::vector<Change>> decode_changes(ByteView records, const CellArea& area);

}  // namespace cumulus
