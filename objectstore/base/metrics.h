// Counters and gauges, named as Prometheus names them, kept in one Registry that is handed in. A Counter
// reference stays valid as long as its Registry. Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <string>

#include "objectstore/base/thread_annotations.h"

namespace cumulus {

class Counter {
 public:
  void add(std::uint64_t amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
  void set(std::uint64_t value) { value_.store(value, std::memory_order_relaxed); }  // gauges
  std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

class Metrics {
 public:
  // `name` may carry labels: `cumulus_slices_put_total{miner="1"}`. The same name gives the same counter.
  Counter& counter(const std::string& name) EXCLUDES(mutex_);
  std::map<std::string, std::uint64_t> snapshot() const EXCLUDES(mutex_);
  // The text exposition format, version 0.0.4.
  std::string prometheus_text() const EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_;
  std::map<std::string, Counter> counters_ GUARDED_BY(mutex_);
};

}  // namespace cumulus
