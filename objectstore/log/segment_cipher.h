// SegmentCipher: one segment's key at work. Every unit of a segment (group header, records, cell) is sealed
// under the segment's key with the nonce nonce64 ‖ u32 offset of the unit in the segment, so no unit can be
// moved, and no nonce comes twice while no offset of a group is sealed twice (FORMAT.md, "Nonce").
//
// Never draws nonces itself. Any thread, concurrently.
#pragma once

#include <cstdint>

#include "objectstore/base/bytes.h"
#include "objectstore/log/run.h"
#include "objectstore/manifest.h"

namespace cumulus {

class KeyTree;

class SegmentCipher {
 public:
  // `keys` is needed during the call only.
  SegmentCipher(const KeyTree& keys, const SegmentHeader& header);
  ~SegmentCipher();
  SegmentCipher(const SegmentCipher&) = delete;
  SegmentCipher& operator=(const SegmentCipher&) = delete;

  // into.size() == plain.size() + kTagSize; the two must not overlap.
  void seal(std::uint64_t nonce, std::uint32_t offset, ByteView associated, ByteView plain,
            MutableByteView into) const;
  // False when it does not verify: `into` (sealed.size() - kTagSize bytes) is then of no use.
  [[nodiscard]] bool open(std::uint64_t nonce, std::uint32_t offset, ByteView associated, ByteView sealed,
                          MutableByteView into) const;
  // The cells of one run, whose first cell stands at `base`; `into` has the run's sealed length.
  void seal_run(std::uint64_t nonce, std::uint32_t base, std::uint8_t cell_log2, ByteView plain,
                MutableByteView into) const;
  [[nodiscard]] bool open_run(const Run& run, ByteView sealed, MutableByteView into) const;

 private:
  struct Keyed;
  std::unique_ptr<const Keyed> keyed_;
};

}  // namespace cumulus
