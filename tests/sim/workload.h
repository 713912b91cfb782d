// The simulator's workload: random operations of the object API, each with the state that the model is in
// after it. An operation is planned against the model, so it is valid by construction and must succeed while
// the machine is well.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "objectstore/object_store.h"
#include "tests/fakes/seeded_random.h"
#include "tests/sim/store_model.h"

namespace cumulus {

struct Operation {
  enum class Kind : std::uint8_t {
    transaction,
    create_dataset,
    remove_dataset,
    rename_dataset,
    create_snapshots,
    remove_snapshot,
    rollback,
    clone
  };
  Kind kind = Kind::transaction;
  std::string what;  // for the story of a failed seed
  std::optional<Transaction> transaction;
  std::string dataset;
  std::string snapshot;
  std::vector<std::string> names;
  DatasetOptions options;
  bool changes = false;  // or a transaction that only looks, and goes nowhere in the log
  StoreModel after;
};

// Where it stands in the log: a transaction's group exactly; of the others only that it is in [low, high].
struct Placement {
  LogPosition low = 0;
  LogPosition high = 0;
};

class Workload {
 public:
  explicit Workload(SeededRandom& random) : random_(random) {}

  // Object ids come from `volume`, which must be open.
  Operation plan(Volume& volume, const StoreModel& now);
  static Task<Result<Placement>> execute(Volume& volume, Operation& operation);

  // Bytes that no other write of the run has.
  Bytes fresh_bytes(std::size_t size);
  std::size_t random_size();

 private:
  void plan_transaction(Volume& volume, Operation& operation);
  void plan_step(Volume& volume, Operation& operation, const std::string& dataset);
  void plan_catalogue(Operation& operation);
  std::string pick_dataset(const StoreModel& model);
  ObjectId pick_object(const ModelDataset& dataset);

  SeededRandom& random_;
  std::uint64_t next_name_ = 1;
};

}  // namespace cumulus
