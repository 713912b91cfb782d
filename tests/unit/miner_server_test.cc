// The real server against clients that send nonsense or half of something, stall, come in floods, or ask for
// more than their grant allows; and on a disk that is full. Whatever they do, others are served.
#include <filesystem>
#include <gtest/gtest.h>
#include <list>
#include <random>
#include <sys/mount.h>

#include "objectstore/io/uring_file_system.h"
#include "tests/fakes/raw_client.h"
#include "tests/fakes/sample_formats.h"
#include "tools/miner/miner.h"

namespace cumulus {
namespace {

using namespace std::chrono_literals;
using wire::Grant;
using wire::MessageType;
using wire::Prelude;
constexpr std::uint64_t kMiB = 1 << 20;

class MinerServerTest : public testing::Test {
 protected:
  MinerServerTest() {
    root_ = std::filesystem::temp_directory_path() / ("miner_server_" + std::to_string(::getpid()));
    std::filesystem::remove_all(root_);
    options_.server.handshake_timeout = 1s;
    options_.server.idle_timeout = 400ms;
    options_.server.stall_timeout = 400ms;
    options_.server.goodbye_timeout = 200ms;
    options_.server.transfer_rate_min = 1 << 30;  // lengths are nonsense here: wait for none of them
    options_.control = false;
    options_.open_quota = 1000 * kMiB;
  }
  ~MinerServerTest() override { std::filesystem::remove_all(root_); }

  using Body = std::function<Task<void>()>;
  void with_miner(Body body) {
    const auto whole = [](MinerServerTest& test, Body inside) -> Task<void> {
      MinerDirectory place(*test.files_, test.root_);
      MinerConfig config;
      config.capacity = 1000 * kMiB;
      config.scrub_rate = 0;
      MinerDirectory::Seed seed;
      seed.fill(3);
      if (!std::filesystem::exists(place.config_path())) {
        EXPECT_TRUE(co_await place.create(config, seed));
      }
      auto started = co_await Miner::start(test.reactor_, *test.files_, test.root_, test.options_);
      EXPECT_TRUE(started) << (started ? "" : started.error().message());
      if (!started) co_return;
      test.miner_ = *std::move(started);
      co_await inside();
      co_await test.miner_->close();
      test.miner_.reset();
    };
    reactor_.run(whole(*this, std::move(body)));
  }
  RawClient client() { return {reactor_, miner_->port()}; }

