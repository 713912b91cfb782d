// The only include of liburing.
#include "objectstore/io/uring_file_system.h"

#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <deque>
#include <liburing.h>
#include <sys/eventfd.h>

#include "objectstore/base/check.h"
#include "objectstore/base/log.h"
#include "objectstore/io/posix_file.h"

namespace cumulus {
namespace {

using Token = asio::use_awaitable_t<ReactorExecutor>;

// One ring of the reactor's thread. Submissions of one reactor turn are handed to the kernel together;
// completions come through an eventfd, or at once when the operation ended within the submission (a
// page-cache hit).
class Ring {
 public:
  using Done = std::move_only_function<void(int)>;

  Ring(Reactor& reactor, unsigned depth) : reactor_(reactor), event_(reactor.context()), depth_(depth) {
    const int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(fd >= 0);
    event_.assign(fd);
  }
  ~Ring() {
    CHECK(in_flight_ == 0 && waiting_.empty());
    if (open_) io_uring_queue_exit(&ring_);
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  bool start() {
    open_ = io_uring_queue_init(depth_, &ring_, 0) == 0;
    return open_ && io_uring_register_eventfd(&ring_, event_.native_handle()) == 0;
  }

  // `prepare` fills the submission entry; `done` gets the result (negative errno) on the reactor.
  template <class Prepare>
  Task<int> run(Prepare prepare) {
    Token token;
    return asio::async_initiate<Token, void(int)>(
        [this](auto handler, Prepare fill) {
          submit({[fill](io_uring_sqe* entry) { fill(entry); },
                  [held = std::move(handler)](int result) mutable { std::move(held)(result); }});
        },
        token, std::move(prepare));
  }

 private:
  struct Operation {
    std::move_only_function<void(io_uring_sqe*)> fill;
    Done done;
  };

  void submit(Operation operation) {
    if (in_flight_ == depth_) {
      waiting_.push_back(std::move(operation));
      return;
    }
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    CHECK(entry != nullptr);  // as many entries as operations in flight
    operation.fill(entry);
    io_uring_sqe_set_data(entry, new Done(std::move(operation.done)));
    ++in_flight_;
    if (!flush_posted_) {
      flush_posted_ = true;
      reactor_.post([this] { flush(); });
    }
  }

  void flush() {
    flush_posted_ = false;
    int sent = 0;
    do {
      sent = io_uring_submit(&ring_);
    } while (sent == -EINTR || sent == -EAGAIN || sent == -EBUSY);
    CHECK(sent >= 0);
    reap();
    watch();
  }

  void watch() {
    if (watching_ || in_flight_ == 0) return;
    watching_ = true;
    event_.async_wait(asio::posix::stream_descriptor::wait_read,
                      [this](const boost::system::error_code& error) {
                        watching_ = false;
                        if (error) return;
                        std::uint64_t count = 0;
                        static_cast<void>(!::read(event_.native_handle(), &count, sizeof count));
                        reap();
                        watch();
                      });
  }

  void reap() {
    std::array<io_uring_cqe*, 32> ready;
    for (;;) {
      const unsigned count = io_uring_peek_batch_cqe(&ring_, ready.data(), ready.size());
      if (count == 0) return;
      for (unsigned i = 0; i < count; ++i) {
        const std::unique_ptr<Done> done(static_cast<Done*>(io_uring_cqe_get_data(ready[i])));
        const int result = ready[i]->res;
        io_uring_cqe_seen(&ring_, ready[i]);
        --in_flight_;
        if (!waiting_.empty()) {
          Operation next = std::move(waiting_.front());
          waiting_.pop_front();
          submit(std::move(next));
        }
        (*done)(result);
      }
    }
  }

  Reactor& reactor_;
  asio::posix::stream_descriptor event_;
  io_uring ring_{};
  unsigned depth_;
  bool open_ = false;
  unsigned in_flight_ = 0;
  bool flush_posted_ = false;
  bool watching_ = false;
  std::deque<Operation> waiting_;
};

class UringFile final : public PosixFile {
 public:
  UringFile(Reactor& reactor, Ring& ring, Descriptor descriptor, std::string path)
      : PosixFile(reactor, std::move(descriptor), std::move(path)), ring_(ring) {}

  Task<Result<std::size_t>> read_at(std::uint64_t offset, MutableByteView into) override {
    std::size_t done = 0;
    while (done < into.size()) {
      const MutableByteView rest = into.subspan(done);
      const std::uint64_t at = offset + done;
      const int got = co_await ring_.run([descriptor = fd(), rest, at](io_uring_sqe* entry) {
        io_uring_prep_read(entry, descriptor, rest.data(), static_cast<unsigned>(rest.size()), at);
      });
      if (got == -EINTR || got == -EAGAIN) continue;
      if (got < 0) co_return fail(from_errno(-got, "read " + path_));
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    co_return done;
  }

  Task<Status> write_at(std::uint64_t offset, ByteView data) override {
    while (!data.empty()) {
      const int put = co_await ring_.run([descriptor = fd(), data, offset](io_uring_sqe* entry) {
        io_uring_prep_write(entry, descriptor, data.data(), static_cast<unsigned>(data.size()), offset);
      });
      if (put == -EINTR || put == -EAGAIN) continue;
      if (put <= 0) co_return fail(from_errno(put == 0 ? EIO : -put, "write " + path_));
      offset += static_cast<std::uint64_t>(put);
      data = data.subspan(static_cast<std::size_t>(put));
    }
    co_return Status();
  }

  Task<Status> datasync() override {
    const int result = co_await ring_.run([descriptor = fd()](io_uring_sqe* entry) {
      io_uring_prep_fsync(entry, descriptor, IORING_FSYNC_DATASYNC);
    });
    if (result < 0) co_return fail(from_errno(-result, "fdatasync " + path_));
    co_return Status();
  }

 private:
  Ring& ring_;
};

class UringFileSystem final : public PosixNames {
 public:
  UringFileSystem(Reactor& reactor, unsigned depth)
      : PosixNames(reactor), reactor_(reactor), ring_(reactor, depth) {}
  bool start() { return ring_.start(); }

  Result<std::unique_ptr<File>> open(const std::string& path, OpenOptions options) override {
    TRY(Descriptor descriptor, open_descriptor(path, options));
    return std::make_unique<UringFile>(reactor_, ring_, std::move(descriptor), path);
  }

 private:
  Reactor& reactor_;
  Ring ring_;
};

}  // namespace

std::unique_ptr<FileSystem> make_uring_file_system(Reactor& reactor, unsigned queue_depth) {
  auto made = std::make_unique<UringFileSystem>(reactor, queue_depth);
  if (made->start()) return made;
  log_info("this system does not offer io_uring: disk operations run on worker threads");
  return make_worker_file_system(reactor);
}

}  // namespace cumulus
