// cumulus snapshot ... and cumulus clone.
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <fcntl.h>
#include <unistd.h>

#include "objectstore/base/format.h"
#include "tools/cumulus/commands.h"

namespace cumulus {
namespace {

struct Target {
  std::string volume;
  std::string dataset;
  std::string snapshot;
};

// VOLUME/NAME@SNAPSHOT.
Result<Target> parse_target(const std::string& text) {
  const auto at = text.rfind('@');
  if (at == std::string::npos || at + 1 == text.size())
    return fail(ErrorKind::invalid, format("'{}' names no snapshot: give VOLUME/NAME@SNAPSHOT", text));
  TRY(const auto parts, split_target(text.substr(0, at)));
  return Target{parts.first, parts.second, text.substr(at + 1)};
}

std::vector<std::string> targets;
std::string target;
std::string file = "-";
std::string destination;
unsigned count = 1;

Result<int> create(const Invocation& invocation) {
  Json request = {{"request", "snapshot.create"}, {"targets", Json::array()}};
  std::string volume;
  for (const std::string& text : targets) {
    TRY(const Target one, parse_target(text));
    if (!volume.empty() && volume != one.volume)
      return fail(ErrorKind::invalid,
                  "one instant is of one volume: take each volume's snapshots by a command of its own");
    volume = one.volume;
    request["targets"].push_back({{"dataset", one.dataset}, {"snapshot", one.snapshot}});
  }
  Client client = invocation.client(volume);
  TRY(const Json ignored, client.call(request, "", false));
  static_cast<void>(ignored);
  return 0;
}

Result<int> with_snapshot(const Invocation& invocation, const char* name) {
  TRY(const Target one, parse_target(target));
  Client client = invocation.client(one.volume);
  TRY(const Json ignored,
      client.call({{"request", name}, {"dataset", one.dataset}, {"snapshot", one.snapshot}}, "", false));
  static_cast<void>(ignored);
  return 0;
}

Result<int> list(const Invocation& invocation) {
  TRY(const auto parts, split_target(target));
  Client client = invocation.client(parts.first);
  TRY(const Json datasets, client.call({{"request", "dataset.ls"}}, "", false));
  for (const Json& dataset : datasets) {
    if (dataset.value("name", "") != parts.second) continue;
    if (invocation.json) {
      print_json(dataset["snapshots"]);
      return 0;
    }
    for (const Json& snapshot : dataset["snapshots"]) {
      const auto seconds = static_cast<std::time_t>(snapshot.value("created_at", std::uint64_t{0}));
      char time[64] = "";
      std::tm utc{};
      ::gmtime_r(&seconds, &utc);
      std::strftime(time, sizeof time, "%Y-%m-%d %H:%M:%S UTC", &utc);
      std::printf("%s  %s\n", time, snapshot.value("name", "").c_str());
    }
    return 0;
  }
  return fail(ErrorKind::not_found, format("there is no '{}' in volume '{}'", parts.second, parts.first));
}

// VOLUME/NAME@SNAPSHOT, or VOLUME/NAME for what is there now.
Result<Target> parse_instant(const std::string& text) {
  if (text.find('@') != std::string::npos) return parse_target(text);
  TRY(const auto parts, split_target(text));
  return Target{parts.first, parts.second, ""};
}

Json instant_json(const Target& one) { return {{"dataset", one.dataset}, {"snapshot", one.snapshot}}; }

Status same_volume(const Target& one, const Target& other) {
  if (one.volume == other.volume) return {};
  return fail(ErrorKind::invalid, "both must be of one volume");
}

Status write_all(int fd, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return fail(from_errno(put == 0 ? EIO : errno, "write the stream"));
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  return {};
}

void print_difference(const Json& page) {
  for (const Json& range : page.value("ranges", Json::array()))
    std::printf("%14s %12s\n", range["offset"].dump().c_str(), range["length"].dump().c_str());
  for (const Json& entry : page.value("names", Json::array()))
    std::printf("%-8s %s\n", entry.value("change", "").c_str(), entry.value("name", "").c_str());
}

Result<int> diff(const Invocation& invocation) {
  TRY(const Target older, parse_instant(targets.at(0)));
  TRY(const Target newer, parse_instant(targets.at(1)));
  TRY_OK(same_volume(older, newer));
  Client client = invocation.client(older.volume);
  Json request = {{"request", "snapshot.diff"},
                  {"older", instant_json(older)},
                  {"newer", instant_json(newer)},
                  {"json", invocation.json}};
  Json all;
  bool began = false;
  // Of file systems: what is to be printed comes as it is found, however much it is.
  const Client::DataOut print = [&](ByteView paths) -> Status {
    if (invocation.json && !began) TRY_OK(write_all(STDOUT_FILENO, view_of("{\"paths\":[")));
    began = true;
    return write_all(STDOUT_FILENO, paths);
  };
  for (;;) {
    TRY(const Json page, client.call(request, "", false, -1, {}, print));
    if (page.contains("paths")) {
      if (invocation.json) TRY_OK(write_all(STDOUT_FILENO, view_of(began ? "]}\n" : "{\"paths\":[]}\n")));
      return 0;
    }
    for (const char* kind : {"ranges", "names"}) {
      if (!page.contains(kind)) continue;
      if (!all.contains(kind)) all[kind] = Json::array();
      if (invocation.json) all[kind].insert(all[kind].end(), page[kind].begin(), page[kind].end());
    }
    if (!invocation.json) print_difference(page);
    if (!page.contains("next")) break;
    request[page.contains("ranges") ? "from" : "after"] = page["next"];
  }
  if (invocation.json) print_json(all);
  return 0;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// To a file: under a name of its own until it is whole and durable.
Result<Json> send_to(Client& client, const Json& request) {
  const bool standard = file == "-";
  if (standard && ::isatty(STDOUT_FILENO) != 0)
    return fail(ErrorKind::invalid, "the stream is not for a terminal: redirect it, or give --output FILE");
  const std::string part = format("{}.part-{}", file, ::getpid());
  const Descriptor out(standard ? ::dup(STDOUT_FILENO)
                                : ::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (out.get() < 0) return fail(from_errno(errno, "write " + part));
  const Client::DataOut data = [&out](ByteView bytes) { return write_all(out.get(), bytes); };
  auto result = client.call(request, standard ? "" : "exporting", true, -1, {}, data);
  if (standard) return result;
  if (result && ::fsync(out.get()) != 0) result = fail(from_errno(errno, "write " + part));
  if (result && ::rename(part.c_str(), file.c_str()) != 0) result = fail(from_errno(errno, "rename " + part));
  if (!result) ::unlink(part.c_str());
  return result;
}

Result<int> send(const Invocation& invocation) {
  std::vector<Target> ends;
  for (const std::string& text : targets) {
    TRY(Target one, parse_target(text));
    ends.push_back(std::move(one));
  }
  TRY_OK(same_volume(ends.front(), ends.back()));
  Json request = {{"request", "snapshot.export"}, {"newer", instant_json(ends.back())}};
  if (ends.size() == 2) request["older"] = instant_json(ends.front());
  Client client = invocation.client(ends.front().volume);
  TRY(const Json result, send_to(client, request));
  if (invocation.json && file != "-") print_json(result);
  return 0;
}

Result<int> receive(const Invocation& invocation) {
  TRY(const auto parts, split_target(target));
  if (parts.second.find('@') != std::string::npos)
    return fail(ErrorKind::invalid, "give the image; the snapshot's name is in the stream");
  const Descriptor in(file == "-" ? ::dup(STDIN_FILENO) : ::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (in.get() < 0) return fail(from_errno(errno, "open " + file));
  const Client::DataIn data = [&in]() -> Result<Bytes> {
    Bytes piece(kDataFrameMax);
    for (;;) {
      const ssize_t got = ::read(in.get(), piece.data(), piece.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail(from_errno(errno, "read the stream"));
      piece.resize(static_cast<std::size_t>(got));
      return piece;
    }
  };
  Client client = invocation.client(parts.first);
  const Json request = {{"request", "snapshot.import"}, {"dataset", parts.second}};
  TRY(const Json result, client.call(request, "importing", true, -1, data));
  if (invocation.json) print_json(result);
  return 0;
}

Result<int> clone(const Invocation& invocation) {
  TRY(const Target one, parse_target(target));
  TRY(const auto parts, split_target(destination));
  if (parts.first != one.volume) return fail(ErrorKind::invalid, "a clone lives in its parent's volume");
  Json names = Json::array();
  for (unsigned i = 1; i <= count; ++i)
    names.push_back(count == 1 ? parts.second : format("{}-{}", parts.second, i));
  Client client = invocation.client(one.volume);
  TRY(const Json ignored,
      client.call(
          {{"request", "clone"}, {"dataset", one.dataset}, {"snapshot", one.snapshot}, {"names", names}},
          "cloning", false));
  static_cast<void>(ignored);
  return 0;
}

}  // namespace

void add_snapshot_commands(CLI::App& app, Invocation& invocation) {
  auto* snapshot = app.add_subcommand("snapshot", "points in time of file systems, images and buckets")
                       ->require_subcommand(1)
                       ->fallthrough();
  snapshot->footer("Example: cumulus snapshot create photos/2026@monday photos/notes@monday");
  auto* make = snapshot->add_subcommand("create", "take snapshots; several targets are one instant");
  make->add_option("TARGET@NAME", targets, "VOLUME/NAME@SNAPSHOT")->required()->type_name("");
  make->footer("Example: cumulus snapshot create photos/2026@monday photos/notes@monday");
  invocation.on(make, [&invocation] { return create(invocation); });
  const auto one = [&](const char* name, const char* help, const char* request) {
    auto* command = snapshot->add_subcommand(name, help);
    command->add_option("TARGET@NAME", target, "VOLUME/NAME@SNAPSHOT")->required()->type_name("");
    command->footer(std::string("Example: cumulus snapshot ") + name + " photos/2026@monday");
    const std::string text = request;
    invocation.on(command, [&invocation, text] { return with_snapshot(invocation, text.c_str()); });
  };
  one("rm", "remove a snapshot", "snapshot.rm");
  one("rollback", "set a target back to a snapshot; not while it is in use", "snapshot.rollback");
  auto* ls = snapshot->add_subcommand("ls", "the snapshots of a target");
  ls->add_option("TARGET", target, "VOLUME/NAME")->required()->type_name("");
  ls->footer("Example: cumulus snapshot ls photos/2026");
  invocation.on(ls, [&invocation] { return list(invocation); });

  auto* compare = snapshot->add_subcommand(
      "diff", "what changed: paths of a file system, ranges of an image, names of a bucket");
  compare->add_option("A B", targets, "VOLUME/NAME@SNAPSHOT twice; without @SNAPSHOT: as it is now")
      ->required()
      ->expected(2)
      ->type_name("");
  compare->footer("Example: cumulus snapshot diff photos/disk@monday photos/disk@tuesday --json");
  invocation.on(compare, [&invocation] { return diff(invocation); });
  auto* out = snapshot->add_subcommand("export", "an image's difference between two snapshots as a stream");
  out->add_option("A B", targets, "from and to; one name: the whole of it")
      ->required()
      ->expected(1, 2)
      ->type_name("");
  out->add_option("--output", file, "where to (default: standard output)")->type_name("FILE");
  out->footer(
      "Example: cumulus snapshot export photos/disk@monday photos/disk@tuesday --output tuesday.diff");
  invocation.on(out, [&invocation] { return send(invocation); });
  auto* in = snapshot->add_subcommand("import", "bring a stream of differences into an image");
  in->add_option("VOLUME/IMAGE", target)->required()->type_name("");
  in->add_option("--input", file, "where from (default: standard input)")->type_name("FILE");
  in->footer("Example: cumulus snapshot import backup/disk --input tuesday.diff");
  invocation.on(in, [&invocation] { return receive(invocation); });

  auto* cloning = app.add_subcommand("clone", "writable copies of a snapshot, at once and without copying");
  cloning->add_option("TARGET@NAME", target, "VOLUME/NAME@SNAPSHOT")->required()->type_name("");
  cloning->add_option("VOLUME/NEW", destination, "the clone; with --count NEW-1, NEW-2 ...")
      ->required()
      ->type_name("");
  cloning->add_option("--count", count, "how many")->check(CLI::Range(1u, 100000u))->type_name("N");
  cloning->footer("Example: cumulus clone photos/2026@monday photos/experiment");
  invocation.on(cloning, [&invocation] { return clone(invocation); });
}

}  // namespace cumulus
