#include "objectstore/store/endable_transport.h"

namespace cumulus {
namespace {

std::unexpected<Error> over() { return fail(ErrorKind::closed, "the volume is being closed"); }

}  // namespace

void EndableTransport::end(Calls under_way) {
  ended_ = true;
  inner_.interrupt(under_way);
}

Task<void> EndableTransport::close() {
  end(Calls::all);
  co_return;
}

Task<Status> EndableTransport::put(MinerId miner, SlicePut request, TimePoint deadline) {
  if (ended_) co_return over();
  co_return co_await inner_.put(miner, std::move(request), deadline);
}

Task<Result<SliceReadAnswer>> EndableTransport::read(MinerId miner, SliceRead request, TimePoint deadline) {
  if (ended_) co_return over();
  co_return co_await inner_.read(miner, std::move(request), deadline);
}

Task<Result<SliceListPage>> EndableTransport::list(MinerId miner, std::optional<Bytes> from,
                                                   TimePoint deadline) {
  if (ended_) co_return over();
  co_return co_await inner_.list(miner, std::move(from), deadline);
}

Task<Result<std::vector<std::optional<Digest>>>> EndableTransport::have(MinerId miner,
                                                                        std::vector<SliceId> slices,
                                                                        TimePoint deadline) {
  if (ended_) co_return over();
  co_return co_await inner_.have(miner, std::move(slices), deadline);
}

Task<Status> EndableTransport::remove(MinerId miner, std::vector<SliceId> slices, TimePoint deadline) {
  if (ended_) co_return over();
  co_return co_await inner_.remove(miner, std::move(slices), deadline);
}

Task<Result<HolderAnswer>> EndableTransport::promise(MinerId miner, BallotClaim claim, TimePoint deadline) {
  if (ended_) co_return over();
  co_return co_await inner_.promise(miner, claim, deadline);
}

Task<Result<HolderAnswer>> EndableTransport::accept(MinerId miner, Superblock record, TimePoint deadline) {
  if (ended_) co_return over();
  co_return co_await inner_.accept(miner, std::move(record), deadline);
}

Task<Result<HolderState>> EndableTransport::superblock(MinerId miner, TimePoint deadline) {
  if (ended_) co_return over();
  co_return co_await inner_.superblock(miner, deadline);
}

Task<Result<SliceReadAnswer>> EndableTransport::challenge(MinerId miner, SliceChallenge request,
                                                          TimePoint deadline) {
  if (ended_) co_return over();
  co_return co_await inner_.challenge(miner, request, deadline);
}

Task<Result<MinerStatus>> EndableTransport::status(MinerId miner, TimePoint deadline) {
  if (ended_) co_return over();
  co_return co_await inner_.status(miner, deadline);
}

}  // namespace cumulus
