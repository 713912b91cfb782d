#include "tools/manual.h"

#include <algorithm>
#include <cctype>
#include <cstdio>

#include "objectstore/base/format.h"

namespace cumulus {
namespace {

std::vector<const CLI::App*> commands_in(const CLI::App& app) {
  std::vector<const CLI::App*> all;
  for (const CLI::App* one : app.get_subcommands(std::function<bool(const CLI::App*)>()))
    if (!one->get_group().empty()) all.push_back(one);
  return all;
}

std::vector<const CLI::Option*> options_in(const CLI::App& app, bool positional) {
  std::vector<const CLI::Option*> all;
  for (const CLI::Option* one : app.get_options(std::function<bool(const CLI::Option*)>()))
    if (!one->get_group().empty() && one->get_positional() == positional) all.push_back(one);
  return all;
}

// "mount(8)" stays; backslashes, hyphens and a dot or an apostrophe at a line's begin are roff's own.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if ((c == '.' || c == '\'') && out.empty()) {
      out += std::string("\\&") + c;
    } else {
      out += c == '\n' ? ' ' : c;
    }
  }
  return out;
}

bool takes_value(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

std::string words_of(const CLI::Option& option) {
  std::string words = option.get_name(false, true);
  for (std::size_t comma = 0; (comma = words.find(',', comma)) != std::string::npos; comma += 2)
    words.insert(comma + 1, " ");
  if (takes_value(option)) words += " " + option.get_type_name();
  return words;
}

// "VOLUME[/FS] [DIR]"
std::string places_of(const CLI::App& command) {
  std::string words;
  for (const CLI::Option* one : options_in(command, true)) {
    const std::string name = one->get_name(true);
    words += one->get_required() ? " " + name : " [" + name + "]";
    if (one->get_items_expected_max() > 1) words += "...";
  }
  return words;
}

std::string without_example(const std::string& footer) {
  for (const std::string_view mark : {"Example:", "Examples:"})
    if (footer.starts_with(mark)) return footer.substr(mark.size());
  return footer;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> all;
  for (std::size_t from = 0; from <= text.size();) {
    const std::size_t to = std::min(text.find('\n', from), text.size());
    std::string line = text.substr(from, to - from);
    line.erase(0, std::min(line.find_first_not_of(' '), line.size()));
    if (!line.empty()) all.push_back(std::move(line));
    from = to + 1;
  }
  return all;
}

}  // namespace

ManualPage::ManualPage(std::string_view name, int section, std::string_view version, std::string_view what) {
  std::string title(name);
  std::ranges::transform(title, title.begin(), [](unsigned char c) { return std::toupper(c); });
  text_ = format(".TH {} {} \"\" \"{}\" \"Cumulus\"\n", title, section, version);
  this->section("NAME");
  line(format("{} \\- {}", escaped(name), escaped(what)));
}

void ManualPage::line(std::string_view words) { text_ += std::string(words) + "\n"; }
void ManualPage::section(std::string_view title) { line(format(".SH {}", escaped(title))); }
void ManualPage::command(std::string_view title) { line(format(".SS {}", escaped(title))); }
void ManualPage::paragraph(std::string_view text) {
  line(".PP");
  line(escaped(text));
}
void ManualPage::literal(std::string_view words) {
  line(".PP\n.RS 4\n.nf");
  line(escaped(words));
  line(".fi\n.RE");
}
void ManualPage::item(std::string_view term, std::string_view text) {
  line(".TP");
  line(format("\\fB{}\\fR", escaped(term)));
  line(escaped(text));
}

void ManualPage::options_of(const CLI::App& command) {
  for (const CLI::Option* one : options_in(command, true))
    if (!one->get_description().empty()) item(one->get_name(true), one->get_description());
  for (const CLI::Option* one : options_in(command, false))
    if (one != command.get_help_ptr()) item(words_of(*one), one->get_description());
}

