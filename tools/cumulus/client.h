// Client: how a command talks to the volume's daemon, starting it when it is not running. Blocking; the
// command's thread.
#pragma once

#include <functional>
#include <string>

#include "tools/cumulus/assemble.h"
#include "tools/cumulus/frame.h"
#include "tools/cumulus/home.h"

namespace cumulus {

// Shows long work on standard error: a bar with rate and time left on a terminal, a line every few seconds
// otherwise.
class ProgressLine {
 public:
  ProgressLine(std::string what, bool bytes);
  ~ProgressLine();
  // `waiting_for`: why nothing moves; empty: it does.
  void show(std::uint64_t done, std::uint64_t total, const std::string& waiting_for = {});
  // A progress report of the daemon.
  void show(const Json& report);

 private:
  std::string what_;
  bool bytes_;
  bool terminal_;
  bool shown_ = false;
  double began_;
  double last_ = 0;
  std::uint64_t first_done_ = 0;
};

class Client {
 public:
  Client(Home home, std::string name) : home_(std::move(home)), name_(std::move(name)) {}

  // Where a passphrase comes from when the key file has one.
  void set_passphrase_file(std::string path) { passphrase_file_ = std::move(path); }

  // For the command that makes the volume: it alone may call before that is done.
  void makes_the_volume() { makes_the_volume_ = true; }

  // Starts the daemon with this request unless one runs; for create, recover and steal one must not run.
  Status start(const OpenRequest& request, bool must_be_new, const std::string& what);
  // One request, its result. `data_in` feeds data frames until it gives none; `data_out` takes them.
  using DataIn = std::function<Result<Bytes>()>;
  using DataOut = std::function<Status(ByteView)>;
  Result<Json> call(const Json& request, const std::string& what, bool bytes, int descriptor = -1,
                    const DataIn& data_in = {}, const DataOut& data_out = {});
  // Ends the daemon that runs, and starts one that destroys the volume instead of serving it: its result.
  Result<Json> destroy();
  // Asks the daemon to end, if one runs. One that starts or ends already is waited for.
  struct Stopped {
    bool ran = false;
    std::uint64_t dirty = 0;  // bytes that it had not yet sent to the miners when it was asked
  };
  Result<Stopped> stop();

 private:
  Result<DaemonSocket> connect();
  Result<Json> start_daemon(const OpenRequest& request, bool must_be_new, const std::string& what);
  Result<OpenRequest> with_passphrase(OpenRequest request);
  Error with_volume(const Error& error) const;

  Home home_;
  std::string name_;
  std::string passphrase_file_;
  bool makes_the_volume_ = false;
};

// From the file (its first line), or the terminal without echo. denied when there is neither.
Result<std::string> read_passphrase(const std::string& file, const std::string& prompt);

// Locks an open file for this process alone, within 5 s; false when another holds it for longer.
bool lock_soon(int file);

}  // namespace cumulus
