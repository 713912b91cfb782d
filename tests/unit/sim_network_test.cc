// The simulated network and miners do fail and lie as they are told, count it, and every call still ends.
#include "tests/fakes/sim_network.h"

#include <gtest/gtest.h>

#include "objectstore/crypto/merkle.h"
#include "objectstore/io/reactor.h"
#include "tests/fakes/sample_formats.h"

namespace cumulus {
namespace {

using namespace std::chrono_literals;

class SimNetworkTest : public ::testing::Test {
 protected:
  void run(std::function<Task<void>()> body) {
    const auto whole = [](SimNetworkTest& test, std::function<Task<void>()> inside) -> Task<void> {
      co_await inside();
      co_await test.transport_.close();
      co_await test.other_.close();
      co_await test.network_.settle();
    };
    reactor_.run(whole(*this, std::move(body)));
  }
  TimePoint in(Duration time) { return reactor_.now() + time; }
  MinerId id(std::size_t at) { return network_.entries()[at].id; }
  std::uint64_t count(SimFault fault) const { return network_.faults()[static_cast<std::size_t>(fault)]; }
  SlicePut put(std::uint16_t index) {
    SlicePut request;
    request.slice = {segment_.manifest.id(), index};
    request.manifest = segment_.encoded;
    request.data = *segment_.slices[index];
    request.owner = segment_.slices[index];
    return request;
  }
  // Reads a slice whole with proof; true when it verifies against the true root.
  Task<bool> verified(std::uint16_t index) {
    SliceRead request;
    request.slice = {segment_.manifest.id(), index};
    request.length = segment_.slices[index]->size();
    request.with_proof = true;
    const auto answer = co_await transport_.read(id(0), request, in(1s));
    co_return answer&& merkle_verify(segment_.manifest.roots[index], request.length, 0, answer->leaves,
                                     answer->proof);
  }

