// What tasks wait on, timers and workers: the promises of objectstore/io on a real reactor, and in virtual
// time where an order of events must be exact. And the lifetimes: what may be gone when a wake-up arrives.
#include <atomic>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <thread>
#include <unistd.h>

#include "objectstore/io/adaptive_poll.h"
#include "objectstore/io/page_cache_reader.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/sync.h"
#include "objectstore/io/uring_file_system.h"
#include "tests/fakes/sim_runtime.h"

namespace cumulus {
namespace {

using namespace std::chrono_literals;

// Runs `body` on a reactor; the callable outlives its coroutine.
void on_reactor(std::size_t workers, std::function<Task<void>(Reactor&)> body) {
  Reactor reactor(workers);
  reactor.run(body(reactor));
}

// Runs `body` in virtual time.
void in_virtual_time(std::function<Task<void>(Runtime&)> body) {
  SimWorld world(1);
  SimProcess& process = world.start_process("test");
  bool done = false;
  process.spawn(body(process), [&] { done = true; });
  EXPECT_TRUE(world.run_until([&] { return done; }, 1'000'000)) << "deadlock or livelock";
}

TEST(SignalTest, WakesAllWhoWaitAndNobodyLater) {
  in_virtual_time([](Runtime& runtime) -> Task<void> {
    Signal signal(runtime);
    TaskGroup group(runtime);
    int woken = 0;
    const auto body = [&]() -> Task<void> {
      co_await signal.wait();
      ++woken;
    };
    for (int i = 0; i < 3; ++i) group.spawn(body);
    co_await runtime.sleep_for(1ms);
    EXPECT_TRUE(signal.has_waiters());
    EXPECT_EQ(runtime.suspended(), 3u);
    signal.notify_all();
    EXPECT_EQ(woken, 0) << "a wake-up is posted, never run inside the waker";
    EXPECT_FALSE(signal.has_waiters());
    co_await group.join();
    EXPECT_EQ(woken, 3);
    EXPECT_EQ(runtime.suspended(), 0u);
    EXPECT_FALSE(co_await signal.wait_until(runtime.now() + 1ms)) << "a notification is not remembered";
  });
}

TEST(SignalTest, ADeadlineEndsOnlyItsOwnWait) {
  in_virtual_time([](Runtime& runtime) -> Task<void> {
    Signal signal(runtime);
    TaskGroup group(runtime);
    std::string order;
    const TimePoint begin = runtime.now();
    const auto wait = [&](Duration patience) -> Task<void> {
      const bool woken = co_await signal.wait_until(begin + patience);
      order += woken ? 'w' : 't';
    };
    const auto first = [&]() -> Task<void> { return wait(1ms); };
    const auto middle = [&]() -> Task<void> { return wait(3ms); };
    const auto last = [&]() -> Task<void> { return wait(9ms); };
    group.spawn(last);
    group.spawn(first);
    group.spawn(middle);
    co_await runtime.sleep_for(5ms);
    EXPECT_EQ(order, "tt");
    signal.notify_all();
    co_await group.join();
    EXPECT_EQ(order, "ttw");
    EXPECT_EQ(runtime.now(), begin + 5ms);
  });
}

TEST(SignalTest, MayBeGoneWhenItsWakeUpsArrive) {
  in_virtual_time([](Runtime& runtime) -> Task<void> {
    TaskGroup group(runtime);
    auto signal = std::make_unique<Signal>(runtime);
    const auto forever = [&]() -> Task<void> { co_await signal->wait(); };
    const auto patient = [&]() -> Task<void> {
      const bool woken = co_await signal->wait_until(runtime.now() + 1h);
      EXPECT_TRUE(woken);
    };
    group.spawn(forever);
    group.spawn(patient);
    co_await runtime.sleep_for(1ms);
    signal->notify_all();
    signal.reset();
    co_await group.join();
  });
}

TEST(SemaphoreTest, FirstComeFirstServedAndNeverTooMuch) {
  in_virtual_time([](Runtime& runtime) -> Task<void> {
    Semaphore semaphore(runtime, 10);
    TaskGroup group(runtime);
    std::vector<int> order;
    std::uint64_t held = 0;
    for (int i = 0; i < 50; ++i) {
      group.spawn([&, i]() -> Task<void> {
        co_await runtime.sleep_for(1us * i);
        const std::uint64_t amount = static_cast<std::uint64_t>(i * 7 % 13 + 1);  // some above the capacity
        const Semaphore::Hold hold = co_await semaphore.acquire(amount);
        order.push_back(i);
        held += std::min<std::uint64_t>(amount, 10);
        EXPECT_LE(held, 10u);
        EXPECT_GE(semaphore.in_use(), held);  // handed over before the one in front runs
        EXPECT_LE(semaphore.in_use(), 10u);
        co_await runtime.sleep_for(1ms);
        held -= std::min<std::uint64_t>(amount, 10);
      });
    }
    co_await group.join();
    EXPECT_EQ(semaphore.in_use(), 0u);
    EXPECT_EQ(order.size(), 50u);
    EXPECT_TRUE(std::ranges::is_sorted(order)) << "a small request overtook a large one";
  });
}

TEST(SemaphoreTest, NobodyOvertakesTheQueue) {
  in_virtual_time([](Runtime& runtime) -> Task<void> {
    Semaphore semaphore(runtime, 4);
    TaskGroup group(runtime);
    Semaphore::Hold three = co_await semaphore.acquire(3);
    const auto large = [&]() -> Task<void> {
      const Semaphore::Hold all = co_await semaphore.acquire(4);
      EXPECT_EQ(semaphore.in_use(), 4u);
    };
    group.spawn(large);
    co_await runtime.sleep_for(1ms);
    Semaphore::Hold one;
    EXPECT_FALSE(semaphore.try_acquire(one, 1)) << "one is free, but somebody waits for four";
    three.release();
    EXPECT_FALSE(semaphore.try_acquire(one, 1)) << "what was released belongs to the one in front";
    co_await group.join();
    EXPECT_TRUE(semaphore.try_acquire(one, 4));
    Semaphore::Hold moved = std::move(one);
    one.release();
    EXPECT_EQ(semaphore.in_use(), 4u);
    moved.release();
    EXPECT_EQ(semaphore.in_use(), 0u);
  });
}

TEST(SemaphoreDeathTest, MustOutliveItsHolds) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(on_reactor(0,
                          [](Reactor& reactor) -> Task<void> {
                            auto semaphore = std::make_unique<Semaphore>(reactor, 2);
                            const Semaphore::Hold hold = co_await semaphore->acquire();
                            semaphore.reset();
                          }),
               "free_ == capacity_");
}

TEST(TaskGroupTest, JoinsWhatTasksSpawnToo) {
  in_virtual_time([](Runtime& runtime) -> Task<void> {
    TaskGroup group(runtime);
    int ended = 0;
    std::function<Task<void>(int)> body = [&](int depth) -> Task<void> {
      co_await runtime.sleep_for(1ms);
      if (depth > 0)
        for (int i = 0; i < 2; ++i) group.spawn([&body, depth]() -> Task<void> { return body(depth - 1); });
      ++ended;
    };
    group.spawn([&]() -> Task<void> { return body(4); });
    co_await group.join();
    EXPECT_EQ(ended, 31);
    EXPECT_EQ(group.running(), 0u);
  });
}

TEST(TaskGroupDeathTest, MustBeJoined) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(on_reactor(0,
                          [](Reactor& reactor) -> Task<void> {
                            TaskGroup group(reactor);
                            group.spawn([&]() -> Task<void> { co_await reactor.sleep_for(1h); });
                            co_await reactor.sleep_for(1ms);
                          }),
               "running_ == 0");
}

