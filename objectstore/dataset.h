// Datasets, views and objects: the nouns of the object API. Plain values. Pure; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/clock.h"
#include "objectstore/base/ids.h"

namespace cumulus {

enum class DatasetType : std::uint8_t { bucket = 1, file_system = 2, image = 3 };

// One span of a view: rows of `dataset` with from <= version <= to. A view lists them newest first.
struct ViewSpan {
  DatasetId dataset = 0;
  Version from = 0;
  Version to = ~Version{0};
  bool operator==(const ViewSpan&) const = default;
};

struct ObjectRef {
  DatasetId dataset = 0;
  ObjectId object = 0;
  auto operator<=>(const ObjectRef&) const = default;
};

// Newest first. The head of dataset d is {{d, 0, ~0}, inherited...}.
using View = std::vector<ViewSpan>;

struct QuotaState {
  std::uint64_t bytes_max = 0;  // 0 = no limit
  std::uint64_t objects_max = 0;
  std::int64_t bytes = 0;
  std::int64_t objects = 0;
  bool operator==(const QuotaState&) const = default;
};
// By number; 0 is the dataset. A tree without limits and usage is not listed.
using QuotaTrees = std::map<std::uint32_t, QuotaState>;

struct SnapshotInfo {
  std::string name;
  Version version = 0;  // rows of the dataset up to and including it are seen
  View view;
  WallTime created_at = 0;
  QuotaTrees trees;  // as they were then
};

struct DatasetInfo {
  DatasetId id = 0;
  DatasetType type = DatasetType::bucket;
  std::string name;
  std::uint8_t chunk_log2 = 20;
  std::uint8_t cell_log2 = 14;
  Version version = 1;  // the head's: rows written now carry it
  ObjectId next_object = 1;
  View head;
  std::vector<SnapshotInfo> snapshots;  // oldest first
  std::string parent;
  WallTime created_at = 0;
  QuotaTrees trees;
};

struct ObjectStat {
  std::uint64_t size = 0;
  Bytes header;
};

struct OmapEntry {
  Bytes key;
  Bytes value;
};

}  // namespace cumulus
