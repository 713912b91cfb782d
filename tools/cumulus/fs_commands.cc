// cumulus fs ...: the file systems of a volume.
#include <cstdio>

#include "objectstore/base/format.h"
#include "tools/cumulus/commands.h"
#include "tools/sizes.h"

namespace cumulus {
namespace {

struct Arguments {
  std::string target;
  std::string bytes;
  std::string inodes;
};
Arguments arguments;

// "VOLUME[/FS][:PATH]".
struct Place {
  std::string volume;
  std::string file_system;
  std::string path;
};
Result<Place> parse_place(const std::string& text) {
  const auto colon = text.find(':');
  TRY(const auto parts, split_target(text.substr(0, colon), "main"));
  return Place{parts.first, parts.second, colon == std::string::npos ? "" : text.substr(colon + 1)};
}

// "none" takes a limit away; nullopt: leave it as it is.
Result<Json> parse_limit(const std::string& text) {
  if (text.empty()) return Json();
  if (text == "none") return Json(std::uint64_t{0});
  TRY(const std::uint64_t size, parse_size(text));
  if (size == 0) return fail(ErrorKind::invalid, "a limit of nothing is no limit: give a size, or none");
  return Json(size);
}

Result<int> simple(const Invocation& invocation, const char* name) {
  TRY(const auto parts, split_target(arguments.target));
  Client client = invocation.client(parts.first);
  TRY(const Json result, client.call({{"request", name}, {"file_system", parts.second}}, "", false));
  if (invocation.json) print_json(result);
  return 0;
}

void print_limits(const Json& tree) {
  const auto limit = [](const Json& value) {
    return value.get<std::uint64_t>() == 0 ? std::string("no limit")
                                           : format_size(value.get<std::uint64_t>());
  };
  std::printf("%s of %s, %llu inodes of %s\n", format_size(tree["bytes"].get<std::uint64_t>()).c_str(),
              limit(tree["bytes_max"]).c_str(),
              static_cast<unsigned long long>(tree["inodes"].get<std::uint64_t>()),
              tree["inodes_max"].get<std::uint64_t>() == 0
                  ? "no limit"
                  : std::to_string(tree["inodes_max"].get<std::uint64_t>()).c_str());
}

Result<int> list(const Invocation& invocation) {
  TRY_OK(invocation.home_folder().check_volume(arguments.target));
  Client client = invocation.client(arguments.target);
  TRY(const Json all, client.call({{"request", "fs.ls"}}, "", false));
  if (invocation.json) {
    print_json(all);
    return 0;
  }
  for (const Json& one : all) {
    std::printf("%-24s ", one["name"].get<std::string>().c_str());
    print_limits(one);
  }
  return 0;
}

Result<int> quota(const Invocation& invocation) {
  TRY(const Place place, parse_place(arguments.target));
  TRY(const Json bytes, parse_limit(arguments.bytes));
  TRY(const Json inodes, parse_limit(arguments.inodes));
  Client client = invocation.client(place.volume);
  TRY(const Json now, client.call({{"request", "fs.quota"},
                                   {"file_system", place.file_system},
                                   {"path", place.path},
                                   {"bytes", bytes},
                                   {"inodes", inodes}},
                                  "", false));
  if (invocation.json)
    print_json(now);
  else
    print_limits(now);
  return 0;
}

}  // namespace

void add_fs_commands(CLI::App& app, Invocation& invocation) {
  auto* fs = app.add_subcommand("fs", "file systems of a volume")->require_subcommand(1)->fallthrough();
  fs->footer("Example: cumulus fs ls photos");
  const auto one = [&](const char* name, const char* help, const char* request) {
    auto* command = fs->add_subcommand(name, help);
    command->add_option("VOLUME/FS", arguments.target, "the file system")->required()->type_name("");
    command->footer(std::string("Example: cumulus fs ") + name + " photos/family");
    invocation.on(command, [&invocation, request] { return simple(invocation, request); });
  };
  one("create", "make an empty file system", "fs.create");
  one("rm", "delete a file system and its snapshots", "fs.rm");
  auto* ls = fs->add_subcommand("ls", "the file systems of a volume");
  ls->add_option("VOLUME", arguments.target, "the volume")->required()->type_name("");
  ls->footer("Example: cumulus fs ls photos");
  invocation.on(ls, [&invocation] { return list(invocation); });
  auto* limit =
      fs->add_subcommand("quota", "show or set what a file system, or a directory tree of it, may take");
  limit->add_option("VOLUME/FS[:PATH]", arguments.target, "the file system, or a directory in it")
      ->required()
      ->type_name("");
  limit->add_option("--bytes", arguments.bytes, "limit of bytes, or none")->type_name("SIZE");
  limit->add_option("--inodes", arguments.inodes, "limit of files and directories, or none")->type_name("N");
  limit->footer("Example: cumulus fs quota photos/family:/anna --bytes 100G");
  invocation.on(limit, [&invocation] { return quota(invocation); });
}

}  // namespace cumulus
