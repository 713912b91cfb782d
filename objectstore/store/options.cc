#include "objectstore/options.h"

#include "objectstore/base/format.h"

namespace cumulus {
namespace {
constexpr std::uint64_t kCacheMax = 1ull << 50;
constexpr std::uint64_t kMemoryMax = 1ull << 40;
}  // namespace

Status VolumeShape::validate() const {
  if (k < 1 || k > 32 || m > 16)
    return fail(ErrorKind::invalid,
                format("code {}+{}: data slices are 1 to 32, parity slices 0 to 16", k, m));
  if (segment_log2 < 16 || segment_log2 > 26)
    return fail(ErrorKind::invalid, "segments are a power of two from 64K to 64M");
  return {};
}

Status VolumeOptions::validate() const {
  if (cache_bytes < (64u << 20) && cache_bytes < 16 * std::uint64_t{seal_bytes_min})
    return fail(ErrorKind::invalid, format("a cache of {} bytes is too small: 64M at least", cache_bytes));
  if (memory_bytes < (128ull << 20))
    return fail(ErrorKind::invalid, "the daemon needs at least 128M of memory");
  if (cache_bytes > kCacheMax || memory_bytes > kMemoryMax)
    return fail(ErrorKind::invalid,
                format("a cache of {} bytes with {} bytes of memory: at most 1024T and 1T can be used",
                       cache_bytes, memory_bytes));
  if (outage_wait && *outage_wait < Duration::zero())
    return fail(ErrorKind::invalid, "nobody waits for less than no time");
  if (group_bytes < 256 || pushes_in_flight_max < 1)
    return fail(ErrorKind::invalid,
                "groups are at least 256 bytes, and at least one segment is pushed at a time");
  return {};
}

}  // namespace cumulus
