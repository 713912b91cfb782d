// The network floor against miners that hang, hang up, lie about lengths, say GOAWAY or are somebody else;
// and its windows.
#include <condition_variable>
#include <gtest/gtest.h>
#include <mutex>

#include "netclient/address.h"
#include "netclient/tcp_transport.h"
#include "netclient/window.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/tls_identity.h"
#include "objectstore/io/reactor.h"
#include "tests/fakes/sample_formats.h"
#include "tests/fakes/wire_miner.h"

namespace cumulus {
namespace {

using namespace std::chrono_literals;
using wire::MessageType;

class NetclientTest : public ::testing::Test {
 protected:
  NetclientTest() { server_.start(); }

  void run(std::function<Task<void>()> body) {
    const auto whole = [](NetclientTest& test, std::function<Task<void>()> inside) -> Task<void> {
      co_await inside();
      if (test.transport_) co_await test.transport_->close();
      co_await test.server_.stop();
    };
    reactor_.run(whole(*this, std::move(body)));
  }
  TcpTransport& transport() {
    if (transport_) return *transport_;
    TransportIdentity identity;
    identity.tls_seed = WireMiner::seed_of(100);
    identity.grant.volume = sample_volume();
    identity.grant.tls_public_key = TlsIdentity::from_seed(identity.tls_seed).public_key();
    wire::sign_grant(identity.grant, sample_key());
    identity.epoch = 4;
    std::vector<MinerEntry> miners{entry_};
    miners.insert(miners.end(), more_.begin(), more_.end());
    transport_ = std::move(*make_tcp_transport(reactor_, identity, miners, options_, resolver_));
    return *transport_;
  }
  MinerId id() const { return entry_.id; }
  TimePoint in(Duration time) { return reactor_.now() + time; }
  // The first `times` requests of this kind meet the trick.
  void trick(WireTrick what, MessageType type, int times = 1) {
    server_.trick = [=, left = times](const wire::Prelude& request) mutable {
      return request.type == type && left-- > 0 ? what : WireTrick::none;
    };
  }
  SlicePut put_of(const SampleSegment& segment, std::uint16_t index = 0) {
    SlicePut put;
    put.slice = {segment.manifest.id(), index};
    put.manifest = segment.encoded;
    put.data = *segment.slices[index];
    put.owner = segment.slices[index];
    return put;
  }
  SliceRead read_of(const SampleSegment& segment, std::uint64_t offset, std::uint64_t length) {
    SliceRead read;
    read.slice = {segment.manifest.id(), 0};
    read.offset = offset;
    read.length = length;
    const auto into = std::make_shared<Bytes>(length, 0xCC);
    read.into = *into;
    read.owner = into;
    return read;
  }

