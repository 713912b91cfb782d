// MemoryShares: how the daemon's memory (`volume set memory`) is split between what would otherwise grow with
// the work. The table with what each share buys is in store/README.md. What is left over serves requests
// under way, the log's open segments, sends under way, and the program itself.
#pragma once

#include <cstdint>

namespace cumulus {

// Bytes.
struct MemoryShares {
  explicit constexpr MemoryShares(std::uint64_t memory)
      : index_blocks(memory / 8),
        index_writes(memory / 32),
        index_rows(memory / 12),
        staged(memory / 16),
        segments_to_send(memory / 16),
        segments_fetched(memory / 8),
        segments_recent(memory / 16),
        segments_idle(memory / 16),
        reads_left(memory / 32),
        disk_requests(memory / 8) {}

  std::uint64_t index_blocks;      // decoded blocks of the ordered store
  std::uint64_t index_writes;      // one memtable; there are two at most
  std::uint64_t index_rows;        // decoded rows
  std::uint64_t staged;            // bodies of groups that are not in the log yet
  std::uint64_t segments_to_send;  // sealed segments that wait; later ones are read back from the disk
  std::uint64_t segments_fetched;  // whole segments on their way from miners to the local disk
  std::uint64_t segments_recent;   // whole segments kept after that
  std::uint64_t segments_idle;     // buffers of the log, kept for the next segments: fresh pages cost a fill
  std::uint64_t reads_left;        // buffers of reads that a hedge overtook
  std::uint64_t disk_requests;     // payloads of all network block device clients together
};

}  // namespace cumulus
