#include "tools/cumulus/daemon.h"

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <memory>
#include <set>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "tools/cumulus/bucket.h"
#include "tools/cumulus/heap_trimmer.h"
#include "tools/cumulus/new_volume_folder.h"
#include "tools/cumulus/requests.h"
#include "tools/cumulus/session.h"

namespace cumulus {
namespace {

constexpr Duration kIdleMax = std::chrono::seconds(60);
constexpr Duration kPatienceAtEnd = std::chrono::seconds(2);
constexpr Duration kTellEvery = std::chrono::seconds(3);
constexpr std::size_t kWorkers = 2;
constexpr std::size_t kSessionsMax = 256;
using Token = asio::use_awaitable_t<ReactorExecutor>;
using Acceptor = asio::basic_socket_acceptor<asio::local::stream_protocol, ReactorExecutor>;

// False when the starting command is gone.
bool tell(int ready, const Json& line) {
  const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  return ::write(ready, text.data(), text.size()) >= 0 || errno != EPIPE;
}

class Daemon {
 public:
  Daemon(Reactor& reactor, Home home, std::string name, OpenRequest request, int ready)
      : reactor_(reactor),
        home_(std::move(home)),
        name_(std::move(name)),
        request_(std::move(request)),
        ready_(ready),
        mounts_(reactor, residents_, home_, name_),
        acceptor_(reactor.context()),
        signals_(reactor.context()),
        ended_(reactor),
        tasks_(reactor) {}

  Task<void> run() {
    const auto settings = home_.load_settings(name_);  // none yet: it is being recovered
    const HeapTrimmer trimmer(reactor_, (settings ? settings->options : VolumeOptions()).memory_bytes);
    const Status status = co_await serve();
    if (status) co_return;
    exit_code_ = 1;
    log_error("{}", status.error().message());
    if (ready_ >= 0)
      tell(ready_,
           {{"error", {{"kind", to_string(status.error().kind())}, {"message", status.error().message()}}}});
  }
  int exit_code() const { return exit_code_; }

 private:
  Task<Status> serve() {
    const Progress progress = [this](std::uint64_t done, std::uint64_t total) {
      return tell(ready_, {{"progress", {done, total}}});
    };
    if (request_.kind == OpenRequest::Kind::destroy) {
      CO_TRY(const auto left, co_await Stack::destroy(reactor_, home_, name_, request_, progress));
      tell(ready_, {{"result", {{"unanswered", left}}}});
      log_info("volume '{}' is destroyed; miners that were not told: {}", name_, left.size());
      co_return Status();
    }
    CO_TRY(stack_, co_await Stack::assemble(reactor_, home_, name_, request_, progress));
    const auto unfinished = co_await Bucket::unfinished(stack_->volume());
    CO_TRY_OK(listen());
    if (unfinished && !unfinished->empty()) tasks_.spawn(drop_unfinished(*unfinished));
    // From here on a recovery is finished, whether the command that asked for it is still there or not.
    if (request_.kind == OpenRequest::Kind::recover)
      ::unlink(NewVolumeFolder::mark_of(home_.volume(name_)).c_str());
    tasks_.spawn(accept_loop());
    tasks_.spawn(wait_for_signal());
    tasks_.spawn(watch_idle());
    tell(ready_, {{"ready", true}, {"pid", ::getpid()}});
    ::close(std::exchange(ready_, -1));
    log_info("volume '{}' is open", name_);

    while (!stopping_) co_await ended_.wait();
    // Whoever still waits for miners when that time is up is told that the volume is closed.
    const TimerId patience =
        reactor_.start_timer(reactor_.now() + kPatienceAtEnd, [this] { stack_->volume().stop_waiting(); });
    co_await residents_.stop_all();
    co_await mounts_.close();
    for (Session* session : sessions_) session->end();
    co_await tasks_.join();
    reactor_.cancel_timer(patience);
    const Status closed = co_await stack_->close();
    if (!closed) log_error("closing the volume: {}", closed.error().message());
    log_info("volume '{}' is closed", name_);
    co_return Status();
  }

  Task<void> drop_unfinished(std::vector<ObjectRef> objects) {
    const std::size_t count = objects.size();
    const Status dropped = co_await Bucket::drop_unfinished(stack_->volume(), std::move(objects));
    if (dropped)
      log_info("objects of puts that were cut off are removed: {}", count);
    else
      log_info("objects of puts that were cut off stay until the next start: {}", dropped.error().message());
  }

  Status listen() {
    const std::string directory = home_.volume(name_);
    ::unlink((directory + "/daemon.sock").c_str());  // the lock says that nobody listens there
    const int folder = ::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return fail(from_errno(errno, "open " + directory));
    boost::system::error_code error;
    acceptor_.open(asio::local::stream_protocol(), error);
    const mode_t mask = ::umask(0177);  // the owner's alone
    if (!error) acceptor_.bind(asio::local::stream_protocol::endpoint(socket_path(folder)), error);
    ::umask(mask);
    if (!error) acceptor_.listen(64, error);
    ::close(folder);
    if (error) return fail(ErrorKind::io, format("listen in {}: {}", directory, error.message()));
    return {};
  }