  Reactor reactor_{1};
  SimFaultCounts faults_{};
  SimMiner miner_{WireMiner::identity_of(1), 1 << 30, reactor_.random(), faults_};
  WireMiner server_{reactor_, 1, miner_};
  TransportOptions options_;
  MinerEntry entry_{miner_.id(), "", "d", 0, 1.0};
  std::vector<MinerEntry> more_;  // beside entry_
  Resolver resolver_ = resolve;
  std::unique_ptr<TcpTransport> transport_;
  void SetUp() override { entry_.address = server_.address(); }
};

const SampleSegment& large_segment() {
  static const SampleSegment segment = sample_segment({SegmentKind::log, 1, 1}, 1, 1, 512 * 1024);
  return segment;
}

TEST_F(NetclientTest, RequestsCarryTheOpening) {
  run([this]() -> Task<void> {
    EXPECT_TRUE(co_await transport().status(id(), in(5s)));
    EXPECT_EQ(server_.last_request.epoch, 4u);
    EXPECT_GT(server_.last_request.timeout_ms, 0u);
    InstanceId instance;
    instance.bytes.fill(3);
    transport().set_opening(9, instance);
    EXPECT_TRUE(co_await transport().status(id(), in(5s)));
    EXPECT_EQ(server_.last_request.epoch, 9u);
    EXPECT_EQ(server_.last_request.instance, instance);
    EXPECT_EQ(server_.connections, 1u);
  });
}

TEST_F(NetclientTest, ABrokenConnectionIsRetriedOnce) {
  run([this]() -> Task<void> {
    trick(WireTrick::drop, MessageType::status);
    const auto once = co_await transport().status(id(), in(5s));
    EXPECT_TRUE(once) << once.error().message();
    EXPECT_EQ(server_.requests, 2u);
    EXPECT_EQ(server_.connections, 2u);
    trick(WireTrick::drop, MessageType::status, 2);
    const auto twice = co_await transport().status(id(), in(5s));
    EXPECT_FALSE(twice);
    if (!twice) {
      EXPECT_EQ(twice.error().kind(), ErrorKind::unavailable);
    }
    EXPECT_EQ(server_.requests, 4u);  // not a third time
  });
}

TEST_F(NetclientTest, AHalfAnswerIsReadAgainWhole) {
  run([this]() -> Task<void> {
    EXPECT_TRUE(co_await transport().put(id(), put_of(large_segment()), in(5s)));
    trick(WireTrick::drop_halfway, MessageType::read);
    const SliceRead read = read_of(large_segment(), 0, large_segment().slices[0]->size());
    const auto answer = co_await transport().read(id(), read, in(5s));
    EXPECT_TRUE(answer) << answer.error().message();
    EXPECT_TRUE(equal(read.into, *large_segment().slices[0]));
  });
}

TEST_F(NetclientTest, WrongAnswersAreCorrupt) {
  run([this]() -> Task<void> {
    EXPECT_TRUE(co_await transport().put(id(), put_of(large_segment()), in(5s)));
    for (const WireTrick what : {WireTrick::wrong_length, WireTrick::garbage, WireTrick::wrong_type}) {
      trick(what, MessageType::read, 2);
      const SliceRead read = read_of(large_segment(), 0, 1000);
      const auto answer = co_await transport().read(id(), read, in(5s));
      EXPECT_FALSE(answer);
      if (!answer) {
        EXPECT_EQ(answer.error().kind(), ErrorKind::corrupt) << answer.error().message();
      }
    }
    const SliceRead read = read_of(large_segment(), 0, 1000);
    EXPECT_TRUE(co_await transport().read(id(), read, in(5s)));
  });
}

TEST_F(NetclientTest, ALateAnswerNeverTouchesTheCallersMemory) {
  run([this]() -> Task<void> {
    EXPECT_TRUE(co_await transport().put(id(), put_of(large_segment()), in(5s)));
    trick(WireTrick::trickle, MessageType::read);
    const SliceRead read = read_of(large_segment(), 0, 60'000);
    const auto answer = co_await transport().read(id(), read, in(100ms));
    EXPECT_FALSE(answer);
    if (!answer) {
      EXPECT_EQ(answer.error().kind(), ErrorKind::unavailable);
    }
    std::ranges::fill(read.into, std::uint8_t{0xEE});  // ours again
    co_await reactor_.sleep_for(500ms);                // the rest arrives meanwhile
    EXPECT_EQ(std::ranges::count(read.into, std::uint8_t{0xEE}), 60'000);
    // The connection is still in step.
    const SliceRead again = read_of(large_segment(), 100, 60'000);
    EXPECT_TRUE(co_await transport().read(id(), again, in(5s)));
    EXPECT_TRUE(equal(again.into, ByteView(*large_segment().slices[0]).subspan(100, 60'000)));
    EXPECT_EQ(server_.connections, 2u);  // prompt and bulk
  });
}

TEST_F(NetclientTest, AHangingRequestEndsByItsDeadlineAndOthersGoOn) {
  run([this]() -> Task<void> {
    trick(WireTrick::hang, MessageType::superblock);
    TaskGroup group(reactor_);
    group.spawn([this]() -> Task<void> {
      const TimePoint begin = reactor_.now();
      const auto hung = co_await transport().superblock(id(), in(200ms));
      EXPECT_FALSE(hung);
      EXPECT_LT(reactor_.now() - begin, 2s);
    });
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(co_await transport().status(id(), in(5s)));
    co_await group.join();
    EXPECT_TRUE(co_await transport().superblock(id(), in(5s)));
    EXPECT_EQ(server_.connections, 1u);
  });
}

TEST_F(NetclientTest, AnInterruptEndsWhatIsAskedAndOnlyThat) {
  run([this]() -> Task<void> {
    EXPECT_TRUE(co_await transport().status(id(), in(5s)));
    server_.trick = [](const wire::Prelude&) { return WireTrick::hang; };
    TaskGroup group(reactor_);
    int asked = 0;
    bool stored = false;
    for (int i = 0; i < 80; ++i) {  // more than the window: some wait before it
      group.spawn([this, &asked]() -> Task<void> {
        const auto answer = co_await transport().status(id(), in(20s));
        EXPECT_FALSE(answer);
        if (!answer) {
          EXPECT_EQ(answer.error().kind(), ErrorKind::closed);
        }
        ++asked;
      });
    }
    group.spawn([this, &stored]() -> Task<void> {
      const SlicePut put = put_of(large_segment());
      const auto answer = co_await transport().put(id(), put, in(20s));
      EXPECT_FALSE(answer);
      stored = true;
    });
    const TimePoint begin = reactor_.now();
    co_await reactor_.sleep_for(200ms);
    EXPECT_EQ(asked, 0);
    transport().interrupt(Calls::asked);
    co_await reactor_.sleep_for(200ms);
    EXPECT_EQ(asked, 80);
    EXPECT_FALSE(stored);
    transport().interrupt(Calls::all);
    co_await group.join();
    EXPECT_LT(reactor_.now() - begin, 10s);
    server_.trick = nullptr;
    EXPECT_TRUE(co_await transport().status(id(), in(5s)));
  });
}

TEST_F(NetclientTest, ASilentConnectionIsPingedAndGivenUp) {
  options_.ping_after = 50ms;
  options_.ping_timeout = 50ms;
  run([this]() -> Task<void> {
    EXPECT_TRUE(co_await transport().status(id(), in(5s)));
    co_await reactor_.sleep_for(300ms);
    EXPECT_TRUE(co_await transport().status(id(), in(5s)));
    EXPECT_EQ(server_.connections, 1u);  // pings were answered
    server_.answers_pings = false;
    trick(WireTrick::hang, MessageType::status);
    const TimePoint begin = reactor_.now();
    // Re-sent on a fresh connection as soon as the silent one is given up, long before the deadline.
    EXPECT_TRUE(co_await transport().status(id(), in(20s)));
    EXPECT_LT(reactor_.now() - begin, 5s);
    EXPECT_GE(server_.connections, 2u);
  });
}

TEST_F(NetclientTest, GoawayMovesNewRequestsElsewhere) {
  run([this]() -> Task<void> {
    trick(WireTrick::goaway_then_answer, MessageType::status);
    EXPECT_TRUE(co_await transport().status(id(), in(5s)));  // still answered
    EXPECT_TRUE(co_await transport().status(id(), in(5s)));
    EXPECT_EQ(server_.connections, 2u);
    EXPECT_EQ(server_.requests, 2u);
  });
}

TEST_F(NetclientTest, CallsOnAConnectionThatWasSentAwayAreInterruptedAndItsEndIsNotWaitedFor) {
  options_.backoff_min = 1ms;
  run([this]() -> Task<void> {
    EXPECT_TRUE(co_await transport().status(id(), in(5s)));
    trick(WireTrick::goaways, MessageType::status);
    EXPECT_FALSE(co_await transport().status(id(), in(200ms)));
    trick(WireTrick::goaways, MessageType::superblock);
    TaskGroup group(reactor_);
    group.spawn([this]() -> Task<void> {
      const TimePoint begin = reactor_.now();
      EXPECT_FALSE(co_await transport().superblock(id(), in(5s)));
      EXPECT_LT(reactor_.now() - begin, 2s);
    });
    while (server_.requests < 3) co_await reactor_.sleep_for(5ms);
    co_await reactor_.sleep_for(100ms);
    EXPECT_TRUE(co_await transport().status(id(), in(5s)));
    EXPECT_EQ(server_.open_connections(), 3u);
    transport().interrupt(Calls::all);
    co_await group.join();
    const TimePoint begin = reactor_.now();
    const TimerId rescue = reactor_.start_timer(in(5s), [this] { server_.hang_up(); });
    co_await transport().close();
    reactor_.cancel_timer(rescue);
    EXPECT_LT(reactor_.now() - begin, 2s);
  });
}

TEST_F(NetclientTest, AfterGoawayTheMinerHasLimitedTimeWhateverElseItSays) {
  options_.ping_after = options_.ping_timeout = 200ms;
  run([this]() -> Task<void> {
    trick(WireTrick::goaways, MessageType::status);
    const TimePoint begin = reactor_.now();
    const auto sent_again = co_await transport().status(id(), in(5s));
    EXPECT_TRUE(sent_again) << sent_again.error().message();
    EXPECT_GE(reactor_.now() - begin, 400ms);
    EXPECT_LT(reactor_.now() - begin, 3s);
    while (server_.open_connections() > 1 && reactor_.now() - begin < 4s) co_await reactor_.sleep_for(20ms);
    EXPECT_EQ(server_.open_connections(), 1u);
    server_.hang_up();  // else, without a limit, the end waits for the miner
  });
}

TEST_F(NetclientTest, FewConnectionsThatWereSentAwayAreKept) {
  run([this]() -> Task<void> {
    server_.trick = [asked = 0](const wire::Prelude&) mutable {
      return asked++ % 2 == 0 ? WireTrick::none : WireTrick::goaways;
    };
    for (int i = 0; i < 30; ++i) {
      const auto any = co_await transport().status(id(), in(100ms));
      static_cast<void>(any);
    }
    EXPECT_GT(server_.connections, 6u);
    EXPECT_LE(server_.open_connections(), 6u);
    server_.hang_up();
  });
}

TEST_F(NetclientTest, AMinerThatSendsNewConnectionsAwayIsMetByBackoff) {
  run([this]() -> Task<void> {
    for (const bool at_once : {true, false}) {
      server_.sends_away = at_once;
      server_.trick = [](const wire::Prelude&) { return WireTrick::goaways; };
      server_.connections = 0;
      transport().try_now();
      const SlicePut put = put_of(large_segment());
      for (const TimePoint end = in(1s); reactor_.now() < end;) {
        EXPECT_FALSE(co_await transport().status(id(), in(20ms)));
        EXPECT_FALSE(co_await transport().put(id(), put, in(20ms)));
        co_await reactor_.sleep_for(5ms);
      }
      EXPECT_LE(server_.connections, 16u);  // 25 ms, 50, 100, 200, 400 at the least; twice
      EXPECT_GE(server_.connections, 2u);
    }
    server_.sends_away = false;
    server_.trick = nullptr;
    transport().try_now();
    EXPECT_TRUE(co_await transport().status(id(), in(5s)));
    server_.hang_up();
  });
}

TEST_F(NetclientTest, AnotherIdentityIsDeniedAndBothAreNamed) {
  entry_.id = WireMiner::identity_of(2);
  run([this]() -> Task<void> {
    const auto answer = co_await transport().status(id(), in(5s));
    EXPECT_FALSE(answer);
    if (!answer) {
      EXPECT_EQ(answer.error().kind(), ErrorKind::denied);
      EXPECT_NE(answer.error().message().find(WireMiner::identity_of(1).hex()), std::string::npos);
      EXPECT_NE(answer.error().message().find(WireMiner::identity_of(2).hex()), std::string::npos);
    }
    EXPECT_EQ(server_.requests, 0u);
  });
}

TEST_F(NetclientTest, AGrantForSomebodyElseIsDenied) {
  run([this]() -> Task<void> {
    TransportIdentity identity;
    identity.tls_seed = WireMiner::seed_of(101);
    identity.grant.volume = sample_volume();
    identity.grant.tls_public_key.fill(1);  // not the key of tls_seed
    wire::sign_grant(identity.grant, sample_key());
    transport_ = std::move(*make_tcp_transport(reactor_, identity, {entry_}, options_));
    const auto answer = co_await transport().status(id(), in(5s));
    EXPECT_FALSE(answer);
    if (!answer) {
      EXPECT_EQ(answer.error().kind(), ErrorKind::denied) << answer.error().message();
    }
  });
}

TEST_F(NetclientTest, SmallRequestsPassLargeOnes) {
  run([this]() -> Task<void> {
    EXPECT_TRUE(co_await transport().put(id(), put_of(large_segment()), in(5s)));
    trick(WireTrick::trickle, MessageType::read);
    TaskGroup group(reactor_);
    bool large_done = false;
    group.spawn([this, &large_done]() -> Task<void> {
      const SliceRead read = read_of(large_segment(), 0, 100'000);  // 100 pieces, 5 ms apart
      EXPECT_TRUE(co_await transport().read(id(), read, in(20s)));
      large_done = true;
    });
    co_await reactor_.sleep_for(50ms);
    EXPECT_TRUE(co_await transport().status(id(), in(5s)));
    EXPECT_FALSE(large_done);
    co_await group.join();
  });
}

TEST_F(NetclientTest, TheWindowBoundsWhatIsInFlight) {
  options_.requests_in_flight_max = 4;
  run([this]() -> Task<void> {
    trick(WireTrick::hang, MessageType::status, 1000);
    TaskGroup group(reactor_);
    int unavailable = 0;
    for (int i = 0; i < 50; ++i) {
      group.spawn([this, &unavailable]() -> Task<void> {
        const auto answer = co_await transport().status(id(), in(200ms));
        if (!answer && answer.error().kind() == ErrorKind::unavailable) ++unavailable;
      });
    }
    co_await reactor_.sleep_for(150ms);
    EXPECT_EQ(server_.requests, 4u);
    co_await group.join();
    EXPECT_EQ(unavailable, 50);
  });
}

TEST_F(NetclientTest, TheMinersLimitOnPayloadIsKept) {
  server_.payload_in_flight_max = 3 * 512 * 1024;
  run([this]() -> Task<void> {
    trick(WireTrick::hang, MessageType::put, 1000);
    TaskGroup group(reactor_);
    for (int i = 0; i < 8; ++i) {
      group.spawn([this]() -> Task<void> {
        const SlicePut put = put_of(large_segment());
        EXPECT_FALSE(co_await transport().put(id(), put, in(1s)));
      });
    }
    co_await reactor_.sleep_for(700ms);
    EXPECT_EQ(server_.requests, 3u);
    co_await group.join();
  });
}

// Back-off is for machines; a person who asks is answered by an attempt.
TEST_F(NetclientTest, TryNowPassesOverTheBackoff) {
  options_.backoff_min = options_.backoff_max = 60s;
  run([this]() -> Task<void> {
    const std::uint16_t port = server_.port();
    co_await server_.stop();
    EXPECT_FALSE(co_await transport().status(id(), in(2s)));
    server_.start(port);
    EXPECT_FALSE(co_await transport().status(id(), in(2s)));  // too soon to ask again
    transport().try_now();
    EXPECT_TRUE(co_await transport().status(id(), in(2s)));
  });
}

TEST_F(NetclientTest, AMinerThatLeftTheListIsLetGo) {
  run([this]() -> Task<void> {
    EXPECT_TRUE(co_await transport().status(id(), in(5s)));
    trick(WireTrick::hang, MessageType::status);
    TaskGroup group(reactor_);
    group.spawn([this]() -> Task<void> {
      const auto ended = co_await transport().status(id(), in(20s));
      EXPECT_FALSE(ended);
    });
    co_await reactor_.sleep_for(50ms);
    transport().set_miners({});
    co_await group.join();
    EXPECT_FALSE(co_await transport().status(id(), in(5s)));
    transport().set_miners({entry_});
    EXPECT_TRUE(co_await transport().status(id(), in(5s)));
  });
}

// A system resolver whose name servers are silent until let_go(); at most ten seconds a name, as the real
// one. The thread that asks it may outlive the test.
class SilentNames {
 public:
  Resolver resolver(std::uint16_t port) const {
    return [state = state_, port](const HostPort& where) -> Result<Endpoints> {
      std::unique_lock lock(state->mutex);
      state->asked.push_back(where.host);
      state->changed.wait_for(lock, 10s, [&] { return state->let_go; });
      if (where.host.starts_with("lost")) return fail(ErrorKind::unavailable, "look up: no such name");
      return Endpoints{{asio::ip::address_v4::loopback(), port}};
    };
  }
  std::vector<std::string> asked() const {
    const std::lock_guard lock(state_->mutex);
    return state_->asked;
  }
  void let_go() {
    {
      const std::lock_guard lock(state_->mutex);
      state_->let_go = true;
    }
    state_->changed.notify_all();
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    bool let_go = false;
    std::vector<std::string> asked;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

TEST_F(NetclientTest, ALookUpThatHangsHoldsUpNobody) {
  SilentNames names;
  resolver_ = names.resolver(server_.port());
  more_.push_back({WireMiner::identity_of(2), "lost.example:7300", "e", 0, 1.0});
  more_.push_back({WireMiner::identity_of(3), "lost2.example:7300", "f", 0, 1.0});
  TimePoint begin{};
  run([&, this]() -> Task<void> {
    begin = reactor_.now();
    TaskGroup group(reactor_);
    for (const MinerEntry& entry : more_) {
      group.spawn([this, &entry]() -> Task<void> {
        const auto lost = co_await transport().status(entry.id, in(200ms));
        EXPECT_FALSE(lost);
        if (!lost) {
          EXPECT_EQ(lost.error().kind(), ErrorKind::unavailable) << lost.error().message();
        }
      });
    }
    co_await reactor_.sleep_for(50ms);
    EXPECT_EQ(names.asked().size(), 1u);  // one at a time
    EXPECT_EQ(co_await reactor_.offload([] { return 7; }), 7);
    EXPECT_TRUE(co_await transport().put(id(), put_of(large_segment()), in(2s)));
    EXPECT_TRUE(co_await transport().status(id(), in(2s)));
    co_await group.join();
    EXPECT_LT(reactor_.now() - begin, 3s);
  });
  transport_.reset();
  EXPECT_LT(reactor_.now() - begin, 4s) << "the end waited for a look-up";
  names.let_go();
}

TEST_F(NetclientTest, NamesAreAskedForOnceAndForThoseWhoStillWait) {
  options_.connect_timeout = 500ms;
  SilentNames names;
  resolver_ = names.resolver(server_.port());
  const std::string port = ":" + std::to_string(server_.port());
  more_.push_back({WireMiner::identity_of(2), "lost.example:7300", "e", 0, 1.0});
  more_.push_back({WireMiner::identity_of(3), "gone.example:7300", "f", 0, 1.0});
  entry_.address = "here.example" + port;
  run([&, this]() -> Task<void> {
    for (const MinerEntry& entry : more_) EXPECT_FALSE(co_await transport().status(entry.id, in(1s)));
    EXPECT_EQ(names.asked(), std::vector<std::string>{"lost.example"});
    TaskGroup group(reactor_);
    group.spawn([this]() -> Task<void> { EXPECT_TRUE(co_await transport().status(id(), in(5s))); });
    group.spawn([this]() -> Task<void> {
      EXPECT_TRUE(co_await transport().put(id(), put_of(large_segment()), in(5s)));
    });
    co_await reactor_.sleep_for(20ms);
    names.let_go();
    co_await group.join();
    EXPECT_EQ(names.asked(), (std::vector<std::string>{"lost.example", "here.example"}));
    EXPECT_EQ(server_.connections, 2u);  // prompt and bulk, of one look-up
  });
}

// A full queue: the kernel drops what knocks after that, as a black hole does.
TEST_F(NetclientTest, ASilentAddressLeavesTimeForTheNext) {
  options_.connect_timeout = 3s;
  const asio::ip::tcp::endpoint any(asio::ip::make_address("127.0.0.2"), 0);
  asio::basic_socket_acceptor<asio::ip::tcp, ReactorExecutor> silent(reactor_.executor(), any.protocol());
  silent.bind(any);
  silent.listen(0);
  wire::TcpSocket fill(reactor_.executor());
  fill.connect(silent.local_endpoint());
  resolver_ = [silent = silent.local_endpoint(),
               port = server_.port()](const HostPort&) -> Result<Endpoints> {
    return Endpoints{silent, {asio::ip::address_v4::loopback(), port}};
  };
  entry_.address = "two.example:7300";
  run([this]() -> Task<void> {
    const TimePoint begin = reactor_.now();
    const auto second = co_await transport().status(id(), in(10s));
    EXPECT_TRUE(second) << second.error().message();
    EXPECT_GE(reactor_.now() - begin, 900ms) << "the first address answered";
    EXPECT_LT(reactor_.now() - begin, 3s);
  });
}

TEST(WindowTest, IsFairAndBounded) {
  Reactor reactor(0);
  Window window(reactor, 2, 100);
  const auto body = [](Reactor& at, Window& gate) -> Task<void> {
    Window::Hold first = co_await gate.enter(80, at.now() + 1s);
    EXPECT_TRUE(static_cast<bool>(first));
    const TimePoint begin = at.now();
    const Window::Hold refused = co_await gate.enter(50, begin + 20ms);
    EXPECT_FALSE(static_cast<bool>(refused));
    std::vector<int> order;
    TaskGroup group(at);
    group.spawn([&]() -> Task<void> {
      const Window::Hold hold = co_await gate.enter(500, at.now() + 5s);  // passes alone
      EXPECT_EQ(gate.requests(), 1u);
      order.push_back(1);
    });
    group.spawn([&]() -> Task<void> {
      const Window::Hold hold = co_await gate.enter(1, at.now() + 5s);  // fits, but waits its turn
      order.push_back(2);
    });
    co_await at.sleep_for(10ms);
    EXPECT_TRUE(order.empty());
    first.release();
    co_await group.join();
    EXPECT_EQ(order, (std::vector<int>{1, 2}));
    EXPECT_EQ(gate.requests(), 0u);
  };
  reactor.run(body(reactor, window));
}

}  // namespace
}  // namespace cumulus