  // A well-behaved client is served: put, read back.
  Task<void> expect_service() {
    RawClient good = client();
    const auto hello = co_await good.hello(RawClient::grant_of(volume_));
    EXPECT_EQ(error_of(hello), kNoError);
    if (!hello) co_return;
    const auto slice = volume_.slice(++sequence_, 0, 100'000);
    EXPECT_EQ(error_of(co_await put(good, slice)), kNoError);
    wire::ReadRequest read;
    read.slice = slice.id;
    read.ranges = {{5, 1000}};
    const auto answer = co_await good.ask(MessageType::read, read);
    EXPECT_EQ(error_of(answer), kNoError);
    EXPECT_TRUE(answer && answer->prelude.payload_length == 1000);
  }
  static Task<Result<RawClient::Answer>> put(RawClient& by, const SampleSlice& slice) {
    wire::PutRequest message;
    message.slice = slice.id;
    message.manifest = *slice.manifest;
    co_return co_await by.ask(MessageType::put, message, slice.data);
  }
  Bytes put_frame(const SampleSlice& slice) {
    Prelude prelude;
    prelude.type = MessageType::put;
    prelude.request_id = 77;
    wire::PutRequest message;
    message.slice = slice.id;
    message.manifest = *slice.manifest;
    Bytes frame = wire::frame(prelude, message, slice.data.size());
    frame.insert(frame.end(), slice.data.begin(), slice.data.end());
    return frame;
  }

  Task<void> misbehave(int round, std::mt19937_64& random, const Bytes& whole);

  std::string root_;
  MinerOptions options_;
  Reactor reactor_{2};
  std::unique_ptr<FileSystem> files_ = make_uring_file_system(reactor_);
  std::unique_ptr<Miner> miner_;
  SampleVolume volume_{1};
  Sequence sequence_ = 0;
};

Task<void> MinerServerTest::misbehave(int round, std::mt19937_64& random, const Bytes& whole) {
  RawClient bad = client();
  if (round % 6 == 0) {  // nonsense instead of TLS
    wire::TcpSocket socket = co_await bad.connect();
    const Bytes noise = sample_bytes(300, random());
    (void)::send(socket.native_handle(), noise.data(), noise.size(), MSG_NOSIGNAL);
    co_return;
  }
  if (round % 6 == 1) {  // nonsense instead of HELLO
    EXPECT_TRUE(co_await bad.handshake());
    const Bytes noise = sample_bytes(200, random());
    EXPECT_TRUE(co_await bad.stream->write_all(noise));
    EXPECT_TRUE(co_await bad.is_cut(20s));
    co_return;
  }
  EXPECT_EQ(error_of(co_await bad.hello(RawClient::grant_of(volume_))), kNoError);
  Bytes message = whole;
  if (round % 2 == 0) {  // half of a message
    message.resize(random() % message.size());
  } else {  // a prelude or header with some bytes changed
    for (int i = 0; i < 3; ++i)
      message[random() % (Prelude::kEncodedSize + 40)] ^= static_cast<std::uint8_t>(1 + random() % 255);
  }
  const bool waits = random() % 2 == 0;
  const Status sent = co_await bad.stream->write_all(message);  // it may be cut off meanwhile
  if (!sent || !waits) co_return;
  // The miner may answer with an error and go on, or wait for more, but not for long.
  EXPECT_TRUE(co_await bad.is_cut(20s));
}

TEST_F(MinerServerTest, NonsenseAndHalfMessagesHarmNobody) {
  const std::uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  with_miner([&]() -> Task<void> {
    std::mt19937_64 random(seed);
    const Bytes whole = put_frame(volume_.slice(1000, 0, 50'000));
    TaskGroup clients(reactor_);
    for (int round = 0; round < 60; ++round)
      clients.spawn([&, round]() -> Task<void> { co_await misbehave(round, random, whole); });
    co_await clients.join();
    co_await expect_service();
    const TimePoint until = reactor_.now() + 5s;
    while (miner_->server().connections() != 0 && reactor_.now() < until) co_await reactor_.sleep_for(10ms);
    EXPECT_EQ(miner_->server().connections(), 0u);
    EXPECT_LE(miner_->store().totals().slices, 2u);
  });
}

TEST_F(MinerServerTest, WrongRequestsAreAnsweredAndTheConnectionGoesOn) {
  with_miner([&]() -> Task<void> {
    RawClient bad = client();
    EXPECT_EQ(error_of(co_await bad.hello(RawClient::grant_of(volume_))), kNoError);
    EXPECT_EQ(error_of(co_await bad.ask(static_cast<MessageType>(99), wire::Empty{})),
              ErrorKind::unsupported);
    EXPECT_EQ(error_of(co_await bad.ask(MessageType::hello, wire::Empty{})), ErrorKind::unsupported);
    EXPECT_EQ(error_of(co_await bad.ask(MessageType::read, wire::Empty{})), ErrorKind::corrupt);
    const auto slice = volume_.slice(1, 0, 1000);
    const auto other = volume_.slice(2, 0, 1000);
    SampleSlice mixed = slice;
    mixed.data = other.data;
    EXPECT_EQ(error_of(co_await put(bad, mixed)), ErrorKind::corrupt);
    EXPECT_EQ(error_of(co_await put(bad, slice)), kNoError);
    wire::ReadRequest beyond;
    beyond.slice = slice.id;
    beyond.ranges = {{999, 2}};
    EXPECT_EQ(error_of(co_await bad.ask(MessageType::read, beyond)), ErrorKind::invalid);
    wire::ChallengeRequest far;
    far.slice = slice.id;
    far.leaf = ~0ULL;
    EXPECT_EQ(error_of(co_await bad.ask(MessageType::challenge, far)), ErrorKind::invalid);
    const Bytes noise(30, 9);
    wire::ListRequest list;
    list.from = noise;
    EXPECT_EQ(error_of(co_await bad.ask(MessageType::list, list)), ErrorKind::invalid);
    EXPECT_EQ(error_of(co_await bad.ask(MessageType::ping, wire::Empty{})), kNoError);
  });
}

TEST_F(MinerServerTest, SlowClientsAreCut) {
  with_miner([&]() -> Task<void> {
    RawClient silent = client();  // no HELLO
    EXPECT_TRUE(co_await silent.handshake());
    EXPECT_TRUE(co_await silent.is_cut(3s));
    RawClient idle = client();
    EXPECT_EQ(error_of(co_await idle.hello(RawClient::grant_of(volume_))), kNoError);
    EXPECT_TRUE(co_await idle.is_cut(3s));
    const Bytes whole = put_frame(volume_.slice(1, 0, 50'000));
    const std::array<std::size_t, 3> cuts{20, Prelude::kEncodedSize + 5, whole.size() - 1};
    for (const std::size_t sent : cuts) {
      RawClient stalled = client();
      EXPECT_EQ(error_of(co_await stalled.hello(RawClient::grant_of(volume_))), kNoError);
      EXPECT_TRUE(co_await stalled.stream->write_all(ByteView(whole).first(sent)));
      EXPECT_TRUE(co_await stalled.is_cut(5s)) << sent;
    }
    EXPECT_EQ(miner_->store().totals().slices, 0u);
    co_await expect_service();
  });
}

// Whoever begins three of the largest PUTs and sends little of them keeps nobody else waiting: not the volume
// that he may only read, and with every right not another volume.
TEST_F(MinerServerTest, SlowPayloadsHoldUpNobodyElse) {
  options_.server.idle_timeout = 20s;
  options_.server.stall_timeout = 20s;
  const SampleVolume tenant(2);
  for (const bool reader : {true, false}) {
    with_miner([&]() -> Task<void> {
      std::list<RawClient> slow;
      for (int i = 0; i < 3; ++i) slow.emplace_back(reactor_, miner_->port());
      const wire::Grant grant =
          reader ? RawClient::grant_of(volume_, Grant::kRead) : RawClient::grant_of(tenant);
      for (RawClient& one : slow) {
        EXPECT_EQ(error_of(co_await one.hello(grant)), kNoError);
        Prelude prelude;
        prelude.type = MessageType::put;
        const auto slice = (reader ? volume_ : tenant).slice(1000, 0, 10);
        wire::PutRequest message;
        message.slice = slice.id;
        message.manifest = *slice.manifest;
        const Bytes begun = wire::frame(prelude, message, wire::kPayloadMax);
        EXPECT_TRUE(co_await one.stream->write_all(begun));
      }
      co_await reactor_.sleep_for(200ms);
      const TimePoint began = reactor_.now();
      co_await expect_service();
      EXPECT_LT(reactor_.now() - began, 10s) << (reader ? "a reader" : "another volume");
      for (RawClient& one : slow) one.stream->shut();
    });
  }
}

TEST_F(MinerServerTest, AFloodOfConnectionsIsBounded) {
  options_.server.connections_max = 16;
  with_miner([&]() -> Task<void> {
    std::vector<wire::TcpSocket> flood;
    RawClient one = client();
    for (int i = 0; i < 60; ++i) flood.push_back(co_await one.connect());
    co_await reactor_.sleep_for(50ms);
    EXPECT_LE(miner_->server().connections(), 16u);
    EXPECT_GE(miner_->metrics().counter("cumulus_miner_connections_refused_total").value(), 40u);
    co_await reactor_.sleep_for(1300ms);  // those that did not speak are gone
    co_await expect_service();
  });
}

TEST_F(MinerServerTest, ClosesWhileAClientIsStillShakingHands) {
  options_.server.handshake_timeout = 5s;
  wire::TcpSocket silent(reactor_.executor());
  with_miner([&]() -> Task<void> {
    RawClient slow = client();
    silent = co_await slow.connect();
    co_await reactor_.sleep_for(100ms);
    EXPECT_EQ(miner_->server().connections(), 1u);
  });
}

TEST_F(MinerServerTest, AGrantGivesItsRightsAndNoMore) {
  with_miner([&]() -> Task<void> {
    RawClient reader = client();
    EXPECT_EQ(error_of(co_await reader.hello(RawClient::grant_of(volume_, Grant::kRead))), kNoError);
    EXPECT_EQ(error_of(co_await put(reader, volume_.slice(1, 0, 1000))), ErrorKind::denied);
    wire::RemoveRequest remove;
    remove.slices = {volume_.slice(1, 0, 1000).id};
    EXPECT_EQ(error_of(co_await reader.ask(MessageType::remove, remove)), ErrorKind::denied);
    const Bytes claim = sample_claim().encode();
    wire::PromiseRequest promise;
    promise.claim = claim;
    EXPECT_EQ(error_of(co_await reader.ask(MessageType::promise, promise)), ErrorKind::denied);
    EXPECT_EQ(error_of(co_await reader.ask(MessageType::list, wire::ListRequest{})), kNoError);

    RawClient nobody = client();
    EXPECT_EQ(error_of(co_await nobody.hello(std::nullopt)), kNoError);
    EXPECT_EQ(error_of(co_await nobody.ask(MessageType::status, wire::Empty{})), kNoError);
    EXPECT_EQ(error_of(co_await nobody.ask(MessageType::list, wire::ListRequest{})), ErrorKind::denied);
    EXPECT_EQ(error_of(co_await put(nobody, volume_.slice(1, 0, 1000))), ErrorKind::denied);

    Grant expired = RawClient::grant_of(volume_);
    expired.not_after = 1;
    wire::sign_grant(expired, volume_.key());
    Grant stolen = RawClient::grant_of(volume_);
    stolen.tls_public_key[0] ^= 1;
    wire::sign_grant(stolen, volume_.key());
    Grant forged = RawClient::grant_of(volume_, Grant::kRead);
    forged.rights = Grant::kAll;
    const std::vector<Grant> refused{expired, stolen, forged};
    for (const Grant& grant : refused) {
      RawClient bad = client();
      EXPECT_EQ(error_of(co_await bad.hello(grant)), ErrorKind::denied);
      EXPECT_TRUE(co_await bad.is_cut(3s));
    }
  });
}

TEST_F(MinerServerTest, DrainingRefusesPutsAndServesTheRest) {
  with_miner([&]() -> Task<void> {
    RawClient user = client();
    EXPECT_EQ(error_of(co_await user.hello(RawClient::grant_of(volume_))), kNoError);
    const auto slice = volume_.slice(1, 0, 1000);
    EXPECT_EQ(error_of(co_await put(user, slice)), kNoError);
    MinerDirectory place(*files_, root_);
    for (int step = 0; step < 2; ++step) {
      const bool draining = step == 0;
      auto config = co_await place.config();
      config->draining = draining;
      EXPECT_TRUE(co_await place.write_config(*config));
      EXPECT_TRUE(co_await miner_->reload());
      const auto outcome = co_await put(user, volume_.slice(2, 0, 1000));
      EXPECT_EQ(error_of(outcome), draining ? ErrorKind::no_space : kNoError);
      wire::RemoveRequest remove;
      remove.slices = {slice.id};
      EXPECT_EQ(error_of(co_await user.ask(MessageType::remove, remove)), kNoError);
    }
  });
}

TEST_F(MinerServerTest, AnOpenMinerTakesInOnlySoManyVolumes) {
  options_.open_volumes_max = 3;
  with_miner([&]() -> Task<void> {
    for (std::uint8_t which = 1; which <= 5; ++which) {
      const SampleVolume volume(which);
      RawClient user = client();
      EXPECT_EQ(error_of(co_await user.hello(RawClient::grant_of(volume))), kNoError);
      const auto outcome = co_await put(user, volume.slice(1, 0, 1000));
      EXPECT_EQ(error_of(outcome), which <= 3 ? kNoError : ErrorKind::no_space) << int{which};
    }
    RawClient first = client();
    EXPECT_EQ(error_of(co_await first.hello(RawClient::grant_of(SampleVolume(1)))), kNoError);
    EXPECT_EQ(error_of(co_await put(first, SampleVolume(1).slice(2, 0, 1000))), kNoError);
  });
}

TEST_F(MinerServerTest, AFullDiskRefusesPutsUntilSomethingIsRemoved) {
  std::filesystem::create_directories(root_);
  ASSERT_EQ(::mount("tmpfs", root_.c_str(), "tmpfs", 0, "size=32m"), 0)
      << "this test mounts a tmpfs: run it as root";
  std::vector<SampleSlice> stored;
  const auto expect_all = [&](RawClient& user) -> Task<void> {
    for (const auto& slice : stored) {
      wire::ReadRequest read;
      read.slice = slice.id;
      read.ranges = {{0, slice.data.size()}};
      EXPECT_EQ(error_of(co_await user.ask(MessageType::read, read)), kNoError);
    }
  };
  with_miner([&]() -> Task<void> {
    RawClient user = client();
    EXPECT_EQ(error_of(co_await user.hello(RawClient::grant_of(volume_))), kNoError);
    ErrorKind refused = kNoError;
    for (Sequence at = 1; at <= 40 && refused == kNoError; ++at) {
      const auto slice = volume_.slice(at, 0, kMiB);
      refused = error_of(co_await put(user, slice));
      if (refused == kNoError) stored.push_back(slice);
    }
    EXPECT_EQ(refused, ErrorKind::no_space);
    EXPECT_GE(stored.size(), 8u);
    co_await expect_all(user);
    wire::RemoveRequest remove;
    for (std::size_t i = 0; i < stored.size() / 2; ++i) remove.slices.push_back(stored[i].id);
    EXPECT_EQ(error_of(co_await user.ask(MessageType::remove, remove)), kNoError);
    stored.erase(stored.begin(), stored.begin() + static_cast<std::ptrdiff_t>(stored.size() / 2));
    const TimePoint until = reactor_.now() + 10s;
    const auto late = volume_.slice(100, 0, kMiB);
    ErrorKind again = ErrorKind::no_space;
    while (again == ErrorKind::no_space && reactor_.now() < until) {
      co_await reactor_.sleep_for(100ms);
      again = error_of(co_await put(user, late));
    }
    EXPECT_EQ(again, kNoError);
    stored.push_back(late);
  });
  with_miner([&]() -> Task<void> {
    RawClient user = client();
    EXPECT_EQ(error_of(co_await user.hello(RawClient::grant_of(volume_))), kNoError);
    co_await expect_all(user);
  });
  EXPECT_EQ(::umount(root_.c_str()), 0);
}

}  // namespace
}  // namespace cumulus
