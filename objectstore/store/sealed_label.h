// Sealed labels: the two parts of a superblock that a miner must not read, the miner list and the writer's
// name. AES-256-GCM under the volume's label key, a random 96-bit nonce in front, each with its own
// associated label. FORMAT.md has the layout. Pure but for the randomness handed in; any thread.
#pragma once

#include <string>
#include <vector>

#include "objectstore/base/clock.h"
#include "objectstore/base/random.h"
#include "objectstore/base/result.h"
#include "objectstore/slice_transport.h"

namespace cumulus {

class KeyTree;

inline constexpr std::size_t kSealedMinersMax = 40 * 1024;  // what a superblock has room for: some 400 miners

// Who opened the volume for writing: for the person who is told that it is in use.
struct WriterLabel {
  std::string writer;  // "user@host"
  WallTime opened_at = 0;
  bool operator==(const WriterLabel&) const = default;
};

Bytes seal_miners(const KeyTree& keys, Random& random, const std::vector<MinerEntry>& miners);
// corrupt when it does not open or parse.
Result<std::vector<MinerEntry>> open_miners(const KeyTree& keys, ByteView sealed);
Bytes seal_writer(const KeyTree& keys, Random& random, const WriterLabel& label);
Result<WriterLabel> open_writer(const KeyTree& keys, ByteView sealed);

// What is sealed.
Bytes encode_miners(const std::vector<MinerEntry>& miners);
Result<std::vector<MinerEntry>> decode_miners(ByteView plain);
Bytes encode_writer(const WriterLabel& label);
Result<WriterLabel> decode_writer(ByteView plain);

// "user@host since 2026-11-20 20:00:00 UTC", or "an unknown writer" when the label does not open.
std::string describe_writer(const KeyTree& keys, const Superblock& record);

}  // namespace cumulus