TEST(ReactorTest, TimersFireInOrderAndCancelledOnesDoNot) {
  on_reactor(0, [](Reactor& reactor) -> Task<void> {
    std::string fired;
    const TimePoint begin = reactor.now();
    const TimerId second = reactor.start_timer(begin + 20ms, [&] { fired += '2'; });
    TimerId cancelled = 0;
    reactor.start_timer(begin + 10ms, [&] {
      fired += '1';
      reactor.cancel_timer(cancelled);
    });
    cancelled = reactor.start_timer(begin + 10ms, [&] { fired += 'x'; });
    reactor.start_timer(begin + 30ms, [&] { fired += '3'; });
    co_await reactor.sleep_until(begin + 40ms);
    EXPECT_EQ(fired, "123");
    EXPECT_GE(reactor.now() - begin, 40ms);
    reactor.cancel_timer(second);  // it fired: nothing happens
    reactor.cancel_timer(0);
  });
}

TEST(ReactorTest, WaitingForMomentsPastStarvesNobody) {
  on_reactor(0, [](Reactor& reactor) -> Task<void> {
    bool stop = false;
    std::uint64_t turns = 0;
    TaskGroup group(reactor);
    const auto impatient = [&]() -> Task<void> {
      while (!stop) {
        co_await reactor.sleep_until(TimePoint{});
        ++turns;
      }
    };
    group.spawn(impatient);
    group.spawn(impatient);
    co_await reactor.sleep_for(20ms);
    bool posted = false;
    reactor.post([&] { posted = true; });
    co_await reactor.sleep_for(1ms);
    EXPECT_TRUE(posted);
    EXPECT_GT(turns, 2u);
    stop = true;
    co_await group.join();
  });
}

