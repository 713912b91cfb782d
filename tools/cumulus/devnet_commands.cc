// cumulus devnet ...: a private network on this machine, of real miners; and the means to hurt them.
//
//   DIR/miners.toml            for `volume create`
//   DIR/miner-I/               the miner's own directory
//   DIR/miner-I.json           its port, its pid, and its proxy's when it is slow
//   DIR/miner-I.log
#include <algorithm>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <signal.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "objectstore/base/format.h"
#include "tools/cumulus/commands.h"
#include "tools/cumulus/slow_proxy.h"
#include "tools/sizes.h"

namespace cumulus {
namespace {

struct Arguments {
  std::string directory = "devnet";
  unsigned miners = 6;
  std::string capacity = "100G";
  unsigned index = 0;
  unsigned slices = 0;
  std::string delay = "200ms";
  std::string rate = "0";
  bool off = false;
  std::string listen;
  std::string to;
};
Arguments arguments;

std::string miner_path(unsigned i) {
  return format("{}/miner-{}", std::filesystem::absolute(arguments.directory).string(), i);
}

struct MinerState {
  int port = 0;        // what the volume knows
  int miner_port = 0;  // where the miner listens: another one behind a proxy
  pid_t pid = 0;
  pid_t proxy_pid = 0;
};

Result<MinerState> load_state(unsigned i) {
  const auto bytes = Home::read_file(miner_path(i) + ".json", 65536);
  if (!bytes)
    return fail(ErrorKind::not_found,
                format("there is no miner {} in {}: 'cumulus devnet up' makes them, they count from 1", i,
                       arguments.directory));
  const Json json = Json::parse(text_of(*bytes), nullptr, false);
  if (!json.is_object()) return fail(ErrorKind::corrupt, miner_path(i) + ".json does not parse");
  return MinerState{json.value("port", 0), json.value("miner_port", 0), json.value("pid", 0),
                    json.value("proxy_pid", 0)};
}

Status save_state(unsigned i, const MinerState& state) {
  const Json json = {{"port", state.port},
                     {"miner_port", state.miner_port},
                     {"pid", state.pid},
                     {"proxy_pid", state.proxy_pid}};
  return Home::write_file(miner_path(i) + ".json", view_of(json.dump(2) + "\n"));
}

std::string program_beside(const char* name) {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / name).string();
}

// The words of a running program of ours; none of any other. A pid is ours only while /proc shows our miner
// or proxy under it: pids are used again, after a restart of the machine by anybody.
std::vector<std::string> words_of(pid_t pid) {
  std::vector<std::string> words;
  if (pid <= 0 || ::kill(pid, 0) != 0) return words;
  const auto line = Home::read_file(format("/proc/{}/cmdline", pid), 65536);
  std::string_view left = line ? text_of(*line) : std::string_view();
  if (left.substr(0, left.find('\0')).find("cumulus") == std::string_view::npos) return words;
  while (!left.empty()) {
    words.emplace_back(left.substr(0, left.find('\0')));
    left.remove_prefix(std::min(left.size(), words.back().size() + 1));
  }
  return words;
}

bool miner_runs(unsigned i, const MinerState& state) {
  std::error_code ignored;  // most words are no paths
  return std::ranges::any_of(words_of(state.pid), [&](const std::string& word) {
    return std::filesystem::equivalent(word, miner_path(i), ignored);
  });
}

bool proxy_runs(const MinerState& state) {
  return std::ranges::count(words_of(state.proxy_pid), format("127.0.0.1:{}", state.port)) > 0;
}

// Its files and ports are free: gone, or a zombie without threads. It is not our child, and whoever adopted
// it may reap it seconds later.
bool has_ended(pid_t pid) {
  const auto stat = Home::read_file(format("/proc/{}/stat", pid), 4096);
  if (!stat) return true;
  const std::string_view text = text_of(*stat);
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string_view::npos || !text.substr(name_end).starts_with(") Z")) return false;
  std::error_code error;
  const std::filesystem::directory_iterator threads(format("/proc/{}/task", pid), error);
  return error || std::distance(begin(threads), end(threads)) <= 1;
}

