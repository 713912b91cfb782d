// Scrubber: re-reads every slice and compares it with its root, at a bounded rate; what rotted is marked and
// counted by the store. One round at a time: a round that somebody asks for while another runs waits for it.
// Reactor thread.
#pragma once

#include <functional>

#include "objectstore/io/sync.h"
#include "tools/miner/store/slice_store.h"

namespace cumulus {

struct ScrubReport {
  std::uint64_t slices = 0;
  std::uint64_t bytes = 0;
  std::uint64_t bad = 0;
  std::uint64_t total_slices = 0;  // when the round began
};

class Scrubber {
 public:
  static constexpr Duration kRoundPause = std::chrono::hours(24);

  // `rate`: bytes a second in the background; 0: none.
  Scrubber(Runtime& runtime, SliceStore& store, Metrics& metrics, std::uint64_t rate);

  void start();
  // One whole round at `rate` bytes a second (0: as fast as it goes). `progress` is called now and then.
  Task<Result<ScrubReport>> run(std::uint64_t rate, std::function<Task<void>(ScrubReport)> progress);
  Task<void> close();

 private:
  Task<void> background();
  Task<bool> pause(Duration time);  // false: closing

  Runtime& runtime_;
  SliceStore& store_;
  std::uint64_t rate_;
  Semaphore turn_;
  Signal stop_;
  bool closing_ = false;
  TaskGroup tasks_;
  Counter& scrubbed_slices_;
  Counter& scrubbed_bytes_;
  Counter& rounds_;
};

}  // namespace cumulus
