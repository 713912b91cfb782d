// cumulus object ...
#include <cstdio>
#include <ctime>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "objectstore/base/format.h"
#include "tools/cumulus/commands.h"
#include "tools/sizes.h"

namespace cumulus {
namespace {

struct Arguments {
  std::string target;
  std::string object;
  std::string file;
  std::string prefix;
  bool sync = false;
  bool recursive = false;
};

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// VOLUME/BUCKET or VOLUME/BUCKET@SNAPSHOT.
Result<Json> request_for(const std::string& name, const std::string& bucket) {
  const auto at = bucket.find('@');
  Json request = {{"request", name}, {"bucket", bucket.substr(0, at)}};
  if (at != std::string::npos) request["snapshot"] = bucket.substr(at + 1);
  return request;
}

// A descriptor that the daemon may read or write without ever waiting for somebody: a regular file, or
// /dev/null.
bool passable(int fd) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return false;
  return S_ISREG(info.st_mode) || (S_ISCHR(info.st_mode) && info.st_rdev == makedev(1, 3));
}

Result<Json> put_file(Client& client, const std::string& bucket, const std::string& object,
                      const std::string& path, bool sync) {
  TRY(Json request, request_for("object.put", bucket));
  request["object"] = object;
  request["sync"] = sync;
  const File file(path == "-" ? ::dup(STDIN_FILENO) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return fail(from_errno(errno, "open " + path));
  struct stat info{};
  if (::fstat(file.get(), &info) == 0 && S_ISDIR(info.st_mode))
    return fail(ErrorKind::invalid, format("{} is a folder: give -r", path));
  if (passable(file.get()) && path != "-") return client.call(std::move(request), object, true, file.get());
  const Client::DataIn data = [&file]() -> Result<Bytes> {
    Bytes piece(kDataFrameMax);
    std::size_t size = 0;
    while (size < piece.size()) {
      const ssize_t got = ::read(file.get(), piece.data() + size, piece.size() - size);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail(from_errno(errno, "read"));
      if (got == 0) break;
      size += static_cast<std::size_t>(got);
    }
    piece.resize(size);
    return piece;
  };
  return client.call(std::move(request), object, true, -1, data);
}

Result<int> put(const Invocation& invocation, const Arguments& arguments) {
  TRY(const auto target, split_target(arguments.target));
  Client client = invocation.client(target.first);
  if (!arguments.recursive) {
    TRY(const Json result, put_file(client, target.second, arguments.object, arguments.file, arguments.sync));
    if (invocation.json) print_json(result);
    return 0;
  }
  // A folder: every regular file in it, named by its path below the folder, after the given name.
  Json all = Json::array();
  std::error_code error;
  const std::filesystem::path top(arguments.file);
  if (!std::filesystem::is_directory(top))
    return fail(ErrorKind::invalid, format("{} is not a folder", arguments.file));
  for (std::filesystem::recursive_directory_iterator entry(top, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!entry->is_regular_file()) continue;
    const std::string below = entry->path().lexically_relative(top).string();
    const std::string name =
        arguments.object.empty() || arguments.object == "." ? below : arguments.object + "/" + below;
    TRY(Json result, put_file(client, target.second, name, entry->path().string(), false));
    all.push_back(std::move(result));
  }
  if (error) return fail(from_errno(error.value(), "read " + arguments.file));
  if (arguments.sync) {
    TRY(const Json synced, client.call({{"request", "volume.sync"}}, "sending", true));
    static_cast<void>(synced);
  }
  if (invocation.json) print_json(all);
  if (!invocation.json) std::printf("%zu objects\n", all.size());
  return 0;
}

Status write_all(int fd, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return fail(from_errno(errno, "write"));
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  return {};
}

Result<Json> get_to_stdout(Client& client, Json request) {
  const Client::DataOut out = [](ByteView bytes) { return write_all(STDOUT_FILENO, bytes); };
  return client.call(std::move(request), "", true, -1, {}, out);
}

// Into a temporary file beside it first: the file appears whole or not at all. Devices and pipes are written
// as they are.
Result<Json> get_file(Client& client, const std::string& bucket, const std::string& object,
                      const std::string& path) {
  TRY(Json request, request_for("object.get", bucket));
  request["object"] = object;
  struct stat info{};
  const bool special = ::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode);
  if (special && S_ISDIR(info.st_mode)) return fail(ErrorKind::invalid, format("{} is a folder", path));
  const std::string written = special ? path : format("{}.part-{}", path, ::getpid());
  const File file(::open(written.c_str(), O_WRONLY | O_CLOEXEC | (special ? 0 : O_CREAT | O_TRUNC), 0666));
  if (file.get() < 0) return fail(from_errno(errno, "write " + written));
  Result<Json> result = fail(ErrorKind::io, "nothing was read");
  if (passable(file.get())) {
    result = client.call(std::move(request), object, true, file.get());
  } else {
    const Client::DataOut out = [&file](ByteView bytes) { return write_all(file.get(), bytes); };
    result = client.call(std::move(request), object, true, -1, {}, out);
  }
  if (special) return result;
  if (!result) {
    ::unlink(written.c_str());
    return result;
  }
  if (::rename(written.c_str(), path.c_str()) != 0) return fail(from_errno(errno, "rename " + written));
  return result;
}

// Page by page, in the order of names.
Status for_each_object(Client& client, const std::string& bucket, const std::string& prefix,
                       const std::function<Status(const Json&)>& visit) {
  constexpr std::size_t kPage = 10000;
  for (std::string after;;) {
    TRY(Json request, request_for("object.ls", bucket));
    request["prefix"] = prefix;
    request["after"] = after;
    request["limit"] = kPage;
    TRY(const Json page, client.call(std::move(request), "", false));
    for (const Json& entry : page) TRY_OK(visit(entry));
    if (page.size() < kPage) return {};
    after = page.back().value("name", "");
  }
}

// A name may be anything; a path below the folder is nothing that leads out of it.
Result<std::filesystem::path> path_below(const std::filesystem::path& top, const std::string& name) {
  const std::filesystem::path below(name);
  bool plain = !below.empty() && below.is_relative() && below.has_filename();
  for (const std::filesystem::path& part : below) plain = plain && part != ".." && part != ".";
  if (!plain)
    return fail(
        ErrorKind::invalid,
        format("the object '{}' has a name that is no path below {}: get it alone", name, top.string()));
  return top / below;
}

// Every object below NAME (. for all), each into its own file.
Result<int> get_folder(const Invocation& invocation, Client& client, const std::string& bucket,
                       const Arguments& arguments) {
  const std::filesystem::path top(arguments.file);
  const std::string prefix =
      arguments.object.empty() || arguments.object == "." ? "" : arguments.object + "/";
  std::uint64_t fetched = 0;
  Json all = Json::array();
  const auto visit = [&](const Json& entry) -> Status {
    const std::string name = entry.value("name", "");
    TRY(const std::filesystem::path path, path_below(top, name.substr(prefix.size())));
    std::error_code error;
    std::filesystem::create_directories(path.parent_path(), error);
    if (error) return fail(from_errno(error.value(), "make the folder " + path.parent_path().string()));
    TRY(Json result, get_file(client, bucket, name, path.string()));
    ++fetched;
    if (invocation.json) all.push_back(std::move(result));
    return {};
  };
  TRY_OK(for_each_object(client, bucket, prefix, visit));
  if (fetched == 0 && !prefix.empty())
    return fail(ErrorKind::not_found, format("no object's name begins with '{}'", prefix));
  if (invocation.json) print_json(all);
  if (!invocation.json) std::printf("%llu objects\n", static_cast<unsigned long long>(fetched));
  return 0;
}

Result<int> get(const Invocation& invocation, const Arguments& arguments) {
  TRY(const auto target, split_target(arguments.target));
  Client client = invocation.client(target.first);
  if (arguments.recursive) return get_folder(invocation, client, target.second, arguments);
  if (arguments.file == "-") {
    TRY(Json request, request_for("object.get", target.second));
    request["object"] = arguments.object;
    TRY(const Json result, get_to_stdout(client, std::move(request)));
    static_cast<void>(result);
    return 0;
  }
  TRY(const Json result, get_file(client, target.second, arguments.object, arguments.file));
  if (invocation.json) print_json(result);
  return 0;
}

Result<int> list(const Invocation& invocation, const Arguments& arguments) {
  TRY(const auto target, split_target(arguments.target));
  Client client = invocation.client(target.first);
  Json all = Json::array();
  const auto visit = [&](const Json& entry) -> Status {
    if (invocation.json)
      all.push_back(entry);
    else
      std::printf("%14s  %s\n", entry["size"].dump().c_str(), entry.value("name", "").c_str());
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
    TRY(Json request, request_for("object.stat", target.second));
    request["object"] = arguments.object;
    TRY(const Json result, client.call(std::move(request), "", false));
    if (invocation.json) {
      print_json(result);
    } else {
      const auto seconds = static_cast<std::time_t>(result.value("modified_at", std::uint64_t{0}));
      char time[64] = "";
      std::tm utc{};
      ::gmtime_r(&seconds, &utc);
      std::strftime(time, sizeof time, "%Y-%m-%d %H:%M:%S UTC", &utc);
      std::printf("%s: %s bytes, %s\n", result.value("name", "").c_str(), result["size"].dump().c_str(),
                  time);
    }
    return 0;
  });
  add("rm", "remove an object", "rm photos/2026 beach.jpg", true, [&]() -> Result<int> {
    TRY(const auto target, split_target(arguments.target));
    Client client = invocation.client(target.first);
    TRY(Json request, request_for("object.rm", target.second));
    request["object"] = arguments.object;
    TRY(const Json result, client.call(std::move(request), "", false));
    static_cast<void>(result);
    return 0;
  });
}

}  // namespace cumulus
