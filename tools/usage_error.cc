#include "tools/usage_error.h"

#include <algorithm>
#include <string>
#include <vector>

#include "objectstore/base/format.h"

namespace cumulus {

Error usage_error(const CLI::App& app, const CLI::ParseError& error) {
  // The innermost command that was understood.
  const CLI::App* command = &app;
  std::string name = app.get_name();
  for (auto inner = app.get_subcommands(); !inner.empty(); inner = command->get_subcommands()) {
    command = inner.front();
    name += " " + command->get_name();
  }
  std::string what = error.what();
  // An unknown word where a command is wanted is reported as the missing command.
  const std::vector<std::string> unknown = app.remaining(true);
  if (!unknown.empty() && command->get_require_subcommand_min() > command->get_subcommands().size())
    what = format("'{}' is not a command or an option that it knows", unknown.front());
  else if (command->get_require_subcommand_min() > command->get_subcommands().size())
    what = "a command is missing";
  std::ranges::replace(what, '\n', ' ');
  return {ErrorKind::invalid, format("{}: {}; '{} --help' shows how", name, what, name)};
}

}  // namespace cumulus
