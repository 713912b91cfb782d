#include "objectstore/store/eligible_miners.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "objectstore/base/codec.h"
#include "objectstore/crypto/digest.h"

namespace cumulus {
namespace {

constexpr Duration kPauseMin = std::chrono::seconds(1);
constexpr Duration kPauseMax = std::chrono::seconds(30);
constexpr Duration kPauseFull = std::chrono::seconds(60);
constexpr std::uint64_t kRoomMin = 128ull << 20;  // a miner with less takes no new slices: its owner needs some

Duration pause_after(ErrorKind kind, std::uint32_t failures) {
  if (kind == ErrorKind::no_space || kind == ErrorKind::denied || kind == ErrorKind::io) return kPauseFull;
  return std::min(kPauseMin * (1u << std::min(failures, 5u)), kPauseMax);
}

}  // namespace

}  // namespace cumulus
