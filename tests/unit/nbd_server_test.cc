// What a client of the NBD server may do with the server's time and memory: a real socket, virtual time.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blockdev/nbd/server.h"
#include "tests/fakes/one_image.h"
#include "tests/fakes/sim_runtime.h"

namespace cumulus::nbd {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint64_t kMiB = 1u << 20;

// A server of one disk, and a client of it that was let in.
class Serving {
 public:
  explicit Serving(std::uint64_t memory_max = 64 * kMiB) : image_(runtime_, 64 * kMiB) {
    memory = std::make_shared<Memory>(runtime_, memory_max);
    ServerOptions options;
    options.image = "disk";
    options.unfinished = true;  // an import's note is not looked for
    options.limits.client_bytes_max = 4 * kMiB;
    options.limits.payload_max = seconds(30);
    options.memory = memory;
    server_ = std::make_unique<Server>(runtime_, image_, std::move(options));
    let_in();
  }
  ~Serving() {
    for (const int client : clients_) ::close(client);
    image_.set_full(false);
    bool closed = false;
    runtime_.spawn(server_->close(), [&closed] { closed = true; });
    EXPECT_TRUE(world_.run_until([&] { return closed; }, 1'000'000));
  }

  // One more client, whose turn it is from now on.
  void let_in() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    clients_.push_back(client_ = ends[0]);
    ::fcntl(client_, F_SETFL, O_NONBLOCK);
    server_->adopt(ends[1], "the test");
    Bytes hello;
    append(hello, std::uint32_t{3});  // fixed newstyle, no zeroes
    append(hello, kOptionMagic);
    append(hello, std::uint32_t{1});  // EXPORT_NAME
    append(hello, std::uint32_t{0});
    send(hello);
    EXPECT_EQ(receive().size(), 18u + 10u);
  }

  void turn_of(std::size_t client) { client_ = clients_[client]; }