void ManualPage::commands_of(const CLI::App& app, const std::string& path) {
  for (const CLI::App* one : commands_in(app)) {
    const std::string name = path + " " + one->get_name();
    if (!commands_in(*one).empty()) {
      commands_of(*one, name);
      continue;
    }
    command(name + places_of(*one));
    line(escaped(one->get_description()));
    options_of(*one);
    for (const std::string& example : lines_of(without_example(one->get_footer()))) literal(example);
  }
}

void ManualPage::program(const CLI::App& app) {
  section("SYNOPSIS");
  line(format("\\fB{}\\fR [\\fIOPTIONS\\fR] \\fICOMMAND\\fR ...", escaped(app.get_name())));
  section("DESCRIPTION");
  line(escaped(app.get_description()));
  paragraph(format("'{} COMMAND --help' says the same as this page.", app.get_name()));
  section("OPTIONS");
  options_of(app);
  section("COMMANDS");
  commands_of(app, app.get_name());
  section("EXAMPLE");
  for (const std::string& example : lines_of(without_example(app.get_footer()))) literal(example);
  section("EXIT STATUS");
  item("0", "done");
  item("1", "failed; one line on standard error says what, on what, why, and what to do");
  item("2", "the command line or what it names is wrong");
}

namespace {

// Bash knows no empty subscript: every path begins with a slash.
void describe(const CLI::App& app, const std::string& path, std::string& out) {
  std::string names;
  std::string options;
  std::string with_files;
  std::string with_values;
  for (const CLI::App* one : commands_in(app)) names += (names.empty() ? "" : " ") + one->get_name();
  for (const CLI::Option* one : options_in(app, false)) {
    for (const std::string& name : one->get_lnames()) options += " --" + name;
    for (const std::string& name : one->get_snames()) options += " -" + name;
    if (!takes_value(*one)) continue;
    const std::string type = one->get_type_name();
    const bool file = type == "FILE" || type == "DIR" || type == "PATH";
    for (const std::string& name : one->get_lnames()) (file ? with_files : with_values) += " --" + name;
    for (const std::string& name : one->get_snames()) (file ? with_files : with_values) += " -" + name;
  }
  const auto row = [&](const char* table, const std::string& words) {
    out += format("  {}[/{}]='{}'\n", table, path, words);
  };
  row("commands", names);
  row("options", options);
  row("files", with_files);
  row("values", with_values);
  for (const CLI::App* one : commands_in(app))
    describe(*one, path + (path.empty() ? "" : "/") + one->get_name(), out);
}

}  // namespace

std::string bash_completion(const CLI::App& app) {
  std::string function = app.get_name();
  std::ranges::replace(function, '-', '_');
  std::string tables;
  describe(app, "", tables);
  return format(R"(# bash completion of {0}; made by `{0} completion`
_{1}() {{
  local -A commands options files values
{2}  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} path=/ i
  for ((i = 1; i < COMP_CWORD; i++)); do
    [[ " ${{commands[$path]}} " == *" ${{COMP_WORDS[i]}} "* ]] && path=${{path%/}}/${{COMP_WORDS[i]}}
  done
  COMPREPLY=()
  if [[ " ${{files[$path]}} ${{files[/]}} " == *" $before "* ]]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  elif [[ " ${{values[$path]}} ${{values[/]}} " == *" $before "* ]]; then
    :
  elif [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "${{options[$path]}} ${{options[/]}}" -- "$word" | sort -u)
  elif [[ -n ${{commands[$path]}} ]]; then
    mapfile -t COMPREPLY < <(compgen -W "${{commands[$path]}}" -- "$word")
  else
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  fi
}}
complete -F _{1} {0}
)",
                app.get_name(), function, tables);
}

void add_completion_command(CLI::App& app, std::function<void(std::function<int()>)> run) {
  auto* command = app.add_subcommand("completion", "print a bash completion script")->group("");
  command->callback([&app, run = std::move(run)] {
    run([&app] {
      std::fputs(bash_completion(app).c_str(), stdout);
      return 0;
    });
  });
}

}  // namespace cumulus