void wait_for_end(pid_t pid) {
  for (int i = 0; i < 1000 && !has_ended(pid); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

void end_miner(unsigned i, const MinerState& state, int signal) {
  if (!miner_runs(i, state)) return;
  ::kill(state.pid, signal);
  wait_for_end(state.pid);
}

// Starts a program that goes on after this command; returns its pid and the first line that it prints.
Result<std::pair<pid_t, std::string>> launch(std::vector<std::string> words, const std::string& log) {
  int out[2];
  if (::pipe2(out, O_CLOEXEC) != 0) return fail(from_errno(errno, "start " + words.front()));
  int pids[2];
  if (::pipe2(pids, O_CLOEXEC) != 0) return fail(from_errno(errno, "start " + words.front()));
  const pid_t child = ::fork();
  if (child == 0) {
    ::setsid();
    const pid_t grandchild = ::fork();
    if (grandchild != 0) {
      static_cast<void>(!::write(pids[1], &grandchild, sizeof grandchild));
      ::_exit(0);
    }
    std::vector<char*> argv;
    argv.reserve(words.size() + 1);
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const int nothing = ::open("/dev/null", O_RDONLY);
    const int errors = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::dup2(nothing, STDIN_FILENO);
    ::dup2(out[1], STDOUT_FILENO);
    ::dup2(errors, STDERR_FILENO);
    static_cast<void>(::close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC));
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(out[1]);
  ::close(pids[1]);
  pid_t pid = 0;
  const bool known = ::read(pids[0], &pid, sizeof pid) == sizeof pid;
  ::close(pids[0]);
  if (child > 0) ::waitpid(child, nullptr, 0);
  std::string line;
  for (char c = 0; ::read(out[0], &c, 1) == 1 && c != '\n';) line.push_back(c);
  ::close(out[0]);
  if (!known || line.empty())
    return fail(ErrorKind::io, format("{} did not start: see {}", words.front(), log));
  return std::pair(pid, line);
}

// Runs a program to its end; what it printed. io when it did not end with 0.
Result<std::string> capture(std::vector<std::string> words) {
  int out[2];
  if (::pipe2(out, O_CLOEXEC) != 0) return fail(from_errno(errno, "run " + words.front()));
  const pid_t child = ::fork();
  if (child == 0) {
    std::vector<char*> argv;
    argv.reserve(words.size() + 1);
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    ::dup2(out[1], STDOUT_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(out[1]);
  std::string text;
  char piece[4096];
  for (ssize_t got = 0; (got = ::read(out[0], piece, sizeof piece)) > 0;)
    text.append(piece, static_cast<std::size_t>(got));
  ::close(out[0]);
  int code = 0;
  if (child < 0 || ::waitpid(child, &code, 0) != child || !WIFEXITED(code) || WEXITSTATUS(code) != 0)
    return fail(ErrorKind::io, words[0] + " " + words[1] + " failed");
  return text;
}

Result<std::string> identity_of(unsigned i) {
  TRY(const std::string text, capture({program_beside("cumulus-miner"), "status", miner_path(i), "--json"}));
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("identity"))
    return fail(ErrorKind::corrupt, miner_path(i) + " does not tell its identity");
  return json.value("identity", "");
}

// "ready 127.0.0.1:7301" -> 7301.
Result<int> port_of(const std::string& line) {
  const auto colon = line.rfind(':');
  const int port = colon == std::string::npos ? 0 : std::atoi(line.c_str() + colon + 1);
  if (!line.starts_with("ready ") || port == 0)
    return fail(ErrorKind::io, format("a miner said '{}' instead of ready", line));
  return port;
}

Status start_miner(unsigned i, MinerState& state) {
  if (miner_runs(i, state)) return {};
  TRY(const auto started,
      launch({program_beside("cumulus-miner"), "run", miner_path(i), "--listen",
              format("127.0.0.1:{}", state.miner_port), "--open", "--quota-per-volume", "1000T"},
             miner_path(i) + ".log"));
  state.pid = started.first;
  TRY(state.miner_port, port_of(started.second));
  if (state.port == 0) state.port = state.miner_port;
  return save_state(i, state);
}

void stop_proxy(MinerState& state) {
  if (proxy_runs(state)) {
    ::kill(state.proxy_pid, SIGKILL);
    wait_for_end(state.proxy_pid);
  }
  state.proxy_pid = 0;
}

Result<int> up(const Invocation& invocation) {
  if (arguments.miners < 1 || arguments.miners > 200)
    return fail(ErrorKind::invalid, "a devnet has 1 to 200 miners");
  std::error_code error;
  std::filesystem::create_directories(arguments.directory, error);
  if (error) return fail(from_errno(error.value(), "make directory " + arguments.directory));
  std::string list;
  for (unsigned i = 1; i <= arguments.miners; ++i) {
    MinerState state;
    if (auto known = load_state(i)) state = *known;
    if (!std::filesystem::exists(miner_path(i) + "/config")) {
      TRY(const std::string made,
          capture({program_beside("cumulus-miner"), "init", miner_path(i), "--capacity", arguments.capacity,
                   "--domain", format("devnet-{}", i), "--json"}));
      static_cast<void>(made);
    }
    TRY_OK(start_miner(i, state));
    TRY(const std::string identity, identity_of(i));
    list += format(
        "[[miner]]\naddress = \"127.0.0.1:{}\"\nidentity = \"{}\"\ndomain = \"devnet-{}\"\ncapacity = "
        "\"{}\"\n\n",
        state.port, identity, i, arguments.capacity);
  }
  TRY_OK(Home::write_file(arguments.directory + "/miners.toml", view_of(list)));
  if (invocation.json) {
    print_json({{"miners", arguments.miners}, {"list", arguments.directory + "/miners.toml"}});
  } else {
    std::printf("%u miners run on this machine; %s/miners.toml lists them\n", arguments.miners,
                arguments.directory.c_str());
  }
  return 0;
}

unsigned highest_miner() {
  unsigned i = 0;
  while (std::filesystem::exists(miner_path(i + 1) + ".json")) ++i;
  return i;
}

Result<int> down() {
  const unsigned last = highest_miner();
  if (last == 0) return fail(ErrorKind::not_found, format("there is no devnet in {}", arguments.directory));
  std::vector<pid_t> told;
  for (unsigned i = 1; i <= last; ++i) {
    TRY(const MinerState state, load_state(i));
    if (!miner_runs(i, state)) continue;
    ::kill(state.pid, SIGTERM);
    told.push_back(state.pid);
  }
  for (const pid_t pid : told) wait_for_end(pid);
  for (unsigned i = 1; i <= last; ++i) {
    TRY(MinerState state, load_state(i));
    stop_proxy(state);
    state.pid = 0;
    state.miner_port = state.port;
    TRY_OK(save_state(i, state));
  }
  return 0;
}

Result<int> status(const Invocation& invocation) {
  const unsigned last = highest_miner();
  if (last == 0) return fail(ErrorKind::not_found, format("there is no devnet in {}", arguments.directory));
  Json all = Json::array();
  for (unsigned i = 1; i <= last; ++i) {
    TRY(const MinerState state, load_state(i));
    const bool running = miner_runs(i, state);
    const bool slow = proxy_runs(state);
    all.push_back({{"miner", i},
                   {"running", running},
                   {"slow", slow},
                   {"port", state.port},
                   {"pid", running ? state.pid : 0}});
    if (!invocation.json)
      std::printf("miner %u  127.0.0.1:%d  %s%s\n", i, state.port,
                  running ? format("running, pid {}", state.pid).c_str() : "stopped", slow ? ", slow" : "");
  }
  if (invocation.json) print_json(all);
  return 0;
}

Result<int> stop() {
  TRY(MinerState state, load_state(arguments.index));
  end_miner(arguments.index, state, SIGKILL);
  state.pid = 0;
  TRY_OK(save_state(arguments.index, state));
  return 0;
}

Result<int> start() {
  TRY(MinerState state, load_state(arguments.index));
  TRY_OK(start_miner(arguments.index, state));
  return 0;
}

// The same identity with nothing in it, running as it was.
Result<int> wipe_miner() {
  TRY(MinerState state, load_state(arguments.index));
  const bool running = miner_runs(arguments.index, state);
  end_miner(arguments.index, state, SIGKILL);
  const std::string path = miner_path(arguments.index);
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    const std::string name = entry.path().filename();
    if (name == "identity" || name == "config" || name == "allow" || name == "lock") continue;
    std::error_code error;
    std::filesystem::remove_all(entry.path(), error);
    if (error) return fail(from_errno(error.value(), "empty " + path));
  }
  if (running) TRY_OK(start_miner(arguments.index, state));
  return 0;
}

// While the miner is down for a moment: it must not notice by itself.
Result<int> corrupt() {
  TRY(MinerState state, load_state(arguments.index));
  const bool running = miner_runs(arguments.index, state);
  end_miner(arguments.index, state, SIGKILL);
  const auto flipped = capture({program_beside("cumulus-miner"), "corrupt", miner_path(arguments.index),
                                "--slices", std::to_string(arguments.slices)});
  if (running) TRY_OK(start_miner(arguments.index, state));
  if (!flipped) return fail(flipped.error());
  return 0;
}

// Full: its capacity becomes what it holds. `start` after `fill` leaves it so; `fill --off` gives it back.
Result<int> fill() {
  TRY(MinerState state, load_state(arguments.index));
  const bool running = miner_runs(arguments.index, state);
  end_miner(arguments.index, state, SIGTERM);
  const std::string path = miner_path(arguments.index) + "/config";
  TRY(const Bytes bytes, Home::read_file(path, 1u << 20));
  std::string text(text_of(bytes));
  const auto at = text.find("capacity");
  if (at == std::string::npos) return fail(ErrorKind::corrupt, path + " has no capacity");
  const auto equals = text.find_first_of("=: ", at);
  const auto begin = text.find_first_not_of("=: ", equals);
  const auto end = text.find_first_of("\r\n", begin);
  TRY(const std::uint64_t capacity, parse_size(arguments.off ? arguments.capacity : "4K"));
  text.replace(begin, end - begin, std::to_string(capacity));
  TRY_OK(Home::write_file(path, view_of(text)));
  if (running) TRY_OK(start_miner(arguments.index, state));
  return 0;
}

Result<Duration> parse_delay(const std::string& text) {
  char* end = nullptr;
  const double amount = std::strtod(text.c_str(), &end);
  const std::string unit = end;
  if (end == text.c_str() || amount < 0 || amount > 3600 || (unit != "ms" && unit != "s" && !unit.empty()))
    return fail(ErrorKind::invalid, format("'{}' is not a delay: give 200ms or 1s", text));
  return std::chrono::nanoseconds(static_cast<std::int64_t>(amount * (unit == "ms" ? 1e6 : 1e9)));
}

// The miner moves to another port, and a forwarding process takes its own.
Result<int> slow() {
  TRY_OK(parse_delay(arguments.delay));
  TRY_OK(parse_size(arguments.rate));
  TRY(MinerState state, load_state(arguments.index));
  const bool running = miner_runs(arguments.index, state);
  end_miner(arguments.index, state, SIGTERM);
  stop_proxy(state);
  state.miner_port = arguments.off ? state.port : 0;
  if (running || !arguments.off) TRY_OK(start_miner(arguments.index, state));
  if (arguments.off) {
    TRY_OK(save_state(arguments.index, state));
    return 0;
  }
  TRY(const auto proxy,
      launch({program_beside("cumulus"), "devnet", "proxy", "--listen", format("127.0.0.1:{}", state.port),
              "--to", format("127.0.0.1:{}", state.miner_port), "--delay", arguments.delay, "--rate",
              arguments.rate},
             miner_path(arguments.index) + ".log"));
  state.proxy_pid = proxy.first;
  TRY_OK(save_state(arguments.index, state));
  return 0;
}

Result<int> proxy() {
  TRY(const Duration delay, parse_delay(arguments.delay));
  TRY(const std::uint64_t rate, parse_size(arguments.rate));
  return run_slow_proxy(arguments.listen, arguments.to, delay, rate);
}

}  // namespace

void add_devnet_commands(CLI::App& app, Invocation& invocation) {
  auto* devnet = app.add_subcommand("devnet", "a private network of miners on this machine")
                     ->require_subcommand(1)
                     ->fallthrough();
  const auto command = [&](const char* name, const char* help, const std::function<Result<int>()>& body,
                           bool with_index) {
    auto* made = devnet->add_subcommand(name, help)->fallthrough();
    made->add_option("--dir", arguments.directory, "its folder")->capture_default_str()->type_name("DIR");
    if (with_index)
      made->add_option("I", arguments.index, "which miner, from 1")
          ->required()
          ->check(CLI::Range(1u, 200u))
          ->type_name("");
    made->footer(format("Example: cumulus devnet {}{}", name, with_index ? " 2" : ""));
    invocation.on(made, body);
    return made;
  };
  auto* upping =
      command("up", "start the miners; makes them first", [&invocation] { return up(invocation); }, false);
  upping->add_option("--miners", arguments.miners, "how many")->capture_default_str()->type_name("N");
  upping->add_option("--capacity", arguments.capacity, "of each")->capture_default_str()->type_name("SIZE");
  command("down", "stop all of them", down, false);
  command("status", "which run", [&invocation] { return status(invocation); }, false);
  command("stop", "kill -9 a miner", stop, true);
  command("start", "start it again", start, true);
  command("wipe", "empty a miner; it keeps its identity", wipe_miner, true);
  command("corrupt", "flip bytes in what it stores", corrupt, true)
      ->add_option("--slices", arguments.slices, "in so many slices; 0: all")
      ->type_name("N");
  auto* slowing = command("slow", "put a slow forwarding process before it", slow, true);
  slowing->add_option("--delay", arguments.delay, "each way")->capture_default_str()->type_name("TIME");
  slowing->add_option("--rate", arguments.rate, "bytes a second; 0: unlimited")
      ->capture_default_str()
      ->type_name("SIZE");
  slowing->add_flag("--off", arguments.off, "take it away");
  auto* filling = command("fill", "fill its capacity: it takes nothing more", fill, true);
  filling->add_flag("--off", arguments.off, "give the capacity back");
  filling->add_option("--capacity", arguments.capacity, "with --off: the capacity")
      ->capture_default_str()
      ->type_name("SIZE");
  auto* forwarding = command("proxy", "the forwarding process of `slow`", proxy, false)->group("");
  forwarding->add_option("--listen", arguments.listen)->required();
  forwarding->add_option("--to", arguments.to)->required();
  forwarding->add_option("--delay", arguments.delay);
  forwarding->add_option("--rate", arguments.rate);
}

}  // namespace cumulus