  Reactor reactor_{0};
  SimNetwork network_{reactor_, 3, 1 << 24};
  FakeTransport transport_{reactor_, network_, 1, sample_volume()};
  FakeTransport other_{reactor_, network_, 2, sample_volume()};
  SampleSegment segment_ = sample_segment({SegmentKind::log, 1, 1});
};

TEST_F(SimNetworkTest, LossesAndDuplicatesHappenAndEndByTheDeadline) {
  SimWeather weather;
  weather.request_lost = weather.answer_lost = weather.duplicated = 300;
  weather.duplicate_after_max = 5ms;
  network_.set_weather(weather);
  run([this]() -> Task<void> {
    int answered = 0;
    for (int i = 0; i < 60; ++i) {
      const auto status = co_await transport_.status(id(0), in(15ms));
      answered += status ? 1 : 0;
    }
    EXPECT_GT(answered, 5);
    EXPECT_LT(answered, 55);
  });
  EXPECT_GT(count(SimFault::request_lost), 0u);
  EXPECT_GT(count(SimFault::answer_lost), 0u);
  EXPECT_GT(count(SimFault::request_duplicated), 0u);
  EXPECT_NE(network_.faults_text().find("request_lost"), std::string::npos);
}

TEST_F(SimNetworkTest, ACutConcernsOneClientOnly) {
  run([this]() -> Task<void> {
    network_.cut_all(1);
    const auto cut = co_await transport_.status(id(0), in(20ms));
    EXPECT_FALSE(cut);
    EXPECT_TRUE(co_await other_.status(id(0), in(1s)));
    network_.mend_all();
    EXPECT_TRUE(co_await transport_.status(id(0), in(1s)));
  });
  EXPECT_GT(count(SimFault::cut_off), 0u);
}

TEST_F(SimNetworkTest, LiesAreToldAndProofsShowThem) {
  run([this]() -> Task<void> {
    EXPECT_TRUE(co_await transport_.put(id(0), put(0), in(1s)));
    EXPECT_TRUE(co_await transport_.put(id(0), put(1), in(1s)));
    const bool honest = co_await verified(0);
    EXPECT_TRUE(honest);
    SimMinerLies lies;
    lies.wrong_bytes = 1000;
    network_.miner(0).set_lies(lies);
    const bool altered = co_await verified(0);
    EXPECT_FALSE(altered);
    lies = {};
    lies.wrong_bytes_with_proof = 1000;
    network_.miner(0).set_lies(lies);
    const bool with_proof = co_await verified(0);
    EXPECT_FALSE(with_proof);
    network_.miner(0).set_lies({});
    EXPECT_EQ(network_.miner(0).rot(1), 1u);
    const bool first = co_await verified(0);
    const bool second = co_await verified(1);
    EXPECT_NE(first, second);  // one of the two rotted
    network_.miner(0).scrub();
    EXPECT_EQ(network_.miner(0).slice_count(sample_volume()), 1u);
  });
  EXPECT_GT(count(SimFault::wrong_bytes), 0u);
  EXPECT_GT(count(SimFault::wrong_bytes_with_proof), 0u);
  EXPECT_EQ(count(SimFault::rotten), 1u);
}

TEST_F(SimNetworkTest, AForgottenPutIsClaimedAndNotServed) {
  run([this]() -> Task<void> {
    SimMinerLies lies;
    lies.put_forgotten = 1000;
    network_.miner(0).set_lies(lies);
    EXPECT_TRUE(co_await transport_.put(id(0), put(0), in(1s)));
    const std::vector<SliceId> asked{{segment_.manifest.id(), 0}};
    const auto have = co_await transport_.have(id(0), asked, in(1s));
    EXPECT_TRUE(have && (*have)[0] == segment_.manifest.roots[0]);
    const bool served = co_await verified(0);
    EXPECT_FALSE(served);
    EXPECT_FALSE(network_.miner(0).holds(sample_volume(), asked[0]));
  });
}

TEST_F(SimNetworkTest, OldStatesFullDisksWipesAndImpostors) {
  run([this]() -> Task<void> {
    const auto first = co_await transport_.accept(id(0), sample_superblock(), in(1s));
    EXPECT_TRUE(first && first->accepted);
    SimMinerLies lies;
    lies.old_state = 1000;
    network_.miner(0).set_lies(lies);
    const auto old = co_await transport_.superblock(id(0), in(1s));
    EXPECT_TRUE(old && !old->accepted);
    network_.miner(0).set_lies({});

    network_.miner(1).set_capacity(100);
    const Status full = co_await transport_.put(id(1), put(0), in(1s));
    EXPECT_TRUE(!full && full.error().kind() == ErrorKind::no_space);
    network_.miner(1).set_capacity(1 << 24);
    EXPECT_TRUE(co_await transport_.put(id(1), put(0), in(1s)));
    network_.miner(1).wipe();
    EXPECT_EQ(network_.miner(1).used(), 0u);

    network_.set_impostor(2, true);
    const auto denied = co_await transport_.status(id(2), in(1s));
    EXPECT_TRUE(!denied && denied.error().kind() == ErrorKind::denied);
  });
  EXPECT_GT(count(SimFault::old_state), 0u);
  EXPECT_EQ(count(SimFault::full), 1u);
}

TEST_F(SimNetworkTest, ACrashInsideARequestIsNeverAnswered) {
  run([this]() -> Task<void> {
    network_.set_speed(0, 30ms, 0ms);
    TaskGroup group(reactor_);
    group.spawn([this]() -> Task<void> {
      const Status lost = co_await transport_.put(id(0), put(0), in(100ms));
      EXPECT_FALSE(lost);
    });
    co_await reactor_.sleep_for(15ms);
    network_.kill(0);
    co_await group.join();
    network_.start(0);
    EXPECT_TRUE(co_await transport_.put(id(0), put(0), in(1s)));
    EXPECT_TRUE(network_.miner(0).holds(sample_volume(), {segment_.manifest.id(), 0}));
  });
  EXPECT_EQ(count(SimFault::crashed_inside), 1u);
}

}  // namespace
}  // namespace cumulus
