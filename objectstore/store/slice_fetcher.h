// SliceFetcher: gets sealed bytes of a stored segment from its miners. A small range costs one read from the
// one miner that holds it; when that miner is slow (hedge), down or wrong, the same range of any k other
// slices is decoded.
//
// Nothing it returns is trusted: the caller opens the cells. When they do not open, it asks again with
// `proven`: then every answer carries a Merkle proof against the signed manifest, so that the liar is known
// and left out. An outage (too few miners answer) is waited for, up to the caller's patience; bytes that are
// gone or wrong on enough answering miners are `corrupt` at once.
//
// A read that lost against a hedge goes on for a while, since its end tells how slow the miner is; what such
// reads hold is bounded, and the oldest are called off. Reactor thread.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>

#include "objectstore/base/metrics.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/erasure/codec.h"
#include "objectstore/io/sync.h"
#include "objectstore/log/change.h"
#include "objectstore/memory_shares.h"
#include "objectstore/slice_transport.h"

namespace cumulus {

enum class FetchTrust : std::uint8_t { plain, proven };

// Sealed bytes of a segment: [offset, offset + length) lie at `bytes` inside `owner`.
struct FetchedRange {
  std::shared_ptr<Buffer> owner;
  ByteView bytes;
};

class SliceFetcher {
 public:
  SliceFetcher(Runtime& runtime, SliceTransport& transport, VolumeId volume, std::uint32_t segment_size,
               Duration request_deadline, const MemoryShares& memory, Metrics& metrics);
  ~SliceFetcher();

  // `patience`: how long an outage is waited for (10 s when miners are silent rather than gone, if that is
  // longer); nullopt: until close().
  Task<Result<FetchedRange>> fetch(change::Placed placed, std::uint32_t offset, std::uint32_t length,
                                   FetchTrust trust, std::optional<Duration> patience);
  // Every fetch, under way or to come, ends with `closed`, once its calls to miners end.
  void stop();
  Task<void> close();

 private:
  struct Stripe;      // one equal range of the slices, and what has arrived of it
  struct MinerPace {  // smoothed duration of reads from one miner, small and large
    Duration small{};
    Duration large{};
    std::uint64_t skipped = 0;  // times that it was left out for being slow: now and then it is asked again
  };

  Task<Result<FetchedRange>> fetch_elsewhere(change::Placed placed, std::vector<std::uint16_t> lost,
                                             std::uint32_t offset, std::uint32_t length, FetchTrust trust,
                                             TimePoint until);
  // When it fails, `lost` are the slices that did not come.
  Task<Result<FetchedRange>> attempt(change::Placed placed, std::uint32_t offset, std::uint32_t length,
                                     FetchTrust trust, TimePoint until, std::vector<std::uint16_t>& lost);
  Task<Result<FetchedRange>> gather(const std::vector<std::shared_ptr<Stripe>>& stripes,
                                    const std::vector<SlicePiece>& pieces, FetchedRange out,
                                    std::uint32_t length, TimePoint until);
  Task<Status> fill(std::shared_ptr<Stripe> stripe, TimePoint deadline);
  void leave(std::vector<std::shared_ptr<Stripe>> stripes);
  void ask(const std::shared_ptr<Stripe>& stripe, std::uint16_t index);
  Task<void> read_slice(std::shared_ptr<Stripe> stripe, std::uint16_t index);
  Task<Result<SliceReadAnswer>> read_proven(const Stripe& stripe, std::uint16_t index, MutableByteView into);
  bool ask_another(const std::shared_ptr<Stripe>& stripe);
  Duration hedge_delay(const Stripe& stripe) const;
  bool is_slow(const Stripe& stripe, std::uint16_t index) const;
  void note_pace(const MinerId& miner, std::uint64_t length, Duration took);
  Duration pace_of(const MinerId& miner, std::uint64_t length) const;

  Runtime& runtime_;
  SliceTransport& transport_;
  VolumeId volume_;
  Duration request_deadline_;
  Metrics& metrics_;
  Counter& hedges_;
  Counter& decodes_;
  Counter& liars_;
  std::uint64_t left_bytes_max_;
  BufferPool segments_;
  // Reads that nobody waits for any more, of attempts that are over; oldest first.
  std::list<std::vector<std::shared_ptr<Stripe>>> left_;
  std::map<MinerId, MinerPace> pace_;
  bool closing_ = false;
  Signal closed_;
  TaskGroup tasks_;
};

}  // namespace cumulus
