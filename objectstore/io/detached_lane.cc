#include "objectstore/io/detached_lane.h"

#include <thread>

#include "objectstore/base/check.h"

namespace cumulus {

DetachedLane::~DetachedLane() {
  if (!shared_) return;
  std::optional<Callback> work;
  std::optional<Callback> done;
  {
    const MutexLock lock(shared_->mutex);
    shared_->runtime = nullptr;
    work = std::exchange(shared_->work, std::nullopt);
    done = std::exchange(shared_->done, std::nullopt);
  }
  shared_->ready.notify_all();
}

bool DetachedLane::busy() const {
  if (!shared_) return false;
  const MutexLock lock(shared_->mutex);
  return shared_->done.has_value();
}

void DetachedLane::start(Callback work, Callback done) {
  CHECK(!busy());
  const bool first = !shared_;
  if (first) shared_ = std::make_shared<Shared>();
  {
    const MutexLock lock(shared_->mutex);
    shared_->runtime = &runtime_;
    shared_->work = std::move(work);
    shared_->done = std::move(done);
  }
  if (first) std::thread([shared = shared_] { loop(shared); }).detach();
  shared_->ready.notify_one();
}

void DetachedLane::loop(const std::shared_ptr<Shared>& shared) {
  for (;;) {
    Callback work;
    {
      MutexLock lock(shared->mutex);
      lock.wait(shared->ready, [&shared]() NO_THREAD_SAFETY_ANALYSIS {
        return shared->runtime == nullptr || shared->work.has_value();
      });
      if (shared->runtime == nullptr) return;
      work = std::move(*shared->work);
      shared->work.reset();
    }
    work();
    const MutexLock lock(shared->mutex);
    // Under the lock: the runtime is there at least until the lane is gone.
    if (shared->runtime != nullptr) shared->runtime->post([shared] { finish(*shared); });
  }
}

void DetachedLane::finish(Shared& shared) {
  std::optional<Callback> done;
  {
    const MutexLock lock(shared.mutex);
    done = std::exchange(shared.done, std::nullopt);
  }
  if (done) (*done)();
}

}  // namespace cumulus
