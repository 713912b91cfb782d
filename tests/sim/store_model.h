// StoreModel: what a volume must answer, written the obvious way: an object is its bytes, a snapshot a copy
// of its dataset's objects. States share what they have in common, so that one can be kept for every
// operation of a run. Datasets go by name, because a dataset's id is the volume's choice. Pure.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "objectstore/dataset.h"

namespace cumulus {

struct ModelObject {
  Bytes data;
  Bytes header;
  std::map<Bytes, Bytes> xattrs;
  std::map<Bytes, Bytes> omap;
};
using ModelObjectPtr = std::shared_ptr<const ModelObject>;
using ModelObjects = std::map<ObjectId, ModelObjectPtr>;

struct ModelDataset {
  ModelObjects head;
  std::map<std::string, ModelObjects> snapshots;
  bool has_clones = false;      // then it and its snapshots stay
  ObjectId highest_object = 0;  // ids ever seen in it are at most this
};

struct StoreModel {
  std::map<std::string, ModelDataset> datasets;

  // A copy of the object that may be changed in place.
  ModelObject& change(const std::string& dataset, ObjectId id) {
    ModelObjectPtr& slot = datasets.at(dataset).head.at(id);
    auto copy = std::make_shared<ModelObject>(*slot);
    ModelObject& object = *copy;
    slot = std::move(copy);
    return object;
  }
};

}  // namespace cumulus
