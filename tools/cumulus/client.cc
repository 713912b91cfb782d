#include "tools/cumulus/client.h"

#include <chrono>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <map>
#include <sys/file.h>
#include <sys/wait.h>
#include <termios.h>
#include <thread>
#include <unistd.h>

#include "objectstore/base/format.h"
#include "objectstore/crypto/key_file.h"
#include "tools/cumulus/killed_daemon.h"
#include "tools/names.h"
#include "tools/sizes.h"

namespace cumulus {
namespace {

constexpr int kRacesMax = 10;
constexpr double kStartPatience = 120;  // seconds, for a daemon that has begun or is just ending

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Error error_from(const Json& error) {
  static const std::map<std::string, ErrorKind> kKinds = {{"not_found", ErrorKind::not_found},
                                                          {"exists", ErrorKind::exists},
                                                          {"no_space", ErrorKind::no_space},
                                                          {"unavailable", ErrorKind::unavailable},
                                                          {"corrupt", ErrorKind::corrupt},
                                                          {"fenced", ErrorKind::fenced},
                                                          {"invalid", ErrorKind::invalid},
                                                          {"denied", ErrorKind::denied},
                                                          {"unsupported", ErrorKind::unsupported},
                                                          {"closed", ErrorKind::closed},
                                                          {"io", ErrorKind::io}};
  const auto kind = kKinds.find(error.value("kind", "io"));
  return {kind == kKinds.end() ? ErrorKind::io : kind->second, error.value("message", "unknown error")};
}

// A name that JSON cannot carry would come to the daemon as another one.
Status check_texts(const Json& request) {
  if (request.is_string()) return check_utf8(request.get_ref<const std::string&>());
  if (request.is_structured())
    for (const Json& part : request) TRY_OK(check_texts(part));
  return {};
}

}  // namespace

ProgressLine::ProgressLine(std::string what, bool bytes)
    : what_(std::move(what)), bytes_(bytes), terminal_(::isatty(STDERR_FILENO) == 1), began_(seconds_now()) {}

ProgressLine::~ProgressLine() {
  if (shown_ && terminal_) std::fprintf(stderr, "\r\033[K");
}

void ProgressLine::show(const Json& report) {
  const Json& amounts = report["progress"];
  show(amounts[0], amounts[1], report.value("waiting_for", ""));
}

void ProgressLine::show(std::uint64_t done, std::uint64_t total, const std::string& waiting_for) {
  const double now = seconds_now();
  if (last_ == 0) first_done_ = done;
  if (now - (last_ == 0 ? began_ : last_) < (terminal_ ? 0.2 : 5.0)) return;
  last_ = now;
  const double rate = static_cast<double>(done - std::min(done, first_done_)) / std::max(now - began_, 0.001);
  const auto amount = [this](std::uint64_t value) {
    return bytes_ ? format_size(value) : std::to_string(value);
  };
  std::string line = what_;
  // Of a request that counts nothing there is only what the volume waits for: most likely it does, too.
  if (total > 0 || done > 0 || waiting_for.empty()) line += (line.empty() ? "" : ": ") + amount(done);
  if (total > 0) line += format(" of {} ({}%)", amount(total), total == 0 ? 100 : done * 100 / total);
  if (rate >= 1) line += format(", {}/s", amount(static_cast<std::uint64_t>(rate)));
  if (rate >= 1 && total > done)
    line += format(", {}s left", static_cast<std::uint64_t>(static_cast<double>(total - done) / rate));
  if (!waiting_for.empty())
    line += (line.empty() ? "no answer yet; the volume is waiting: " : "; waiting: ") + waiting_for;
  std::fprintf(stderr, terminal_ ? "\r\033[K%s" : "%s\n", line.c_str());
  std::fflush(stderr);
  shown_ = true;
}

Result<std::string> read_passphrase(const std::string& file, const std::string& prompt) {
  if (!file.empty()) {
    const auto content = Home::read_file(file, 4096, Home::Kind::any);
    if (!content) return fail(ErrorKind::invalid, content.error().message());
    std::string line(text_of(*content));
    return line.substr(0, line.find_first_of("\r\n"));
  }
  const int terminal = ::open("/dev/tty", O_RDWR | O_CLOEXEC);
  if (terminal < 0)
    return fail(ErrorKind::denied,
                "there is no terminal to ask for the passphrase on: give --passphrase-file");
  termios before{};
  ::tcgetattr(terminal, &before);
  termios silent = before;
  silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  ::tcsetattr(terminal, TCSAFLUSH, &silent);
  static_cast<void>(!::write(terminal, prompt.data(), prompt.size()));
  std::string line;
  for (char c = 0; ::read(terminal, &c, 1) == 1 && c != '\n';) line.push_back(c);
  ::tcsetattr(terminal, TCSAFLUSH, &before);
  static_cast<void>(!::write(terminal, "\n", 1));
  ::close(terminal);
  return line;
}

Result<OpenRequest> Client::with_passphrase(OpenRequest request) {
  if (request.has_passphrase) return request;
  const std::string path = home_.volume(name_) + "/key";
  const auto bytes = Home::read_file(path, kKeyFileSizeMax);
  if (!bytes) return fail(home_.to_restore(bytes.error(), name_));
  const auto wrapped = key_file_is_wrapped(*bytes);
  if (!wrapped) return fail(home_.to_restore(wrapped.error().within(path), name_));
  if (!*wrapped) return request;
  TRY(request.passphrase, read_passphrase(passphrase_file_, format("passphrase of volume '{}': ", name_)));
  if (!is_utf8(request.passphrase))
    return fail(ErrorKind::invalid, "the passphrase is not UTF-8: 'cumulus volume passwd' sets another");
  request.has_passphrase = true;
  return request;
}

Result<DaemonSocket> Client::connect() { return DaemonSocket::connect(home_.volume(name_)); }

// Fenced is a whole volume, and what says so below knows no name.
Error Client::with_volume(const Error& error) const {
  return error.kind() == ErrorKind::fenced ? error.within(format("volume '{}'", name_)) : error;
}

Status Client::start(const OpenRequest& request, bool must_be_new, const std::string& what) {
  // A daemon that was fenced goes on serving what it has: to take the volume over it must make room.
  if (request.steal && !must_be_new && connect()) {
    TRY(const Json status, call({{"request", "volume.status"}}, "", false));
    if (!status.value("writable", true)) TRY_OK(stop());
  }
  TRY_OK(start_daemon(request, must_be_new, what));
  return {};
}

// Another command may start a daemon in the moment between the end of one and the start of the other.
Result<Json> Client::destroy() {
  OpenRequest request;
  request.kind = OpenRequest::Kind::destroy;
  for (int attempt = 0;; ++attempt) {
    TRY_OK(stop());
    auto result = start_daemon(request, true, "deleting slices");
    if (result || result.error().kind() != ErrorKind::exists || attempt == kRacesMax) return result;
  }
}

// What the daemon says at the end of its start.
Result<Json> Client::start_daemon(const OpenRequest& request, bool must_be_new, const std::string& what) {
  std::optional<OpenRequest> complete;
  // A daemon that is just ending still holds the lock; one that is just starting does not listen yet.
  for (const double give_up = seconds_now() + kStartPatience; seconds_now() < give_up;) {
    const auto running = connect();
    if (running) {
      if (!must_be_new) return Json();
      return fail(ErrorKind::exists, format("volume '{}' is open already on this machine", name_));
    }
    if (running.error().kind() == ErrorKind::denied)
      return fail(running.error().within(
          format("volume '{}' is open on this machine, by another user: {}", name_, home_.volume(name_))));
    end_mounts_of_killed(home_, name_);
    if (!complete) {
      TRY(complete, with_passphrase(request));
    }
    int in[2];
    int out[2];
    if (::pipe2(in, O_CLOEXEC) != 0) return fail(from_errno(errno, "start the volume's daemon"));
    if (::pipe2(out, O_CLOEXEC) != 0) {
      const int error = errno;
      ::close(in[0]);
      ::close(in[1]);
      return fail(from_errno(error, "start the volume's daemon"));
    }
    const std::string log = home_.volume(name_) + "/daemon.log";
    const std::string self = std::filesystem::read_symlink("/proc/self/exe");
    const pid_t child = ::fork();
    if (child == 0) {
      // A session of its own, nobody's child: it outlives this command and its terminal.
      if (::setsid() < 0 || ::fork() != 0) ::_exit(0);
      ::dup2(in[0], STDIN_FILENO);
      const int errors = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
      ::dup2(out[1], STDOUT_FILENO);
      ::dup2(errors < 0 ? out[1] : errors, STDERR_FILENO);
      static_cast<void>(!::chdir("/"));
      // What the caller's shell had open (flock's file, a pipe that is read to its end) is not held.
      static_cast<void>(::close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC));
      ::execl(self.c_str(), "cumulus", "--home", home_.path().c_str(), "daemon", name_.c_str(),
              static_cast<char*>(nullptr));
      ::_exit(127);
    }
    ::close(in[0]);
    ::close(out[1]);
    if (child > 0) ::waitpid(child, nullptr, 0);
    const std::string text = complete->to_json().dump() + "\n";
    static_cast<void>(!::write(in[1], text.data(), text.size()));
    ::close(in[1]);

    FILE* answers = ::fdopen(out[0], "r");
    ProgressLine progress(what, false);
    bool busy = false;
    std::optional<Json> ready;
    std::optional<Error> error;
    char* line = nullptr;
    std::size_t capacity = 0;
    while (!ready && !busy && !error && ::getline(&line, &capacity, answers) > 0) {
      const Json answer = Json::parse(line, nullptr, false);
      if (!answer.is_object()) continue;
      if (answer.contains("ready")) ready = Json();
      if (answer.contains("result")) ready = answer["result"];
      busy = answer.contains("busy");
      if (answer.contains("progress")) progress.show(answer);
      if (answer.contains("error")) error = error_from(answer["error"]);
    }
    std::free(line);
    std::fclose(answers);
    if (ready) return *ready;
    if (error) return fail(with_volume(*error));
    if (!busy) return fail(ErrorKind::io, format("the volume's daemon ended while it started: see {}", log));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return fail(ErrorKind::unavailable,
              format("the daemon of volume '{}' neither serves nor ends: see its daemon.log", name_));
}

Result<Json> Client::call(const Json& request, const std::string& what, bool bytes, int descriptor,
                          const DataIn& data_in, const DataOut& data_out) {
  TRY_OK(check_texts(request));
  if (!makes_the_volume_) TRY_OK(home_.check_volume(name_));
  TRY_OK(start({}, false, "opening"));
  TRY(DaemonSocket socket, connect());
  Json asked = request;
  asked["waits"] =
      true;  // and reads what it waits for; others that talk to the daemon read their answer only
  TRY_OK(socket.send(FrameKind::json, view_of(asked.dump()), descriptor));
  if (data_in) {
    for (;;) {
      TRY(const Bytes piece, data_in());
      const Status sent =
          piece.empty() ? socket.send(FrameKind::end, {}) : socket.send(FrameKind::data, piece);
      if (!sent || piece.empty()) break;  // the daemon may have said why
    }
  }
  ProgressLine progress(what, bytes);
  for (;;) {
    TRY(const DaemonSocket::Frame frame, socket.receive());
    if (frame.kind == FrameKind::data) {
      if (data_out) TRY_OK(data_out(frame.body));
      continue;
    }
    const Json answer = Json::parse(text_of(frame.body), nullptr, false);
    if (!answer.is_object()) return fail(ErrorKind::corrupt, "the volume's daemon answers nonsense");
    if (answer.contains("progress")) progress.show(answer);
    if (answer.contains("error")) return fail(with_volume(error_from(answer["error"])));
    if (answer.contains("result")) return answer["result"];
  }
}

bool lock_soon(int file) {
  for (int i = 0; i < 100; ++i) {
    if (::flock(file, LOCK_EX | LOCK_NB) == 0) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return false;
}

Result<Client::Stopped> Client::stop() {
  // The lock is free when the daemon has ended, and taken before it listens.
  const int lock = ::open((home_.volume(name_) + "/lock").c_str(), O_RDWR | O_CLOEXEC);
  Stopped stopped;
  if (lock < 0) return stopped;
  const double give_up = seconds_now() + kStartPatience;
  while (!stopped.ran && ::flock(lock, LOCK_EX | LOCK_NB) != 0) {
    if (seconds_now() > give_up) {
      ::close(lock);
      return fail(
          ErrorKind::unavailable,
          format("the daemon of volume '{0}' has begun and does not listen: wait if it recovers the volume; "
                 "else end the process that holds {1}/lock ('fuser {1}/lock' shows it)",
                 name_, home_.volume(name_)));
    }
    if (auto running = connect(); running) {
      stopped.ran = running->send(FrameKind::json, view_of(R"({"request":"daemon.stop"})")).has_value();
      // Or the end of the connection: the lock says the rest.
      if (const auto answer = running->receive(); answer && answer->kind == FrameKind::json) {
        const Json said = Json::parse(text_of(answer->body), nullptr, false);
        if (said.is_object() && said.contains("result"))
          stopped.dirty = said["result"].value("dirty", std::uint64_t{0});
      }
    }
    if (!stopped.ran) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  while (stopped.ran && ::flock(lock, LOCK_EX) != 0 && errno == EINTR) continue;
  ::close(lock);
  return stopped;
}

}  // namespace cumulus
