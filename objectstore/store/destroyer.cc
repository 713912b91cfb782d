#include "objectstore/store/destroyer.h"

#include "objectstore/base/check.h"
#include "objectstore/io/sync.h"
#include "objectstore/manifest.h"

namespace cumulus {

Destroyer::Destroyer(Runtime& runtime, SliceTransport& transport, const Superblock& mark,
                     Duration request_deadline)
    : runtime_(runtime), transport_(transport), volume_(mark.volume), request_deadline_(request_deadline) {
  CHECK(mark.destroyed);
}

Task<Result<std::vector<std::string>>> Destroyer::delete_slices(Progress progress) {
  deleted_ = 0;
  interrupted_ = false;
  std::vector<std::string> left;
  const std::vector<MinerEntry> miners = transport_.miners();
  TaskGroup work(runtime_);
  for (const MinerEntry& miner : miners) work.spawn(empty_miner(miner, left, progress));
  co_await work.join();
  if (interrupted_)
    co_return fail(ErrorKind::closed, "interrupted; the volume is destroyed, but slices are left");
  co_return left;
}

// Lists from the start each time: what a page named is gone before the next one is asked for. A page that
// cannot be emptied ends it, so that a miner that refuses to delete is not asked for ever.
Task<void> Destroyer::empty_miner(MinerEntry miner, std::vector<std::string>& left,
                                  const Progress& progress) {
  std::set<SliceId> begun;  // the first of each page that was deleted
  while (!interrupted_) {
    const TimePoint deadline = runtime_.now() + request_deadline_;
    auto page = co_await transport_.list(miner.id, std::nullopt, deadline);
    if (!page) {
      left.push_back(miner.address + ": " + page.error().message());
      co_return;
    }
    std::vector<SliceId> slices;
    for (const SliceListing& listed : page->slices)
      if (const auto manifest = Manifest::decode(listed.manifest);
          manifest && manifest->header.volume == volume_)
        slices.push_back({manifest->id(), listed.index});
    if (page->slices.empty()) co_return;
    if (slices.empty() || !begun.insert(slices.front()).second) {
      left.push_back(miner.address + ": it goes on listing slices that it was told to delete");
      co_return;
    }
    const std::size_t count = slices.size();
    const Status removed =
        co_await transport_.remove(miner.id, std::move(slices), runtime_.now() + request_deadline_);
    if (!removed) {
      left.push_back(miner.address + ": " + removed.error().message());
      co_return;
    }
    deleted_ += count;
    if (progress && !progress(deleted_, 0)) interrupted_ = true;
  }
}

}  // namespace cumulus