  void pass(Duration time) {
    bool over = false;
    runtime_.start_timer(runtime_.now() + time, [&over] { over = true; });
    EXPECT_TRUE(world_.run_until([&] { return over; }, 1'000'000));
  }
  // As much as the server takes; the bytes that it did.
  std::size_t send(ByteView bytes) {
    std::size_t sent = 0;
    for (int refused = 0; sent < bytes.size() && refused < 3; ++refused) {
      const ssize_t part = ::send(client_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (part > 0) {
        sent += static_cast<std::size_t>(part);
        refused = 0;
      }
      pass(milliseconds(1));
    }
    return sent;
  }
  static Bytes request(Command command, std::uint64_t cookie, std::uint64_t length) {
    Bytes bytes;
    append(bytes, kRequestMagic);
    append(bytes, std::uint16_t{0});
    append(bytes, static_cast<std::uint16_t>(command));
    append(bytes, cookie);
    append(bytes, std::uint64_t{0});
    append(bytes, static_cast<std::uint32_t>(length));
    return bytes;
  }
  // What has come until now.
  Bytes receive() {
    Bytes all(8 * kMiB);
    std::size_t held = 0;
    for (;;) {
      const ssize_t part = ::recv(client_, all.data() + held, all.size() - held, 0);
      if (part <= 0) break;
      held += static_cast<std::size_t>(part);
      pass(milliseconds(1));
    }
    all.resize(held);
    return all;
  }
  bool is_open() {
    std::uint8_t byte = 0;
    const ssize_t part = ::recv(client_, &byte, 1, MSG_PEEK);
    return part > 0 || (part < 0 && errno == EAGAIN);
  }
  // Whether another server of the disk may listen there.
  bool listens(const std::string& address) {
    Server other(runtime_, image_, {});
    const bool listening = other.listen_tcp(address).has_value();
    bool closed = false;
    runtime_.spawn(other.close(), [&closed] { closed = true; });
    EXPECT_TRUE(world_.run_until([&] { return closed; }, 1'000'000));
    return listening;
  }
  OneImage& image() { return image_; }

 private:
  SimWorld world_{1};
  SimProcess& runtime_ = world_.start_process("server");

 public:
  std::shared_ptr<Memory> memory;

 private:
  OneImage image_;
  std::unique_ptr<Server> server_;
  std::vector<int> clients_;
  int client_ = -1;
};

Bytes write_of(std::uint64_t length, std::uint64_t cookie = 1) {
  Bytes bytes = Serving::request(Command::write, cookie, length);
  bytes.resize(bytes.size() + length);
  return bytes;
}

TEST(NbdServer, WaitingForTheServersMemoryIsNoSilence) {
  Serving serving;
  Semaphore::Hold all;
  ASSERT_TRUE(serving.memory->large_writes.try_acquire(all, serving.memory->large_writes.capacity()));
  const Bytes write = write_of(kMiB / 2);
  const ByteView bytes(write);
  EXPECT_EQ(serving.send(bytes.first(100'000)), 100'000u);
  serving.pass(seconds(60));
  all.release();
  serving.pass(seconds(1));
  EXPECT_TRUE(serving.is_open());
  EXPECT_EQ(serving.send(bytes.subspan(100'000)), bytes.size() - 100'000);
  EXPECT_EQ(serving.receive().size(), kSimpleReplySize);
}

TEST(NbdServer, ALargeWriteThatMovesIsWaitedFor) {
  Serving serving;
  const Bytes write = write_of(4 * kMiB);
  for (ByteView rest(write); !rest.empty() && serving.is_open();) {
    const std::size_t part = std::min<std::size_t>(rest.size(), 1'100'000);
    EXPECT_EQ(serving.send(rest.first(part)), part);
    rest = rest.subspan(part);
    serving.pass(seconds(20));
  }
  EXPECT_EQ(serving.receive().size(), kSimpleReplySize);
}

TEST(NbdServer, ALargeWriteThatDripsIsCutOff) {
  Serving serving;
  const Bytes write = write_of(4 * kMiB);
  ByteView rest(write);
  EXPECT_EQ(serving.send(rest.first(100'000)), 100'000u);
  int waited = 0;
  for (; waited < 100 && serving.is_open(); ++waited) {  // 900 KiB in 30 s
    rest = rest.subspan(30'000);
    serving.send(rest.first(30'000));
    serving.pass(seconds(1));
  }
  EXPECT_GE(waited, 29);
  EXPECT_LE(waited, 31);
}

TEST(NbdServer, ALogWithoutRoomHoldsUpFewWritesAndNoReads) {
  Serving serving;
  serving.image().set_full(true);
  std::uint64_t taken = 0;
  for (std::uint64_t cookie = 0; cookie < 4; ++cookie) taken += serving.send(write_of(kMiB, cookie));
  EXPECT_EQ(taken, 4 * write_of(kMiB).size());
  EXPECT_EQ(serving.image().waiting(), 4u);
  serving.send(Serving::request(Command::read, 10, 3 * kMiB));
  serving.send(Serving::request(Command::flush, 11, 0));
  EXPECT_EQ(serving.receive().size(), kSimpleReplySize + 3 * kMiB + kSimpleReplySize);
  // One more is as good as sent; all it has is in the socket, and a larger one waits for the whole share.
  const Bytes last = write_of(8 * kMiB);
  const std::size_t part = serving.send(last);
  EXPECT_LT(part, kMiB);
  serving.pass(seconds(3600));
  EXPECT_EQ(serving.image().waiting(), 4u);
  EXPECT_EQ(serving.receive().size(), 0u);
  serving.image().set_full(false);
  serving.pass(seconds(1));
  EXPECT_EQ(serving.send(ByteView(last).subspan(part)), last.size() - part);
  EXPECT_EQ(serving.receive().size(), 5 * kSimpleReplySize);
  EXPECT_EQ(serving.image().committed(), 5u);
}

TEST(NbdServer, OneThatIsSlowWithAHugeWriteHoldsUpOnlyThose) {
  Serving serving;
  const Bytes slow = write_of(32 * kMiB);
  EXPECT_EQ(serving.send(ByteView(slow).first(kMiB)), kMiB);
  for (int client = 0; client < 3; ++client) {
    serving.let_in();
    serving.send(write_of(4096));
    serving.send(write_of(2 * kMiB));
    serving.send(Serving::request(Command::read, 2, 3 * kMiB));
    EXPECT_EQ(serving.receive().size(), 3 * kSimpleReplySize + 3 * kMiB);
  }
}

TEST(NbdServer, ALogWithoutRoomHoldsUpFewLargeWritesOfAllClients) {
  Serving serving;
  serving.image().set_full(true);
  for (int client = 0; client < 6; ++client) {
    for (std::uint64_t cookie = 0; cookie < 4; ++cookie) serving.send(write_of(kMiB, cookie));
    serving.let_in();
  }
  EXPECT_EQ(serving.image().waiting(), 12u);
  serving.send(Serving::request(Command::read, 10, 3 * kMiB));
  EXPECT_EQ(serving.receive().size(), kSimpleReplySize + 3 * kMiB);
}

TEST(NbdServer, ALogWithoutRoomHoldsUpFewSmallWritesOfAllClients) {
  Serving serving;
  serving.image().set_full(true);
  Bytes many;
  for (std::uint64_t cookie = 0; many.size() < 16 * kMiB; ++cookie)
    append(many, text_of(write_of(64 << 10, cookie)));
  std::uint64_t taken = 0;
  for (int client = 0; client < 4; ++client) {
    taken += serving.send(many);
    serving.let_in();
  }
  // A MiB of each, 4 MiB of all, and what lies in sockets and has not been looked at.
  EXPECT_GT(taken, 8 * kMiB);
  EXPECT_LT(taken, 12 * kMiB);
  // Who asks for little waits for nobody's memory.
  serving.send(write_of(4096));
  serving.send(Serving::request(Command::read, 10, 3 * kMiB));
  EXPECT_EQ(serving.receive().size(), kSimpleReplySize + 3 * kMiB);
  serving.image().set_full(false);
  serving.pass(seconds(1));
  EXPECT_EQ(serving.receive().size(), kSimpleReplySize);
}

TEST(NbdServer, WhoTakesNoAnswersIsCutOffOnlyWhenMemoryIsShort) {
  constexpr std::size_t kStalled = 5;
  Serving serving;
  const Bytes read = Serving::request(Command::read, 1, 32 * kMiB);
  serving.send(read);
  serving.send(read);
  serving.pass(seconds(3600));
  EXPECT_TRUE(serving.is_open());
  for (std::size_t client = 1; client < kStalled; ++client) {
    serving.let_in();
    serving.send(read);
  }
  EXPECT_LE(serving.memory->untaken, 64 * kMiB);
  serving.let_in();
  serving.send(Serving::request(Command::read, 2, 3 * kMiB));
  EXPECT_EQ(serving.receive().size(), kSimpleReplySize + 3 * kMiB);
  serving.send(read);
  std::size_t got = 0;
  for (int second = 0; second < 300; ++second) {
    serving.pass(seconds(1));
    got += serving.receive().size();
  }
  EXPECT_EQ(got, kSimpleReplySize + 32 * kMiB);
  EXPECT_LE(serving.memory->untaken, 32 * kMiB);
  EXPECT_TRUE(serving.is_open());
}

TEST(NbdServer, APortThatIsNoneIsRefused) {
  Serving serving;
  for (const char* none :
       {"127.0.0.1:65536", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:", "127.0.0.1:1x"})
    EXPECT_FALSE(serving.listens(none)) << none;
  EXPECT_TRUE(serving.listens("127.0.0.1:0"));
}

TEST(NbdServer, ARefusedLargeWriteHoldsNothing) {
  Serving serving;
  Bytes refused = write_of(kMiB);
  store(refused.data() + 16, std::uint64_t{1} << 40);  // beyond the end
  EXPECT_EQ(serving.send(refused), refused.size());
  const Bytes next = write_of(8 * kMiB);  // needs the whole share
  EXPECT_EQ(serving.send(next), next.size());
  EXPECT_EQ(serving.receive().size(), 2 * kSimpleReplySize);
  EXPECT_EQ(serving.image().committed(), 1u);
}

}  // namespace
}  // namespace cumulus::nbd