TEST(ReactorTest, WorkRunsOnWorkersAndComesBack) {
  on_reactor(3, [](Reactor& reactor) -> Task<void> {
    const auto here = std::this_thread::get_id();
    std::atomic<int> elsewhere = 0;
    TaskGroup group(reactor);
    std::uint64_t sum = 0;
    for (std::uint64_t i = 0; i < 500; ++i) {
      group.spawn([&, i]() -> Task<void> {
        const std::uint64_t square = co_await reactor.offload([&elsewhere, here, i] {
          elsewhere += std::this_thread::get_id() != here;
          return i * i;
        });
        EXPECT_EQ(std::this_thread::get_id(), here);
        sum += square;
      });
    }
    co_await group.join();
    EXPECT_EQ(elsewhere, 500);
    EXPECT_EQ(sum, 499u * 500 * 999 / 6);
  });
}

TEST(ReactorTest, WithoutWorkersWorkRunsHere) {
  on_reactor(0, [](Reactor& reactor) -> Task<void> {
    const int value = co_await reactor.offload([] { return 7; });
    EXPECT_EQ(value, 7);
  });
}

TEST(ReactorTest, OtherThreadsReachItByPost) {
  on_reactor(0, [](Reactor& reactor) -> Task<void> {
    Signal signal(reactor);
    std::thread other([&] { reactor.post([&] { signal.notify_all(); }); });
    co_await signal.wait();
    other.join();
  });
}

TEST(ReactorTest, RunsAgain) {
  Reactor reactor(1);
  for (int i = 0; i < 3; ++i) {
    int value = 0;
    const auto body = [](Reactor& on, int& into) -> Task<void> {
      co_await on.sleep_for(1ms);
      into = co_await on.offload([] { return 1; });
    };
    reactor.run(body(reactor, value));
    EXPECT_EQ(value, 1);
  }
}

// Whoever a completion wakes may drop the file system at once, and the reactor goes on.
TEST(UringTest, TheFileSystemMayGoWithItsLastOperation) {
  const auto directory =
      std::filesystem::temp_directory_path() / ("cumulus_io_" + std::to_string(::getpid()));
  std::filesystem::create_directories(directory);
  on_reactor(2, [&](Reactor& reactor) -> Task<void> {
    Bytes block(4096, 1);
    for (int i = 0; i < 50; ++i) {
      auto files = make_uring_file_system(reactor, 4);
      auto file = files->open((directory / "f").string(), {.write = true, .create = true});
      EXPECT_TRUE(file.has_value());
      const Status written = co_await (*file)->write_at(0, block);
      EXPECT_TRUE(written.has_value());
      const Status synced = co_await (*file)->datasync();
      EXPECT_TRUE(synced.has_value());
      file->reset();
      files.reset();
      co_await reactor.sleep_for(100us);
    }
  });
  std::filesystem::remove_all(directory);
}

TEST(RealFilesTest, LinksAndDevicesAreNotOpened) {
  const auto directory =
      std::filesystem::temp_directory_path() / ("cumulus_io_" + std::to_string(::getpid()));
  std::filesystem::create_directories(directory);
  std::filesystem::create_symlink(directory / "target", directory / "link");
  on_reactor(1, [&](Reactor& reactor) -> Task<void> {
    const auto files = make_worker_file_system(reactor);
    EXPECT_FALSE(files->open((directory / "link").string(), {.write = true, .create = true}).has_value());
    EXPECT_FALSE(std::filesystem::exists(directory / "target"));
    const auto made = files->open((directory / "target").string(), {.write = true, .create = true});
    EXPECT_TRUE(made.has_value());
    EXPECT_FALSE(files->open((directory / "link").string(), {}).has_value());
    EXPECT_FALSE(files->open("/dev/null", {.write = true}).has_value());
    EXPECT_TRUE(files->remove((directory / "link").string()).has_value());
    EXPECT_TRUE(files->exists((directory / "target").string()).value_or(false));
    co_return;
  });
  std::filesystem::remove_all(directory);
}

