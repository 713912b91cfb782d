// A small world for the tests of the store's rooms: a reactor, simulated miners, and homes with a real
// directory and a client of their own. Header-only.
#pragma once

#include <filesystem>
#include <gtest/gtest.h>
#include <memory>

#include "objectstore/base/metrics.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/uring_file_system.h"
#include "objectstore/store/holder_survey.h"
#include "objectstore/store/sealed_label.h"
#include "objectstore/store/tail_keeper.h"
#include "tests/fakes/sim_network.h"

// ASSERT_* return from their function, which a coroutine cannot.
#define CO_ASSERT(condition)            \
  do {                                  \
    const bool holds = bool(condition); \
    EXPECT_TRUE(holds) << #condition;   \
    if (!holds) co_return;              \
  } while (false)
#define EXPECT_OK(status)                              \
  do {                                                 \
    const auto outcome = (status);                     \
    EXPECT_TRUE(outcome) << outcome.error().message(); \
  } while (false)

namespace cumulus {

using namespace std::chrono_literals;

inline InstanceId random_instance(Runtime& runtime) {
  InstanceId id;
  runtime.random().fill(id.bytes);
  return id;
}

inline KeyTree test_keys() {
  std::array<std::uint8_t, 32> master{};
  master.fill(7);
  return KeyTree(SecretKey(master));
}

class StoreWorld {
 public:
  explicit StoreWorld(std::size_t miners, std::uint64_t capacity_each = 4ull << 30)
      : network(reactor, miners, capacity_each) {
    root_ = std::filesystem::temp_directory_path() /
            ("cumulus_store_" + std::to_string(::getpid()) + "_" + std::to_string(reactor.random().u64()));
    std::filesystem::create_directories(root_);
    disk = make_worker_file_system(reactor);
  }
  ~StoreWorld() { std::filesystem::remove_all(root_); }

  std::string directory(const std::string& name) {
    const auto path = root_ / name;
    std::filesystem::create_directories(path);
    return path.string();
  }
  // Runs the test's body on the reactor, then waits until the network is quiet.
  void run(std::function<Task<void>()> body) {
    reactor.run([](StoreWorld& world, std::function<Task<void>()> inner) -> Task<void> {
      co_await inner();
      co_await world.network.settle();
    }(*this, std::move(body)));
  }
  Superblock first_record(std::uint8_t k, std::uint8_t m) {
    Superblock record;
    record.volume = keys.volume_id();
    record.sign_public_key = keys.signing_key().public_key();
    record.k = k;
    record.m = m;
    record.holders = choose_holders(network.entries(), m, {});
    return record;
  }

  Reactor reactor{1};
  SimNetwork network;
  KeyTree keys = test_keys();
  Metrics metrics;
  std::unique_ptr<FileSystem> disk;

 private:
  std::filesystem::path root_;
};

// One home: a directory, a client, and one opening at a time.
class Home {
 public:
  Home(StoreWorld& world, std::string name, std::size_t client)
      : world_(world),
        name_(std::move(name)),
        transport(world.reactor, world.network, client, world.keys.volume_id()),
        file(*world.disk, world.directory(name_)),
        stragglers_(world.reactor) {
    transport.set_miners(world.network.entries());
  }

  Task<Status> load() { return file.load(world_.keys.volume_id()); }
  Task<Result<Survey>> survey(Duration patience = 300ms) {
    co_return co_await survey_holders(world_.reactor, transport, world_.keys.volume_id(), file.record(),
                                      patience, stragglers_);
  }
  // Opens: what a volume does. `known`: the record to begin with.
  TailKeeper& keeper(Superblock known) {
    TailKeeper::Options options;
    options.request_deadline = 200ms;
    options.retry_min = 5ms;
    options.retry_max = 40ms;
    tail = std::make_unique<TailKeeper>(world_.reactor, transport, world_.keys, file, std::move(known),
                                        transport.miners(), name_ + "@host", options, world_.metrics,
                                        [this](Error reason) { fenced = std::move(reason); });
    return *tail;
  }
  // A new volume with this home as its writer.
  Task<Status> create(std::uint8_t k, std::uint8_t m) {
    CO_TRY_OK(co_await load());
    const Ballot ballot = file.record().next_ballot({}, false, random_instance(world_.reactor));
    co_return co_await keeper(world_.first_record(k, m)).claim(ballot, Adopt::own, 2s);
  }
  // Opens from what a survey says.
  Task<Status> open(Adopt adopt, bool take_over) {
    CO_TRY_OK(co_await load());
    CO_TRY(const Survey seen, co_await survey());
    if (!seen.newest) co_return fail(ErrorKind::unavailable, "no record");
    const Ballot ballot = file.record().next_ballot(seen.highest, take_over, random_instance(world_.reactor));
    co_return co_await keeper(*seen.newest).claim(ballot, adopt, 2s);
  }
  Task<Status> set_tail(Sequence sequence) {
    tail->update([sequence](TailKeeper::Intent& intent) {
      intent.tail = {{SegmentKind::log, 1, sequence}, {}, sequence * 10};
    });
    co_return co_await tail->settled(2s);
  }
  Task<void> close() {
    if (tail) co_await tail->close();
    tail.reset();
    co_await stragglers_.join();
  }
  Task<void> end() {
    co_await close();
    co_await transport.close();
  }

 private:
  StoreWorld& world_;
  std::string name_;

 public:
  FakeTransport transport;
  HomeFile file;
  std::unique_ptr<TailKeeper> tail;
  std::optional<Error> fenced;

 private:
  TaskGroup stragglers_;
};

}  // namespace cumulus
