// Clang's thread-safety annotations (https://clang.llvm.org/docs/ThreadSafetyAnalysis.html) and a mutex that
// carries them. libstdc++'s std::mutex is not annotated, so annotated state uses Mutex and MutexLock.
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define CUMULUS_TSA(x) __attribute__((x))
#else
#define CUMULUS_TSA(x)
#endif
#define CAPABILITY(x) CUMULUS_TSA(capability(x))
#define SCOPED_CAPABILITY CUMULUS_TSA(scoped_lockable)
#define GUARDED_BY(x) CUMULUS_TSA(guarded_by(x))
#define REQUIRES(...) CUMULUS_TSA(requires_capability(__VA_ARGS__))
#define ACQUIRE(...) CUMULUS_TSA(acquire_capability(__VA_ARGS__))
#define RELEASE(...) CUMULUS_TSA(release_capability(__VA_ARGS__))
#define EXCLUDES(...) CUMULUS_TSA(locks_excluded(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS CUMULUS_TSA(no_thread_safety_analysis)

namespace cumulus {

class CAPABILITY("mutex") Mutex {
 public:
  void lock() ACQUIRE() { mutex_.lock(); }
  void unlock() RELEASE() { mutex_.unlock(); }

 private:
  friend class MutexLock;
  std::mutex mutex_;
};

class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ACQUIRE(mutex) : lock_(mutex.mutex_) {}
  ~MutexLock() RELEASE() {}
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  // Waits until `ready()`; the lock is held when it returns.
  template <class Ready>
  void wait(std::condition_variable& condition, Ready ready) NO_THREAD_SAFETY_ANALYSIS {
    condition.wait(lock_, ready);
  }

 private:
  std::unique_lock<std::mutex> lock_;
};

}  // namespace cumulus
