// cumulus snapshot ... and cumulus clone.
#include <cstdio>
#include <ctime>

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
  TRY(const Json ignored, client.call(std::move(request), "", false));
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
  const auto run = [&invocation](CLI::App* command, std::function<Result<int>()> body) {
    command->fallthrough();
    command->callback([&invocation, body] {
      invocation.run = [body] {
        const auto code = body();
        return code ? *code : fail_with(code.error());
      };
    });
  };
  auto* snapshot =
      app.add_subcommand("snapshot", "points in time of buckets")->require_subcommand(1)->fallthrough();
  auto* make = snapshot->add_subcommand("create", "take snapshots; several targets are one instant");
  make->add_option("TARGET@NAME", targets, "VOLUME/NAME@SNAPSHOT")->required()->type_name("");
  make->footer("Example: cumulus snapshot create photos/2026@monday photos/notes@monday");
  run(make, [&invocation] { return create(invocation); });
  const auto one = [&](const char* name, const char* help, const char* request) {
    auto* command = snapshot->add_subcommand(name, help);
    command->add_option("TARGET@NAME", target, "VOLUME/NAME@SNAPSHOT")->required()->type_name("");
    command->footer(std::string("Example: cumulus snapshot ") + name + " photos/2026@monday");
    const std::string text = request;
    run(command, [&invocation, text] { return with_snapshot(invocation, text.c_str()); });
  };
  one("rm", "remove a snapshot", "snapshot.rm");
  one("rollback", "set a bucket back to a snapshot", "snapshot.rollback");
  auto* ls = snapshot->add_subcommand("ls", "the snapshots of a target");
  ls->add_option("TARGET", target, "VOLUME/NAME")->required()->type_name("");
  ls->footer("Example: cumulus snapshot ls photos/2026");
  run(ls, [&invocation] { return list(invocation); });

  auto* cloning = app.add_subcommand("clone", "writable copies of a snapshot, at once and without copying");
  cloning->add_option("TARGET@NAME", target, "VOLUME/NAME@SNAPSHOT")->required()->type_name("");
  cloning->add_option("VOLUME/NEW", destination, "the clone; with --count NEW-1, NEW-2 ...")
      ->required()
      ->type_name("");
  cloning->add_option("--count", count, "how many")->check(CLI::Range(1u, 100000u))->type_name("N");
  cloning->footer("Example: cumulus clone photos/2026@monday photos/experiment");
  run(cloning, [&invocation] { return clone(invocation); });
}

}  // namespace cumulus