  Task<void> accept_loop() {
    while (!stopping_) {
      boost::system::error_code error;
      Token token;
      Session::Socket socket(reactor_.context());
      co_await acceptor_.async_accept(socket, asio::redirect_error(token, error));
      if (stopping_) co_return;
      if (error) {
        co_await reactor_.sleep_for(
            std::chrono::milliseconds(100));  // out of descriptors: some will come back
        continue;
      }
      ucred peer{};
      socklen_t size = sizeof peer;
      const bool known = ::getsockopt(socket.native_handle(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
                         (peer.uid == ::geteuid() || peer.uid == 0);
      if (known && sessions_.size() < kSessionsMax)
        tasks_.spawn(serve_session(std::make_shared<Session>(reactor_, std::move(socket))));
    }
  }

  Task<void> serve_session(std::shared_ptr<Session> session) {
    sessions_.insert(session.get());
    session->start(tasks_of(*session));
    Json greeting = {{"serving", ::getpid()}};
    const Status greeted = co_await session->send_json(std::move(greeting));
    static_cast<void>(greeted);  // if not, nothing comes back either
    const auto frame = co_await session->receive();
    if (frame && frame->kind == FrameKind::json) {
      Json request = Json::parse(text_of(frame->body), nullptr, false);
      const auto answered = std::make_shared<bool>(false);
      if (request.is_object() && request.value("waits", Json()) == true)
        tasks_.spawn(tell_what_it_waits_for(session, answered));
      const Result<Json> answer = co_await answer_to(*session, std::move(request));
      *answered = true;
      ended_.notify_all();
      Json reply;
      if (answer) reply["result"] = *answer;
      if (!answer)
        reply["error"] = {{"kind", to_string(answer.error().kind())}, {"message", answer.error().message()}};
      const Status sent = co_await session->send_json(std::move(reply));
      static_cast<void>(sent);  // the command is gone: nobody is left to be told
    }
    session->end();
    co_await readers_.at(session.get())->join();
    readers_.erase(session.get());
    sessions_.erase(session.get());
    used_at_ = reactor_.now();
    ended_.notify_all();
  }

  // A request whose fields are not what they should be is refused, as one that does not parse.
  Task<Result<Json>> answer_to(Session& session, Json request) {
    if (request.is_discarded()) co_return fail(ErrorKind::invalid, "the request is not valid JSON");
    Desk desk{reactor_, *stack_, residents_, mounts_, home_, name_, [this] { stop(); }};
    std::string wrong;
    try {
      co_return co_await serve_request(desk, session, std::move(request));
    } catch (const Json::exception& error) {
      wrong = error.what();
    }
    co_return fail(ErrorKind::invalid,
                   format("the daemon does not understand the request: it is of another version, stop it "
                          "with 'cumulus volume stop' ({})",
                          wrong));
  }

  // Whoever waits longer than most requests take is told for what.
  Task<void> tell_what_it_waits_for(std::shared_ptr<Session> session, std::shared_ptr<const bool> answered) {
    while (!*answered) {
      const TimePoint until = reactor_.now() + kTellEvery;
      while (!*answered && reactor_.now() < until) co_await ended_.wait_until(until);
      const std::string obstacle = stack_->volume().obstacle();
      if (!*answered && !obstacle.empty() && session->silent_since() + kTellEvery <= reactor_.now())
        session->progress(0, 0, obstacle);
    }
  }

  TaskGroup& tasks_of(Session& session) {
    return *readers_.emplace(&session, std::make_unique<TaskGroup>(reactor_)).first->second;
  }

  Task<void> wait_for_signal() {
    boost::system::error_code error;
    for (const int number : {SIGTERM, SIGINT, SIGHUP}) signals_.add(number, error);
    Token token;
    co_await signals_.async_wait(asio::redirect_error(token, error));
    if (!error) stop();
  }

  Task<void> watch_idle() {
    used_at_ = reactor_.now();
    while (!stopping_) {
      co_await ended_.wait_until(reactor_.now() + std::chrono::seconds(5));
      if (in_use()) used_at_ = reactor_.now();
      if (stopping_ || reactor_.now() < used_at_ + kIdleMax) continue;
      const auto status = co_await stack_->volume().status(false);
      // A read-only volume has nothing more to send.
      if (!in_use() && status && (status->dirty == 0 || !status->writable)) stop();
    }
  }

  bool in_use() const { return !sessions_.empty() || !residents_.empty(); }

  void stop() {
    stopping_ = true;
    ended_.notify_all();
    // Commands that come now wait for the lock and start another daemon; those that wait to be accepted are
    // hung up on, and do the same.
    ::unlink((home_.volume(name_) + "/daemon.sock").c_str());
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    signals_.cancel(ignored);
  }

  Reactor& reactor_;
  Home home_;
  std::string name_;
  OpenRequest request_;
  int ready_;
  int exit_code_ = 0;
  std::unique_ptr<Stack> stack_;
  Residents residents_;
  Mounts mounts_;
  Acceptor acceptor_;
  asio::basic_signal_set<ReactorExecutor> signals_;
  std::set<Session*> sessions_;
  std::map<Session*, std::unique_ptr<TaskGroup>> readers_;
  TimePoint used_at_;
  bool stopping_ = false;
  Signal ended_;
  TaskGroup tasks_;
};

}  // namespace

int run_daemon(const Home& home, const std::string& name, OpenRequest request, int ready) {
  ::signal(SIGPIPE, SIG_IGN);
  const std::string lock = home.volume(name) + "/lock";
  const int held = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (held < 0 || ::flock(held, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    if (held >= 0 && error == EWOULDBLOCK) {
      tell(ready, {{"busy", true}});  // another daemon is starting or serving: the command waits for that one
    } else {
      tell(ready, {{"error", {{"kind", "io"}, {"message", from_errno(error, "lock " + lock).message()}}}});
    }
    return 1;
  }
  Reactor reactor(kWorkers);
  Daemon daemon(reactor, home, name, std::move(request), ready);
  reactor.run(daemon.run());
  ::close(held);
  return daemon.exit_code();
}

}  // namespace cumulus
