// cumulus object ...
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <unistd.h>

#include "objectstore/base/format.h"
#include "tools/cumulus/bucket.h"
#include "tools/cumulus/commands.h"
#include "tools/cumulus/object_files.h"
#include "tools/error_line.h"
#include "tools/names.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kFailuresShown = 1000;

struct Arguments {
  std::string target;
  std::string object;
  std::string file;
  std::string prefix;
  bool sync = false;
  bool recursive = false;
};

Result<int> put(const Invocation& invocation, const Arguments& arguments) {
  TRY(const auto target, split_target(arguments.target));
  Client client = invocation.client(target.first);
  if (!arguments.recursive) {
    TRY(const Json result, put_file(client, target.second, arguments.object, arguments.file, arguments.sync));
    if (invocation.json) print_json(result);
    return 0;
  }
  FolderFiles files(arguments.file, arguments.object);
  // All names first: one that cannot be stored is told before anything is.
  TRY_OK(files.for_each([](const std::string& name, const std::string& path) -> Status {
    if (auto well = check_utf8(name); !well) return fail(well.error().within(printable(path)));
    if (name.size() <= kObjectNameMax) return {};
    return fail(ErrorKind::invalid,
                format("{}: as an object's name that is {} bytes long, and {} are allowed", path, name.size(),
                       kObjectNameMax));
  }));
  Json all = Json::array();
  TRY_OK(files.for_each([&](const std::string& name, const std::string& path) -> Status {
    TRY(Json result, put_file(client, target.second, name, path, false));
    all.push_back(std::move(result));
    return {};
  }));
  if (arguments.sync) {
    TRY(const Json synced, client.call({{"request", "volume.sync"}}, "sending", true));
    static_cast<void>(synced);
  }
  if (invocation.json) print_json(all);
  if (!invocation.json) std::printf("%zu objects\n", all.size());
  if (const std::string left_out = files.left_out(); !left_out.empty())
    std::fprintf(stderr, "%s: left out, for they have no bytes to store: %s\n", kProgram, left_out.c_str());
  return 0;
}

// Page by page, in the order of names.
Status for_each_object(Client& client, const std::string& bucket, const std::string& prefix,
                       const std::function<Status(const Json&)>& visit) {
  constexpr std::size_t kPage = 10000;
  for (std::string after;;) {
    Json request = bucket_request("object.ls", bucket);
    request["prefix"] = prefix;
    request["after"] = after;
    request["limit"] = kPage;
    TRY(const Json page, client.call(request, "", false));
    for (const Json& entry : page) TRY_OK(visit(entry));
    if (page.empty()) return {};
    after = page.back().value("name", "");
  }
}

// A name may be anything; a path below the folder is nothing that leads out of it.
Result<std::filesystem::path> path_below(const std::filesystem::path& top, const std::string& name) {
  const std::filesystem::path below(name);
  bool plain = !below.empty() && below.is_relative() && below.has_filename();
  for (const std::filesystem::path& part : below) plain = plain && part != ".." && part != ".";
  if (!plain) return fail(ErrorKind::invalid, format("that is no path below {}: get it alone", top.string()));
  return top / below;
}

// Every object below NAME (. for all), each into its own file.
Result<int> get_folder(const Invocation& invocation, Client& client, const std::string& bucket,
                       const Arguments& arguments) {
  const std::filesystem::path top(arguments.file);
  const std::string prefix =
      arguments.object.empty() || arguments.object == "." ? "" : arguments.object + "/";
  std::uint64_t fetched = 0;
  std::uint64_t failed = 0;
  std::vector<std::string> failures;  // the first of them, in words
  Json all = Json::array();
  const auto fetch = [&](const std::string& name) -> Status {
    TRY(const std::filesystem::path path, path_below(top, name.substr(prefix.size())));
    std::error_code error;
    std::filesystem::create_directories(path.parent_path(), error);
    if (error) return fail(from_errno(error.value(), "make the folder " + path.parent_path().string()));
    TRY(Json result, get_file(client, bucket, name, path.string()));
    ++fetched;
    if (invocation.json) all.push_back(std::move(result));
    return {};
  };
  const auto visit = [&](const Json& entry) -> Status {
    const std::string name = entry.value("name", "");
    const Status done = fetch(name);
    if (done) return {};
    // With no room, or nobody who answers, it is not this object's trouble.
    if (done.error().kind() == ErrorKind::closed || done.error().kind() == ErrorKind::no_space) return done;
    if (++failed <= kFailuresShown)
      failures.push_back(format("'{}' was not fetched: {}", printable(name), done.error().message()));
    return {};
  };
  const Status listed = for_each_object(client, bucket, prefix, visit);
  for (const std::string& failure : failures) print_error(kProgram, Error(ErrorKind::io, failure));
  if (failed > kFailuresShown)
    print_error(kProgram, Error(ErrorKind::io, format("and {} objects more", failed - kFailuresShown)));
  TRY_OK(listed);
  if (fetched + failed == 0 && !prefix.empty())
    return fail(ErrorKind::not_found, format("no object's name begins with '{}'", prefix));
  if (invocation.json) print_json(all);
  if (!invocation.json) std::printf("%llu objects\n", static_cast<unsigned long long>(fetched));
  return failed == 0 ? kExitDone : kExitFailed;
}

