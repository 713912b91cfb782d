// The bounds and numbers of the wire protocol, in one place (PROTOCOL.md explains them). A peer that exceeds
// one is cut off with a clear error before a byte of its excess is stored. Pure constants; any thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cumulus::wire {

inline constexpr std::uint32_t kMagic = 0x314D5543;  // "CUM1" on the wire
inline constexpr std::uint16_t kProtocolVersion = 1;
// Feature bits that this program can speak. A bit in the upper half that the peer does not know ends the
// connection; one in the lower half is ignored.
inline constexpr std::uint64_t kFeatures = 0;
inline constexpr std::uint64_t kIncompatibleFeatureMask = 0xFFFFFFFF00000000u;

inline constexpr std::size_t kHeaderMax = 1024 * 1024;
inline constexpr std::size_t kPayloadMax = 32 * 1024 * 1024 + 64 * 1024;  // 32 MiB of slice + leaf rounding

inline constexpr std::size_t kReadRangesMax = 16;
inline constexpr std::size_t kBatchMax = 4096;  // slices in one HAVE or DELETE
inline constexpr std::size_t kListSlicesMax = 1024;
inline constexpr std::size_t kListBytesMax = kHeaderMax - 4096;  // one page's manifests and framing
inline constexpr std::size_t kCursorMax = 64;
inline constexpr std::size_t kProofMax = 16 * 1024;  // of one range
inline constexpr std::size_t kErrorTextMax = 1024;
inline constexpr std::size_t kVersionTextMax = 64;
// A HolderState: a claim, a superblock and their framing.
inline constexpr std::size_t kHolderStateMax = 72 * 1024;

// What one connection may have outstanding. A miner says lower ones in its HELLO answer when it wants to.
inline constexpr std::uint32_t kRequestsInFlightMax = 256;

// The first request on a connection must be a HELLO and must be complete within this time.
inline constexpr std::uint32_t kHelloTimeoutMs = 10'000;
// A connection on which nothing was asked for this long is pinged by the client, and dropped by a miner after
// three times as long.
inline constexpr std::uint32_t kIdlePingMs = 30'000;

}  // namespace cumulus::wire
