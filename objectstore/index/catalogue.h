// Catalogue: the datasets of a volume, in memory, and their rows. One row holds what changes seldom (name,
// spans, snapshots, quotas), one the counters that change with every object made. Pure; reactor thread.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "objectstore/base/result.h"
#include "objectstore/dataset.h"
#include "objectstore/index/engine.h"
#include "objectstore/log/change.h"

namespace cumulus {

class Catalogue {
 public:
  const DatasetInfo* find(DatasetId id) const;
  DatasetInfo* find(DatasetId id);
  const DatasetInfo* find(std::string_view name) const;
  std::vector<const DatasetInfo*> all() const;
  DatasetId next() const { return next_; }

  // Applies a catalogue change; false when it contradicts the state (unknown dataset, name taken, unknown
  // snapshot). The ids that it touches are added to `changed` (rows to be written) and `counted`.
  bool apply(const Change& change, std::set<DatasetId>& changed, std::set<DatasetId>& counted);
  // An object was made: ids up to it are used up.
  void note_object(DatasetId id, ObjectId object);

  // Rows as of now. A dataset that is gone gives an erase.
  RowUpdate dataset_row(DatasetId id) const;
  RowUpdate counters_row(DatasetId id) const;
  RowUpdate next_row() const;
  // Loads one row of dataset 0; corrupt when it does not parse. Rows of other objects than 1 and 2 are
  // ignored.
  Status load(const KeyValue& row);

 private:
  QuotaTrees trees_of(const View& inherited) const;

  std::map<DatasetId, DatasetInfo> datasets_;
  std::map<std::string, DatasetId, std::less<>> names_;
  DatasetId next_ = 1;
};

Bytes encode_placed(const change::Placed& placed);
Result<change::Placed> decode_placed(ByteView bytes);

}  // namespace cumulus
