// cumulus: the client and admin program.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <unistd.h>

#include "objectstore/base/format.h"
#include "tools/cumulus/commands.h"
#include "tools/cumulus/daemon.h"
#include "tools/cumulus/mount_commands.h"
#include "tools/error_line.h"
#include "tools/usage_error.h"

namespace cumulus {

Result<std::pair<std::string, std::string>> split_target(const std::string& target,
                                                         const std::string& rest_default) {
  const auto slash = target.find('/');
  std::pair<std::string, std::string> parts{
      target.substr(0, slash), slash == std::string::npos ? rest_default : target.substr(slash + 1)};
  TRY_OK(check_volume_name(parts.first));
  if (parts.second.empty())
    return fail(ErrorKind::invalid, "'" + target + "' names no part of a volume: give VOLUME/NAME");
  return parts;
}

int fail_with(const Error& error) {
  print_error(kProgram, error);
  return error.kind() == ErrorKind::invalid ? kExitUsage : kExitFailed;
}

void print_json(const Json& json) {
  std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

void Invocation::on(CLI::App* command, std::function<Result<int>()> body) {
  command->fallthrough();
  command->callback([this, body = std::move(body)] {
    run = [body] {
      const auto code = body();
      return code ? *code : fail_with(code.error());
    };
  });
}

void add_daemon_command(CLI::App& app, Invocation& invocation) {
  auto* daemon =
      app.add_subcommand("daemon", "the daemon of one volume; commands start it by themselves")->group("");
  static std::string name;
  static bool foreground = false;
  daemon->add_option("VOLUME", name)->required();
  daemon->add_flag("--foreground", foreground, "stay in the terminal; open as it is, and log to it");
  daemon->callback([&invocation] {
    invocation.run = [&invocation] {
      OpenRequest request;
      if (foreground) return run_daemon(invocation.home_folder(), name, request, STDOUT_FILENO);
      // The starting command gives the request, with the passphrase, on standard input: never on the command
      // line.
      std::string line;
      for (char c = 0; ::read(STDIN_FILENO, &c, 1) == 1 && c != '\n';) line.push_back(c);
      const auto parsed = OpenRequest::from_json(Json::parse(line, nullptr, false));
      if (!parsed) return fail_with(parsed.error());
      return run_daemon(invocation.home_folder(), name, *parsed, STDOUT_FILENO);
    };
  });
}

}  // namespace cumulus

int main(int argc, char** argv) {
  using namespace cumulus;
  keep_standard_streams();
  ::signal(SIGPIPE, SIG_IGN);
  Invocation invocation;
  if (const auto code = run_as_mount_helper(invocation, argc, argv)) return *code;
  CLI::App app("Cumulus: a drive and a disk on storage that nobody has to trust", kProgram);
  app.require_subcommand(1);
  app.fallthrough();
  app.set_version_flag("--version", "cumulus 0.1.0");
  std::string home;
  app.add_option("--home", home,
                 "where everything lies (default: CUMULUS_HOME, XDG folders, /var/lib/cumulus)")
      ->type_name("DIR");
  app.add_flag("--json", invocation.json, "print one JSON document");
  app.add_option("--passphrase-file", invocation.passphrase_file, "first line is the key file's passphrase")
      ->type_name("FILE");
  app.footer("Example: cumulus devnet up && cumulus volume create photos --miners devnet/miners.toml");
  add_volume_commands(app, invocation);
  add_mount_commands(app, invocation);
  add_fs_commands(app, invocation);
  add_object_commands(app, invocation);
  add_snapshot_commands(app, invocation);
  add_nbd_commands(app, invocation);
  add_image_commands(app, invocation);
  add_miner_commands(app, invocation);
  add_devnet_commands(app, invocation);
  add_daemon_command(app, invocation);
  add_manual_commands(app, invocation);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    print_error("", usage_error(app, error));
    return kExitUsage;
  }
  if (!home.empty()) invocation.home = home;
  try {
    const int code = invocation.run ? invocation.run() : kExitUsage;
    // What was not shown was not done, for whoever reads it: a full disk, a closed pipe.
    if (code == kExitDone && (std::fflush(stdout) != 0 || std::ferror(stdout) != 0))
      return fail_with(from_errno(errno, "write standard output"));
    return code;
  } catch (const std::exception& error) {  // a library's: a daemon of another version that answers otherwise
    return fail_with(Error(ErrorKind::io, format("unexpected: {}", error.what())));
  }
}
