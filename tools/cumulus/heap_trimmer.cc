#include "tools/cumulus/heap_trimmer.h"

#include <algorithm>
#include <cstdio>
#include <malloc.h>
#include <unistd.h>

namespace cumulus {
namespace {

constexpr Duration kLookEvery = std::chrono::milliseconds(250);

// Bytes of this process in memory, of files too; 0 when the system does not say.
std::uint64_t resident_bytes() {
  std::FILE* statm = std::fopen("/proc/self/statm", "re");
  if (statm == nullptr) return 0;
  unsigned long long size = 0;
  unsigned long long resident = 0;
  const bool read = std::fscanf(statm, "%llu %llu", &size, &resident) == 2;
  std::fclose(statm);
  return read ? resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) : 0;
}

}  // namespace

struct HeapTrimmer::State {
  Runtime& runtime;
  std::uint64_t limit;
  std::uint64_t trimmed_to = 0;  // what was left then, or less since
  TimerId timer = 0;
  bool ended = false;
};

HeapTrimmer::HeapTrimmer(Runtime& runtime, std::uint64_t limit_bytes)
    : state_(std::make_shared<State>(State{runtime, limit_bytes})) {
  arm(state_);
}

// A trim under way ends by itself.
HeapTrimmer::~HeapTrimmer() {
  state_->ended = true;
  state_->runtime.cancel_timer(state_->timer);
}

void HeapTrimmer::arm(const std::shared_ptr<State>& state) {
  if (state->ended) return;
  state->timer = state->runtime.start_timer(state->runtime.now() + kLookEvery, [state] { look(state); });
}

void HeapTrimmer::look(const std::shared_ptr<State>& state) {
  const std::uint64_t resident = resident_bytes();
  state->trimmed_to = std::min(state->trimmed_to, resident);
  if (resident <= state->limit / 8 * 5 || resident <= state->trimmed_to + state->limit / 16)
    return arm(state);
  state->runtime.start_work([] { ::malloc_trim(0); },
                            [state] {
                              state->trimmed_to = resident_bytes();
                              arm(state);
                            });
}

}  // namespace cumulus
