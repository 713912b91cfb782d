// cumulus-miner: one storage node. Parses the command line and runs one command on a reactor.
#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <functional>

#include "objectstore/io/uring_file_system.h"
#include "tools/error_line.h"
#include "tools/manual.h"
#include "tools/miner/commands.h"
#include "tools/sizes.h"
#include "tools/usage_error.h"

namespace {

using namespace cumulus;
namespace commands = cumulus::miner_commands;
using Command = std::function<Task<int>(Reactor&, FileSystem&)>;

CLI::Option* add_size(CLI::App* command, const std::string& name, std::uint64_t& into,
                      const std::string& help) {
  return command
      ->add_option_function<std::string>(
          name,
          [&into](const std::string& text) {
            const auto size = parse_size(text);
            if (!size) throw CLI::ValidationError(size.error().message());
            into = *size;
          },
          help)
      ->type_name("SIZE");
}

void example(CLI::App* command, const std::string& line) { command->footer("Example:\n  " + line); }

struct Arguments {
  commands::Init init;
  commands::Run run;
  commands::Allow allow;
  commands::Status status;
  commands::Corrupt corrupt;
  std::string directory;
  bool undo = false;
};

void describe(CLI::App& app, Arguments& to, Command& chosen) {
  const auto directory = [](CLI::App* command, std::string& into) {
    command->add_option("DIR", into, "the miner's directory")->required()->type_name("");
  };
  auto* init = app.add_subcommand("init", "make a miner in DIR and print its block for miners.toml");
  directory(init, to.init.directory);
  add_size(init, "--capacity", to.init.capacity, "disk space that slices may take")->required();
  init->add_option("--domain", to.init.domain, "failure domain to print; the volume's list decides")
      ->type_name("NAME");
  init->add_option("--listen", to.init.listen, "address to print, as clients reach it")
      ->type_name("ADDR:PORT");
  init->add_flag("--json", to.init.json, "print the block as JSON");
  example(init, "cumulus-miner init /srv/cumulus --capacity 100G --domain rack1 --listen 192.0.2.7:7000");
  init->callback([&] { chosen = [&](Reactor& r, FileSystem& f) { return commands::init(r, f, to.init); }; });

  auto* run = app.add_subcommand("run", "serve until SIGTERM; prints `ready ADDR:PORT` when serving");
  directory(run, to.run.directory);
  run->add_option("--listen", to.run.listen, "port 0 picks a free one")->required()->type_name("ADDR:PORT");
  run->add_option("--metrics", to.run.metrics, "Prometheus metrics over HTTP")->type_name("ADDR:PORT");
  auto* open = run->add_flag("--open", to.run.open, "admit every volume");
  auto* quota =
      add_size(run, "--quota-per-volume", to.run.quota_per_volume, "with --open: each volume's quota");
  open->needs(quota);
  quota->needs(open);
  example(run, "cumulus-miner run /srv/cumulus --listen 0.0.0.0:7000 --metrics 127.0.0.1:7001");
  run->callback([&] { chosen = [&](Reactor& r, FileSystem& f) { return commands::run(r, f, to.run); }; });

  auto* allow = app.add_subcommand("allow", "let a volume store up to a quota");
  directory(allow, to.allow.directory);
  allow->add_option("VOLUME-ID", to.allow.volume, "64 hex digits; `cumulus volume status` shows it")
      ->required()
      ->type_name("");
  auto* allowed = add_size(allow, "--quota", to.allow.quota, "bytes that it may store");
  auto* revoke =
      allow->add_flag("--revoke", to.allow.revoke, "take the volume off the list; its slices stay");
  allowed->excludes(revoke);
  example(allow, "cumulus-miner allow /srv/cumulus 3f1c...9a --quota 50G");
  allow->callback([&, allowed] {
    if (allowed->count() == 0 && !to.allow.revoke) throw CLI::RequiredError("--quota");
    chosen = [&](Reactor& r, FileSystem& f) { return commands::allow(r, f, to.allow); };
  });

  auto* status = app.add_subcommand("status", "what it holds, running or not");
  directory(status, to.status.directory);
  status->add_flag("--json", to.status.json, "one JSON document");
  example(status, "cumulus-miner status /srv/cumulus --json");
  status->callback(
      [&] { chosen = [&](Reactor& r, FileSystem& f) { return commands::status(r, f, to.status); }; });

  auto* scrub =
      app.add_subcommand("scrub", "re-read every slice and compare it with its root; 1 when some are bad");
  directory(scrub, to.directory);
  example(scrub, "cumulus-miner scrub /srv/cumulus");
  scrub->callback(
      [&] { chosen = [&](Reactor& r, FileSystem& f) { return commands::scrub(r, f, to.directory); }; });

  auto* drain = app.add_subcommand("drain", "take no new slices; says what remains");
  directory(drain, to.directory);
  drain->add_flag("--undo", to.undo, "take new slices again");
  example(drain, "cumulus-miner drain /srv/cumulus");
  drain->callback([&] {
    chosen = [&](Reactor& r, FileSystem& f) { return commands::drain(r, f, to.directory, to.undo); };
  });

  auto* corrupt = app.add_subcommand("corrupt", "flip a byte in random slices; for tests, miner stopped");
  corrupt->group("");
  directory(corrupt, to.corrupt.directory);
  corrupt->add_option("--slices", to.corrupt.slices, "how many; 0: all")->required();
  corrupt->add_option("--seed", to.corrupt.seed, "the same seed chooses the same bytes");
  corrupt->callback(
      [&] { chosen = [&](Reactor& r, FileSystem& f) { return commands::corrupt(r, f, to.corrupt); }; });
}

// Printed for the build.
void describe_itself(CLI::App& app, std::function<int()>& print) {
  app.add_subcommand("manual", "print the manual page, as roff")->group("")->callback([&] {
    print = [&app] {
      ManualPage page("cumulus-miner", 1, "cumulus-miner 0.1.0", "a storage node of Cumulus");
      page.program(app);
      page.section("SEE ALSO");
      page.paragraph("cumulus(1)");
      std::fputs(page.text().c_str(), stdout);
      return 0;
    };
  });
  add_completion_command(app, [&print](std::function<int()> body) { print = std::move(body); });
}

int run_command(const Command& command) {
  Reactor reactor(2);
  const auto files = make_uring_file_system(reactor);
  int code = kExitFailed;
  const auto body = [&]() -> Task<void> { code = co_await command(reactor, *files); };
  reactor.run(body());
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  keep_standard_streams();
  std::signal(SIGPIPE, SIG_IGN);
  CLI::App app(
      "cumulus-miner: a storage node of Cumulus. It keeps encrypted slices and can neither read nor alter "
      "them unnoticed.",
      "cumulus-miner");
  app.set_version_flag("--version", "cumulus-miner 0.1.0");
  app.footer(
      "Example:\n  cumulus-miner init /srv/cumulus --capacity 100G\n"
      "  cumulus-miner run /srv/cumulus --listen 0.0.0.0:7000\n"
      "Sizes take 4K, 10M, 1G, 2T. Exit codes: 0 done, 1 failed, 2 usage.");
  app.require_subcommand(1);
  Arguments arguments;
  Command chosen;
  describe(app, arguments, chosen);
  std::function<int()> print;
  describe_itself(app, print);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    print_error("", usage_error(app, error));
    return kExitUsage;
  }
  const int code = print ? print() : run_command(chosen);
  if (code == kExitDone && (std::fflush(stdout) != 0 || std::ferror(stdout) != 0))
    return print_error("cumulus-miner", from_errno(errno, "write standard output"));
  return code;
}
