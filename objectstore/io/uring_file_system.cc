// The real FileSystem on io_uring, and the choice between it and workers. The only include of liburing. Runs
// on the reactor's thread and never waits there for the disk.
#include "objectstore/io/uring_file_system.h"

#include <algorithm>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <deque>
#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/uio.h>

#include "objectstore/base/check.h"
#include "objectstore/base/log.h"
#include "objectstore/io/posix_file.h"

namespace cumulus {
namespace {

using Token = asio::use_awaitable_t<ReactorExecutor>;

// One operation under way. Prepares its entry once, and completes once.
class Operation {
 public:
  virtual ~Operation() = default;
  virtual void prepare(io_uring_sqe* entry) = 0;
  virtual void complete(int result) = 0;
};

template <class Prepare, class Handler>
class OperationOf final : public Operation {
 public:
  OperationOf(Prepare prepare, Handler handler) : prepare_(prepare), handler_(std::move(handler)) {}
  void prepare(io_uring_sqe* entry) override { prepare_(entry); }
  void complete(int result) override { std::move(handler_)(result); }

 private:
  Prepare prepare_;
  Handler handler_;
};

// One ring of the reactor's thread. Submissions of one reactor turn are handed to the kernel together;
// completions come through an eventfd, or at once when the operation ended within the submission (a
// page-cache hit). Shared: whoever is woken by a completion may drop the file system.
class Ring : public std::enable_shared_from_this<Ring> {
 public:
  Ring(Reactor& reactor, unsigned depth) : reactor_(reactor), event_(reactor.context()), depth_(depth) {}
  ~Ring() {
    if (open_) io_uring_queue_exit(&ring_);
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // False when this system does not offer io_uring (old kernels, containers that forbid it).
  bool start() {
    const int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0) return false;
    event_.assign(fd);
    // Completions need no interrupt of this thread: it enters the kernel soon enough (Linux 5.19).
    open_ = io_uring_queue_init(depth_, &ring_, IORING_SETUP_COOP_TASKRUN) == 0 ||
            io_uring_queue_init(depth_, &ring_, 0) == 0;
    return open_ && io_uring_register_eventfd(&ring_, fd) == 0;
  }

  // Nothing is under way any more (checked); what is still posted finds nothing to do.
  void close() {
    CHECK(in_flight_ == 0 && waiting_.empty());
    event_.close();
  }

  // `prepare` fills the submission entry; the result is negative errno or what the call would return.
  template <class Prepare>
    requires std::is_trivially_destructible_v<Prepare>
  Task<int> run(Prepare prepare) {
    Token token;
    return asio::async_initiate<Token, void(int)>(
        [this](auto handler, Prepare fill) {
          submit(std::make_unique<OperationOf<Prepare, decltype(handler)>>(fill, std::move(handler)));
        },
        token, prepare);
  }

 private:
  void submit(std::unique_ptr<Operation> operation) {
    if (in_flight_ == depth_) {
      waiting_.push_back(std::move(operation));
      return;
    }
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    CHECK(entry != nullptr);  // as many entries as operations in flight
    operation->prepare(entry);
    io_uring_sqe_set_data(entry, operation.release());
    ++in_flight_;
    flush_soon();
  }

  void flush_soon() {
    if (flush_posted_) return;
    flush_posted_ = true;
    reactor_.post([self = shared_from_this()] { self->flush(); });
  }

  void flush() {
    flush_posted_ = false;
    const int sent = io_uring_submit(&ring_);
    CHECK(sent >= 0 || sent == -EINTR || sent == -EAGAIN || sent == -EBUSY);
    reap();
    // What the kernel did not take for want of memory is offered again, after everybody else's turn.
    if (io_uring_sq_ready(&ring_) != 0) flush_soon();
    watch();
  }

  void watch() {
    if (watching_ || in_flight_ == 0) return;
    watching_ = true;
    event_.async_wait(asio::posix::stream_descriptor::wait_read,
                      [self = shared_from_this()](const boost::system::error_code& error) {
                        self->watching_ = false;
                        if (error) return;
                        std::uint64_t count = 0;
                        static_cast<void>(!::read(self->event_.native_handle(), &count, sizeof count));
                        self->reap();
                        self->watch();
                      });
  }

