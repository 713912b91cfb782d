// Manual pages (man(7), roff) and shell completions, made of what a program itself says about its command
// line, so that they cannot fall behind it. The build runs the programs and installs what they print. Pure.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace cumulus {

// A page being written, section by section.
class ManualPage {
 public:
  // "CUMULUS", 1, "cumulus 0.1.0"; then NAME: "cumulus", "what it is".
  ManualPage(std::string_view name, int section, std::string_view version, std::string_view what);

  void section(std::string_view title);
  void command(std::string_view title);  // within a section
  void paragraph(std::string_view text);
  void literal(std::string_view line);  // as it stands, indented
  void item(std::string_view term, std::string_view text);
  // SYNOPSIS, DESCRIPTION, OPTIONS and COMMANDS of a whole program.
  void program(const CLI::App& app);
  const std::string& text() const { return text_; }

 private:
  void options_of(const CLI::App& command);
  void commands_of(const CLI::App& app, const std::string& path);
  void line(std::string_view words);
  std::string text_;
};

// A bash script that completes the program's commands, options and files.
std::string bash_completion(const CLI::App& app);

// Adds the hidden command `completion`, which prints it for the whole program; `run` is given what to do.
void add_completion_command(CLI::App& app, std::function<void(std::function<int()>)> run);

}  // namespace cumulus
