// Options of a volume, with defaults and the reason for each; validated once, when the volume is made or
// opened.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "objectstore/base/clock.h"
#include "objectstore/base/result.h"
#include "objectstore/durability.h"

namespace cumulus {

// Decided when the volume is made; part of its superblock.
struct VolumeShape {
  std::uint8_t k = 4;  // data slices a segment: any 4 of 6 miners give everything back
  std::uint8_t m = 2;  // parity slices: miners that may fail at once
  std::uint8_t segment_log2 =
      23;  // 8 MiB: 2 MiB slices amortise a round trip, and a segment fits many times in memory

  // How few miners can hold all slices of a segment, at most max(m, 1) each: so any of them may fail.
  std::size_t miners_min() const {
    const std::size_t most = m == 0 ? 1 : m;
    return (std::size_t{k} + m + most - 1) / most;
  }
  Status validate() const;  // k 1..32, m 0..16, segments 64 KiB..64 MiB
  // What a daemon needs to hold the segments that are open, synced, sent and fetched at once, and itself:
  // measured at its peak with 8 MiB (187 MiB of 240) and 64 MiB segments (688 of 1136).
  std::uint64_t memory_least() const { return (112ull << 20) + (16ull << segment_log2); }
};

// What of a read from the local disk the kernel's page cache keeps. Small pieces always: they come back.
// Large ones for those who have no cache of their own above: a mount has the kernel's, and would hold them
// twice.
enum class Warming : std::uint8_t { small, all };

// How one opening behaves.
struct VolumeOptions {
  Durability flush_means =
      Durability::local;  // what flush() waits for: `volume set durability=network` makes it remote
  std::uint64_t cache_bytes = 10ull << 30;    // local segment files, dirty ones included
  std::uint64_t memory_bytes = 512ull << 20;  // the whole daemon; split by the table in store/README.md
  // How long a read waits when too few miners answer; nullopt: forever.
  std::optional<Duration> outage_wait = std::chrono::seconds(60);
  Duration group_interval = std::chrono::milliseconds(50);  // an open group is written at least this often
  std::uint32_t group_bytes = 1u << 20;                     // ... or when this much is in it
  Duration seal_after = std::chrono::seconds(5);            // early sealing, with seal_bytes_min waiting
  std::uint32_t seal_bytes_min = 256u << 10;
  Duration seal_after_max = std::chrono::seconds(60);    // ... with anything waiting
  Duration request_deadline = std::chrono::seconds(30);  // of one request to one miner
  std::uint32_t pushes_in_flight_max = 4;                // segments being sent at once

  Status validate() const;
};

}  // namespace cumulus
