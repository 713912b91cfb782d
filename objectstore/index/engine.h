// Engine: the port to the ordered key-value store under the index. RocksDB is the real one
// (rocksdb_engine.h); an ordered map with simulated durability serves simulation (map_engine.h). Both pass
// tests/contract/engine_contract.
//
// The engine is the log replayed: it has no log of its own. apply() is atomic and carries the log position
// that it makes the engine reach; after a crash the engine is at some applied position <= the last one that
// flush() made durable or later, never in between two batches (R1: never past the durable log, which
// RocksDbEngine's file-system wrapper sees to). Thread rule: reactor. Long work is offloaded inside.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"
#include "objectstore/io/task.h"

namespace cumulus {

using Key = std::string;  // big-endian, sorts as bytes: key_space.h

struct RowUpdate {
  enum class Kind : std::uint8_t { put, merge, erase };
  Kind kind = Kind::put;
  Key key;
  Bytes value;  // put: the row; merge: one operand (rows.h); erase: empty
};

struct KeyValue {
  Key key;
  Bytes value;
};

class Engine {
 public:
  virtual ~Engine() = default;

  // Batches are applied in the order of calls. Errors: no_space, io (nothing of the batch was
  // taken: it may be tried again), corrupt (unusable until rebuilt).
  virtual Task<Status> apply(std::vector<RowUpdate> updates, LogPosition position) = 0;
  virtual Task<Result<std::optional<Bytes>>> get(Key key) = 0;
  // The first row with from <= key < to: what a versioned look-up needs.
  virtual Task<Result<std::optional<KeyValue>>> first(Key from, Key to) = 0;
  // Up to `limit` rows in from <= key < to, ascending.
  virtual Task<Result<std::vector<KeyValue>>> scan(Key from, Key to, std::size_t limit) = 0;
  // Non-blocking forms for hot paths: false when the answer needs the disk, or others their turn.
  virtual bool try_first(const Key& from, const Key& to, Result<std::optional<KeyValue>>& answer) = 0;

  virtual LogPosition applied() const = 0;
  virtual LogPosition durable() const = 0;
  // Makes everything applied before the call durable.
  virtual Task<Status> flush() = 0;
  // Compacts everything: tests and measurements.
  virtual Task<Status> compact() = 0;
  virtual std::uint64_t size_on_disk() const = 0;
  virtual Task<Status> close() = 0;
};

}  // namespace cumulus
