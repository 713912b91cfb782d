#include "objectstore/log/undurable_segment.h"

#include <algorithm>

namespace cumulus {

void UndurableSegment::mark_filled(LogPosition number) {
  for (Group& group : groups)
    if (group.number == number) group.filled = true;
}

std::uint32_t UndurableSegment::ready_end() const {
  std::uint32_t end = issued_end;
  for (const Group& group : groups) {
    if (group.end <= end) continue;
    if (!group.filled) break;
    end = group.end;
  }
  return end;
}

bool UndurableSegment::awaited(std::uint32_t end) const {
  return std::ranges::any_of(groups, [end](const Group& group) { return group.awaited && group.end <= end; });
}

LogPosition UndurableSegment::last_group_before(std::uint32_t end) const {
  LogPosition last = 0;
  for (const Group& group : groups)
    if (group.end <= end) last = group.number;
  return last;
}

void UndurableSegment::begin_write(std::uint32_t end) {
  issued_end = end;
  writes.push_back({end, false});
  ++writes_in_flight;
}

void UndurableSegment::end_write(std::uint32_t end, bool succeeded) {
  --writes_in_flight;
  if (succeeded)
    for (Write& write : writes)
      if (write.end == end) write.done = true;
  if (broken) return;
  while (!writes.empty() && writes.front().done) {
    written_end = writes.front().end;
    writes.pop_front();
  }
}

void UndurableSegment::drop_written_groups() {
  while (!groups.empty() && groups.front().end <= written_end) {
    written_last = groups.front().number;
    groups.pop_front();
  }
}

}  // namespace cumulus
