// EndableTransport: the transport as a part of a volume sees it. The same verbs as what it wraps, until
// end(): then nothing more is asked of miners through it, so that closing a volume never waits for one that
// says nothing. What it wraps lives on, for others and for the next opening.
//
// It must never retry, reorder or keep anything. Reactor thread.
#pragma once

#include "objectstore/slice_transport.h"

namespace cumulus {

class EndableTransport final : public SliceTransport {
 public:
  // `inner` outlives it.
  explicit EndableTransport(SliceTransport& inner) : inner_(inner) {}

  // All calls to come end with `closed`, and so do those of these kinds that are under way (in `inner`,
  // whoever made them).
  void end(Calls under_way);

  const std::vector<MinerEntry>& miners() const override { return inner_.miners(); }
  void set_miners(std::vector<MinerEntry> miners) override { inner_.set_miners(std::move(miners)); }
  Task<Status> put(MinerId miner, SlicePut request, TimePoint deadline) override;
  Task<Result<SliceReadAnswer>> read(MinerId miner, SliceRead request, TimePoint deadline) override;
  Task<Result<SliceListPage>> list(MinerId miner, std::optional<Bytes> from, TimePoint deadline) override;
  Task<Result<std::vector<std::optional<Digest>>>> have(MinerId miner, std::vector<SliceId> slices,
                                                        TimePoint deadline) override;
  Task<Status> remove(MinerId miner, std::vector<SliceId> slices, TimePoint deadline) override;
  Task<Result<HolderAnswer>> promise(MinerId miner, BallotClaim claim, TimePoint deadline) override;
  Task<Result<HolderAnswer>> accept(MinerId miner, Superblock record, TimePoint deadline) override;
  Task<Result<HolderState>> superblock(MinerId miner, TimePoint deadline) override;
  Task<Result<SliceReadAnswer>> challenge(MinerId miner, SliceChallenge request, TimePoint deadline) override;
  Task<Result<MinerStatus>> status(MinerId miner, TimePoint deadline) override;
  void try_now() override { inner_.try_now(); }
  Duration expected_latency(MinerId miner) const override { return inner_.expected_latency(miner); }
  void interrupt(Calls which) override { inner_.interrupt(which); }
  void interrupt_reads(const void* owner) override { inner_.interrupt_reads(owner); }
  // As end(all): what it wraps is closed by its owner.
  Task<void> close() override;

 private:
  SliceTransport& inner_;
  bool ended_ = false;
};

}  // namespace cumulus