  void reap() {
    io_uring_cqe* ready = nullptr;
    while (io_uring_peek_cqe(&ring_, &ready) == 0) {
      const std::unique_ptr<Operation> operation(static_cast<Operation*>(io_uring_cqe_get_data(ready)));
      const int result = ready->res;
      io_uring_cqe_seen(&ring_, ready);
      --in_flight_;
      if (!waiting_.empty()) {
        auto next = std::move(waiting_.front());
        waiting_.pop_front();
        submit(std::move(next));
      }
      operation->complete(result);
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
  std::deque<std::unique_ptr<Operation>> waiting_;
};

// A transfer's length is an int in the answer.
constexpr std::size_t kTransferMax = std::size_t{1} << 30;
// A read of this much from the page cache is copied by a thread of the kernel's, not by the reactor's.
constexpr std::size_t kCopyMax = std::size_t{128} << 10;

class UringFile final : public PosixFile {
 public:
  UringFile(Reactor& reactor, std::shared_ptr<Ring> ring, Descriptor descriptor, std::string path)
      : PosixFile(reactor, std::move(descriptor), std::move(path)), ring_(std::move(ring)) {}

  Task<Result<std::size_t>> read_at(std::uint64_t offset, MutableByteView into) override {
    return read_from(fd(), offset, into, 0);
  }
  Task<Result<std::size_t>> read_warm(std::uint64_t offset, MutableByteView into) override {
    return read_from(warm_fd(), offset, into, into.size() > kCopyMax ? IOSQE_ASYNC : 0);
  }

  Task<Status> write_at(std::uint64_t offset, ByteView data) override { return write(offset, data, 0); }
  // The kernel syncs behind the write by itself: nobody here has to wake up in between.
  Task<Status> write_durable_at(std::uint64_t offset, ByteView data) override {
    return write(offset, data, RWF_DSYNC);
  }

  Task<Status> datasync() override {
    const int result = co_await ring_->run([descriptor = fd()](io_uring_sqe* entry) {
      io_uring_prep_fsync(entry, descriptor, IORING_FSYNC_DATASYNC);
    });
    if (result < 0) co_return fail(from_errno(-result, "fdatasync " + path_));
    co_return Status();
  }

 private:
  Task<Status> write(std::uint64_t offset, ByteView data, int flags) {
    while (!data.empty()) {
      const ByteView part = data.first(std::min(data.size(), kTransferMax));
      const int put = co_await ring_->run([descriptor = fd(), part, offset, flags](io_uring_sqe* entry) {
        io_uring_prep_write(entry, descriptor, part.data(), static_cast<unsigned>(part.size()), offset);
        entry->rw_flags = flags;
      });
      if (put == -EINTR || put == -EAGAIN) continue;
      if (put <= 0) co_return fail(from_errno(put == 0 ? EIO : -put, "write " + path_));
      offset += static_cast<std::uint64_t>(put);
      data = data.subspan(static_cast<std::size_t>(put));
    }
    co_return Status();
  }

  Task<Result<std::size_t>> read_from(int descriptor, std::uint64_t offset, MutableByteView into,
                                      unsigned char how) {
    std::size_t done = 0;
    while (done < into.size()) {
      const MutableByteView rest = into.subspan(done, std::min(into.size() - done, kTransferMax));
      const std::uint64_t at = offset + done;
      const int got = co_await ring_->run([descriptor, rest, at, how](io_uring_sqe* entry) {
        io_uring_prep_read(entry, descriptor, rest.data(), static_cast<unsigned>(rest.size()), at);
        entry->flags |= how;
      });
      if (got == -EINTR || got == -EAGAIN) continue;
      if (got < 0) co_return fail(from_errno(-got, "read " + path_));
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
      if (done < into.size() && ends_at(descriptor, offset + done)) break;
    }
    co_return done;
  }

  const std::shared_ptr<Ring> ring_;
};

class UringFileSystem final : public PosixNames {
 public:
  UringFileSystem(Reactor& reactor, unsigned depth)
      : PosixNames(reactor), reactor_(reactor), ring_(std::make_shared<Ring>(reactor, depth)) {}
  ~UringFileSystem() override { ring_->close(); }
  bool start() { return ring_->start(); }

  Result<std::unique_ptr<File>> open(const std::string& path, OpenOptions options) override {
    TRY(Descriptor descriptor, open_descriptor(path, options));
    return std::make_unique<UringFile>(reactor_, ring_, std::move(descriptor), path);
  }

 private:
  Reactor& reactor_;
  const std::shared_ptr<Ring> ring_;
};

}  // namespace

std::unique_ptr<FileSystem> make_uring_file_system(Reactor& reactor, unsigned queue_depth) {
  // Each cached segment holds two descriptors; the soft limit of 1024 is for programs that use select().
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  auto made = std::make_unique<UringFileSystem>(reactor, queue_depth);
  if (made->start()) return made;
  log_info("this system does not offer io_uring: disk operations run on worker threads");
  return make_worker_file_system(reactor);
}

}  // namespace cumulus
