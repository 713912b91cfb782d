// HeapTrimmer: freed memory goes back to the system before the process outgrows what it may take. The
// allocator keeps what lies below something still in use: measured, a daemon that used 240 MiB held 540 MiB
// after eighteen minutes of puts, gets and repairs. Looks at the resident size four times a second; trims, on
// a worker, when it is above five eighths of the limit and has grown by a sixteenth of it since it was
// trimmed last. Reactor thread.
#pragma once

#include <cstdint>
#include <memory>

#include "objectstore/io/runtime.h"

namespace cumulus {

class HeapTrimmer {
 public:
  HeapTrimmer(Runtime& runtime, std::uint64_t limit_bytes);
  ~HeapTrimmer();
  HeapTrimmer(const HeapTrimmer&) = delete;
  HeapTrimmer& operator=(const HeapTrimmer&) = delete;

 private:
  struct State;
  static void arm(const std::shared_ptr<State>& state);
  static void look(const std::shared_ptr<State>& state);

  const std::shared_ptr<State> state_;
};

}  // namespace cumulus
