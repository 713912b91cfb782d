// MapEngine: the Engine as an ordered map with simulated durability. What survives a crash is a
// MapEngineDisk: the rows as of some applied batch, at least as new as the last flush(); now and then a batch
// becomes durable by itself, as RocksDB's write buffers do. Before anything becomes durable the barrier runs
// (R1).
//
// Answers of get, first and scan are taken at once and delivered late, as from a worker thread, so that what
// happens meanwhile shows. Reactor thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "objectstore/index/engine.h"
#include "objectstore/io/runtime.h"

namespace cumulus {

// Outlives engines: what a power cut leaves.
struct MapEngineDisk {
  std::map<Key, Bytes> rows;
  LogPosition position = 0;
};

struct MapEngineOptions {
  std::function<Status()> barrier;  // empty: there is nothing to wait for
  std::uint64_t seed = 1;
  std::uint32_t spontaneous_one_in = 8;  // batches that become durable by themselves; 0: none
  std::uint32_t late_one_in = 4;         // answers that come late; 0: none
  std::uint32_t scan_turns = 1;          // of a worker, until a late answer of scan() comes
  bool canary_no_barrier = false;        // breaks R1, to show that a simulation sees it
};

class MapEngine final : public Engine {
 public:
  MapEngine(Runtime& runtime, std::shared_ptr<MapEngineDisk> disk, MapEngineOptions options);

  Task<Status> apply(std::vector<RowUpdate> updates, LogPosition position) override;
  Task<Result<std::optional<Bytes>>> get(Key key) override;
  Task<Result<std::optional<KeyValue>>> first(Key from, Key to) override;
  Task<Result<std::vector<KeyValue>>> scan(Key from, Key to, std::size_t limit) override;
  bool try_first(const Key& from, const Key& to, Result<std::optional<KeyValue>>& answer) override;
  LogPosition applied() const override { return applied_; }
  LogPosition durable() const override { return disk_->position; }
  Task<Status> flush() override;
  Task<Status> compact() override;
  std::uint64_t size_on_disk() const override;
  Task<Status> close() override;

  // Every apply() and flush() fails with this until heal().
  void fail_from_now(Error error) { failure_ = std::move(error); }
  void heal() { failure_.reset(); }

 private:
  bool draw(std::uint32_t one_in) { return one_in != 0 && random_() % one_in == 0; }
  Task<void> maybe_late();
  Status persist();
  static void apply_to(std::map<Key, Bytes>& rows, const RowUpdate& update);

  Runtime& runtime_;
  std::shared_ptr<MapEngineDisk> disk_;
  MapEngineOptions options_;
  std::mt19937_64 random_;
  std::map<Key, Bytes> rows_;
  std::vector<RowUpdate> volatile_;  // applied since the disk's position
  LogPosition applied_ = 0;
  std::optional<Error> failure_;
};

}  // namespace cumulus
