// The commands: each adds its subcommands to the program and, when one was given, sets what is to be run.
// Blocking.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "tools/cumulus/client.h"
#include "tools/cumulus/home.h"

namespace cumulus {

inline constexpr const char* kProgram = "cumulus";

// What main() shares with every command.
struct Invocation {
  std::optional<std::string> home;
  bool json = false;
  std::string passphrase_file;
  std::function<int()> run;  // set by the command that was given

  // When `command` was given, `body` is what is run: its value is the exit code, its error is printed. This
  // outlives both.
  void on(CLI::App* command, std::function<Result<int>()> body);
  Home home_folder() const { return Home::locate(home); }
  Client client(const std::string& volume) const {
    Client made(home_folder(), volume);
    made.set_passphrase_file(passphrase_file);
    return made;
  }
};

// "VOLUME/REST": invalid without both parts. `rest_default`: used when there is no slash.
Result<std::pair<std::string, std::string>> split_target(const std::string& target,
                                                         const std::string& rest_default = "");
int fail_with(const Error& error);
void print_json(const Json& json);

// `restart`: look at everything again. 0 when the volume is whole afterwards, else 1.
Result<int> run_repair(const Invocation& invocation, const std::string& volume, bool restart);

void add_volume_commands(CLI::App& app, Invocation& invocation);
void add_object_commands(CLI::App& app, Invocation& invocation);
void add_snapshot_commands(CLI::App& app, Invocation& invocation);
void add_fs_commands(CLI::App& app, Invocation& invocation);
void add_mount_commands(CLI::App& app, Invocation& invocation);
void add_image_commands(CLI::App& app, Invocation& invocation);
void add_nbd_commands(CLI::App& app, Invocation& invocation);
void add_miner_commands(CLI::App& app, Invocation& invocation);
void add_devnet_commands(CLI::App& app, Invocation& invocation);
void add_manual_commands(CLI::App& app, Invocation& invocation);
void add_daemon_command(CLI::App& app, Invocation& invocation);

}  // namespace cumulus
