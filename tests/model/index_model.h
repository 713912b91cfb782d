// IndexModel: what an index must answer, written the obvious way: every object is a byte map in which a byte
// is a symbol, every snapshot a whole copy. Pure.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "objectstore/index/index.h"

namespace cumulus {

struct ModelObject {
  std::uint64_t size = 0;
  Bytes header;
  std::vector<std::uint64_t> bytes;  // up to the size; 0: reads as zero, else a symbol of its own
  std::map<Bytes, Bytes> xattrs;
  std::map<Bytes, Bytes> omap;

  void resize(std::uint64_t to) {
    size = to;
    bytes.resize(to, 0);
  }
  bool operator==(const ModelObject&) const = default;
};
using ModelObjects = std::map<ObjectId, ModelObject>;

struct ModelDataset {
  std::string name;
  ObjectId next_object = 1;
  ModelObjects head;
  std::map<std::string, ModelObjects> snapshots;
  bool operator==(const ModelDataset&) const = default;
};

struct IndexModel {
  std::map<DatasetId, ModelDataset> datasets;
  bool operator==(const IndexModel&) const = default;

  ModelObject& object(ObjectRef ref) { return datasets.at(ref.dataset).head.at(ref.object); }
  // The symbol of a written byte: which run, and where in it. Survives the run's placing, which `number`
  // tells.
  static std::uint64_t symbol(std::uint64_t run_number, std::uint64_t at) { return run_number << 24 | at; }

  void apply(const Change& change, std::uint64_t run_number);
};

inline void IndexModel::apply(const Change& any, std::uint64_t run_number) {
  if (const auto* write = std::get_if<change::Write>(&any)) {
    ModelObject& to = object(write->object);
    if (write->offset + write->length > to.size) to.resize(write->offset + write->length);
    for (std::uint32_t i = 0; i < write->length; ++i)
      to.bytes[write->offset + i] = symbol(run_number, write->skip + i);
  } else if (const auto* zero = std::get_if<change::Zero>(&any)) {
    ModelObject& to = object(zero->object);
    if (zero->grow && zero->offset + zero->length > to.size) to.resize(zero->offset + zero->length);
    for (std::uint64_t at = zero->offset; at < std::min(to.size, zero->offset + zero->length); ++at)
      to.bytes[at] = 0;
  } else if (const auto* truncate = std::get_if<change::Truncate>(&any)) {
    object(truncate->object).resize(truncate->size);
  } else if (const auto* create = std::get_if<change::Create>(&any)) {
    ModelDataset& dataset = datasets.at(create->object.dataset);
    dataset.head[create->object.object].header = create->header;
    dataset.next_object = std::max(dataset.next_object, create->object.object + 1);
  } else if (const auto* remove = std::get_if<change::Remove>(&any)) {
    datasets.at(remove->object.dataset).head.erase(remove->object.object);
  } else if (const auto* header = std::get_if<change::SetHeader>(&any)) {
    object(header->object).header = header->header;
  } else if (const auto* xattr = std::get_if<change::SetXattr>(&any)) {
    object(xattr->object).xattrs[xattr->name] = xattr->value;
  } else if (const auto* no_xattr = std::get_if<change::RemoveXattr>(&any)) {
    object(no_xattr->object).xattrs.erase(no_xattr->name);
  } else if (const auto* entry = std::get_if<change::SetOmap>(&any)) {
    object(entry->object).omap[entry->key] = entry->value;
  } else if (const auto* no_entry = std::get_if<change::RemoveOmap>(&any)) {
    object(no_entry->object).omap.erase(no_entry->key);
  } else if (const auto* clone = std::get_if<change::CloneRange>(&any)) {
    const ModelObject source = object(clone->source);
    ModelObject& to = object(clone->target);
    if (clone->target_offset + clone->length > to.size) to.resize(clone->target_offset + clone->length);
    for (std::uint64_t i = 0; i < clone->length; ++i) {
      const std::uint64_t from = clone->source_offset + i;
      to.bytes[clone->target_offset + i] = from < source.size ? source.bytes[from] : 0;
    }
  } else if (const auto* snapshot = std::get_if<change::CreateSnapshot>(&any)) {
    ModelDataset& dataset = datasets.at(snapshot->id);
    dataset.snapshots[snapshot->name] = dataset.head;
  } else if (const auto* no_snapshot = std::get_if<change::RemoveSnapshot>(&any)) {
    datasets.at(no_snapshot->id).snapshots.erase(no_snapshot->name);
  } else if (const auto* rollback = std::get_if<change::Rollback>(&any)) {
    ModelDataset& dataset = datasets.at(rollback->id);
    dataset.head = dataset.snapshots.at(rollback->snapshot);
  } else if (const auto* rename = std::get_if<change::RenameDataset>(&any)) {
    datasets.at(rename->id).name = rename->name;
  } else if (const auto* gone = std::get_if<change::RemoveDataset>(&any)) {
    datasets.erase(gone->id);
  } else if (const auto* create_dataset = std::get_if<change::CreateDataset>(&any)) {
    ModelDataset dataset{create_dataset->name, create_dataset->next_object, {}, {}};
    const auto at = create_dataset->parent.find('@');
    if (at != std::string::npos)
      for (const auto& [id, parent] : datasets)
        if (parent.name == create_dataset->parent.substr(0, at))
          dataset.head = parent.snapshots.at(create_dataset->parent.substr(at + 1));
    datasets[create_dataset->id] = std::move(dataset);
  }
}

}  // namespace cumulus