// A file that may not grow further: the error is told, and what fitted may be there.
TEST(UringTest, AWriteThatCannotCompleteIsAnError) {
  const auto directory =
      std::filesystem::temp_directory_path() / ("cumulus_io_" + std::to_string(::getpid()));
  std::filesystem::create_directories(directory);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = before;
  limit.rlim_cur = 64 << 10;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  on_reactor(1, [&](Reactor& reactor) -> Task<void> {
    std::vector<std::unique_ptr<FileSystem>> kinds;
    kinds.push_back(make_uring_file_system(reactor));
    kinds.push_back(make_worker_file_system(reactor));
    const Bytes large(100 << 10, 1);
    for (const auto& files : kinds) {
      const auto file = files->open((directory / "limited").string(), {.write = true, .create = true});
      EXPECT_TRUE(file.has_value());
      const Status written = co_await (*file)->write_at(0, large);
      EXPECT_FALSE(written.has_value());
      EXPECT_LE((*file)->size().value_or(0), 64u << 10);
      const Status reserved = co_await (*file)->allocate(1 << 20);
      EXPECT_FALSE(reserved.has_value());
    }
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  std::filesystem::remove_all(directory);
}

// What comes soon is looked for, what comes late is slept for at once.
TEST(AdaptivePollTest, LooksOnlyWhileThatPays) {
  struct HandClock final : Clock {
    TimePoint now() const override { return time; }
    WallTime wall_now() const override { return 0; }
    TimePoint time{};
  } clock;
  AdaptivePoll poll(clock);
  const auto looks = [&](Duration each, std::size_t under_way = 1) {
    int count = 0;
    for (; poll.again(under_way); clock.time += each) ++count;
    return count;
  };
  EXPECT_EQ(looks(1us), 0) << "nobody is known to be fast yet";
  clock.time += 100us;
  poll.woke();
  EXPECT_EQ(looks(1us), 200);
  poll.woke();
  EXPECT_EQ(looks(1us), 0) << "it took longer than looking lasts";
  clock.time += 100us;
  poll.woke();
  EXPECT_EQ(looks(1us, 8), 50) << "several callers need the processors";
  clock.time += 100us;
  poll.woke();
  EXPECT_TRUE(poll.again(1));
  clock.time += 190us;
  poll.arrived();
  EXPECT_EQ(looks(1us), 200) << "each wait has its own time";
  clock.time += 1s;
  poll.woke();
  EXPECT_EQ(looks(1us), 0) << "who is idle costs nothing";
  clock.time += 100us;
  poll.woke();
  EXPECT_GT(looks(0us), 100) << "and where time stands still it ends";
}

TEST(PageCacheReaderTest, GivesWhatIsInMemoryAndNothingElse) {
  const auto path = std::filesystem::path(::testing::TempDir()) / "page_cache_reader_test";
  constexpr std::size_t kSize = 64 << 10;
  {
    std::ofstream file(path, std::ios::binary);
    for (std::size_t i = 0; i < kSize; ++i) file.put(static_cast<char>(i / 4096));
  }
  const auto reader = PageCacheReader::open(path.string());
  ASSERT_TRUE(reader);
  EXPECT_EQ((*reader)->size(), kSize);
  Bytes page(4096);
  ASSERT_TRUE((*reader)->try_read(5 * 4096, page));
  EXPECT_EQ(page, Bytes(4096, 5));
  EXPECT_FALSE((*reader)->try_read(kSize - 100, page)) << "beyond the end";
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(descriptor, 0);
  ASSERT_EQ(::fsync(descriptor), 0);
  struct statfs where{};
  ASSERT_EQ(::fstatfs(descriptor, &where), 0);
  bool cached = true;
  for (int i = 0; i < 500 && cached && where.f_type != TMPFS_MAGIC; ++i) {  // it is only advice
    ASSERT_EQ(::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED), 0);
    cached = (*reader)->try_read(5 * 4096, page);
    if (cached) std::this_thread::sleep_for(10ms);
  }
  EXPECT_EQ(cached, where.f_type == TMPFS_MAGIC) << "only on the disk";
  ASSERT_EQ(::pread(descriptor, page.data(), page.size(), 5 * 4096), 4096);
  EXPECT_TRUE((*reader)->try_read(5 * 4096, page));
  ::close(descriptor);
  std::filesystem::remove(path);
  EXPECT_EQ(PageCacheReader::open(path.string()).error().kind(), ErrorKind::not_found);
}

}  // namespace
}  // namespace cumulus
