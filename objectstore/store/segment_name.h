// How a segment is called in messages: "segment 3/1207", epoch and sequence. Pure.
#pragma once

#include <string>

#include "objectstore/base/format.h"
#include "objectstore/base/ids.h"

namespace cumulus {

inline std::string name_of(const SegmentId& segment) {
  constexpr std::string_view kKinds[] = {"", "", "bulk ", "index ", "manifest "};
  const auto kind = static_cast<std::size_t>(segment.kind);
  return format("{}segment {}/{}", kind < std::size(kKinds) ? kKinds[kind] : "", segment.epoch,
                segment.sequence);
}

}  // namespace cumulus