Result<int> get(const Invocation& invocation, const Arguments& arguments) {
  TRY(const auto target, split_target(arguments.target));
  Client client = invocation.client(target.first);
  if (arguments.recursive) return get_folder(invocation, client, target.second, arguments);
  if (arguments.file == "-") {
    TRY(const Json result, get_to_stdout(client, target.second, arguments.object));
    static_cast<void>(result);
    return 0;
  }
  // Through a link, as cp(1) does: /dev/stdout is one, too.
  std::error_code ignored;
  std::string file = arguments.file;
  if (std::filesystem::is_symlink(file, ignored) && std::filesystem::is_regular_file(file, ignored))
    if (const auto end = std::filesystem::canonical(file, ignored); !ignored) file = end.string();
  TRY(const Json result, get_file(client, target.second, arguments.object, file));
  if (invocation.json) print_json(result);
  return 0;
}

Result<int> list(const Invocation& invocation, const Arguments& arguments) {
  TRY(const auto target, split_target(arguments.target));
  Client client = invocation.client(target.first);
  Json all = Json::array();
  // A name may hold what commands a terminal; a program that reads on gets the bytes.
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  const auto visit = [&](const Json& entry) -> Status {
    const std::string name = entry.value("name", "");
    if (invocation.json)
      all.push_back(entry);
    else
      std::printf("%14s  %s\n", entry["size"].dump().c_str(), (terminal ? printable(name) : name).c_str());
    return {};
  };
  TRY_OK(for_each_object(client, target.second, arguments.prefix, visit));
  if (invocation.json) print_json(all);
  return 0;
}

}  // namespace

void add_object_commands(CLI::App& app, Invocation& invocation) {
  auto* object =
      app.add_subcommand("object", "plain objects in buckets")->require_subcommand(1)->fallthrough();
  object->footer("Example: cumulus object put photos/2026 beach.jpg ./beach.jpg");
  static Arguments arguments;
  const auto add = [&](const char* name, const char* help, const char* example, bool with_name,
                       const std::function<Result<int>()>& body) {
    auto* command = object->add_subcommand(name, help)->fallthrough();
    command->add_option("VOLUME/BUCKET", arguments.target, "a bucket, or BUCKET@SNAPSHOT to read")
        ->required()
        ->type_name("");
    if (with_name)
      command->add_option("NAME", arguments.object, "the object's name")->required()->type_name("");
    command->footer(std::string("Example: cumulus object ") + example);
    invocation.on(command, body);
    return command;
  };
  auto* putting =
      add("put", "store a file; replaces the object whole or not at all",
          "put photos/2026 beach.jpg ./beach.jpg", true, [&] { return put(invocation, arguments); });
  putting->add_option("FILE", arguments.file, "a file, - for standard input, or a folder with -r")
      ->required()
      ->type_name("");
  putting->add_flag("--sync", arguments.sync, "return when it is on the miners");
  putting->add_flag("-r,--recursive", arguments.recursive,
                    "every file of a folder, named below NAME (. for no prefix)");
  auto* getting = add("get", "fetch an object into a file", "get photos/2026 beach.jpg ./beach.jpg", true,
                      [&] { return get(invocation, arguments); });
  getting->add_option("FILE", arguments.file, "a file, - for standard output, or a folder with -r")
      ->required()
      ->type_name("");
  getting->add_flag("-r,--recursive", arguments.recursive,
                    "every object below NAME (. for all), each into a file of the folder");
  add("cat", "write an object to standard output", "cat photos/notes readme.txt", true, [&] {
    arguments.file = "-";
    return get(invocation, arguments);
  });
  auto* listing = add("ls", "the objects of a bucket", "ls photos/2026 --prefix beach", false,
                      [&] { return list(invocation, arguments); });
  listing->add_option("--prefix", arguments.prefix, "only names that begin so")->type_name("TEXT");
  add("stat", "size and time of an object", "stat photos/2026 beach.jpg", true, [&]() -> Result<int> {
    TRY(const auto target, split_target(arguments.target));
    Client client = invocation.client(target.first);
    Json request = bucket_request("object.stat", target.second);
    request["object"] = arguments.object;
    TRY(const Json result, client.call(request, "", false));
    if (invocation.json) {
      print_json(result);
    } else {
      const auto seconds = static_cast<std::time_t>(result.value("modified_at", std::uint64_t{0}));
      char time[64] = "";
      std::tm utc{};
      ::gmtime_r(&seconds, &utc);
      std::strftime(time, sizeof time, "%Y-%m-%d %H:%M:%S UTC", &utc);
      std::printf("%s: %s bytes, %s\n", printable(result.value("name", "")).c_str(),
                  result["size"].dump().c_str(), time);
    }
    return 0;
  });
  add("rm", "remove an object", "rm photos/2026 beach.jpg", true, [&]() -> Result<int> {
    TRY(const auto target, split_target(arguments.target));
    Client client = invocation.client(target.first);
    Json request = bucket_request("object.rm", target.second);
    request["object"] = arguments.object;
    TRY(const Json result, client.call(request, "", false));
    static_cast<void>(result);
    return 0;
  });
}

}  // namespace cumulus
