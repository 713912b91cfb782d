#include "tools/cumulus/home.h"

#include <algorithm>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

#include "objectstore/base/format.h"
#include "tools/cumulus/new_volume_folder.h"
#include "tools/directory_turn.h"
#include "tools/names.h"
#include "tools/sizes.h"

namespace cumulus {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): before any thread
  return value == nullptr ? "" : value;
}

// Without the exception: in a folder that was removed, the path as it was given fails where it is used.
std::string absolute_path(const std::string& given) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::absolute(given, error);
  return error ? given : path.string();
}

constexpr double kOutageWaitMax = 1000.0 * 24 * 3600;  // seconds

std::string outage_wait_text(const std::optional<Duration>& wait) {
  if (!wait) return "forever";
  const auto thousandths = std::chrono::ceil<std::chrono::milliseconds>(*wait).count();
  return thousandths % 1000 == 0 ? format("{}s", thousandths / 1000) : format("{}ms", thousandths);
}

Error damaged_settings(const std::string& key) {
  return {ErrorKind::corrupt,
          format("'{}' is not what settings have there: restore the file, or recover the volume", key)};
}

}  // namespace

Home Home::locate(const std::optional<std::string>& given) {
  Home home;
  if (given && !given->empty()) {
    home.path_ = absolute_path(*given);
  } else if (const std::string set = environment("CUMULUS_HOME"); !set.empty()) {
    home.path_ = absolute_path(set);
  } else if (::geteuid() == 0) {
    home.path_ = "/var/lib/cumulus";
  } else if (const std::string data = environment("XDG_DATA_HOME"); !data.empty()) {
    home.path_ = absolute_path(data + "/cumulus");
  } else {
    home.path_ = absolute_path(environment("HOME") + "/.local/share/cumulus");
  }
  return home;
}

Status check_volume_name(const std::string& name) {
  TRY_OK(check_utf8(name));
  const bool bad = name.empty() || name.size() > 128 || name.front() == '.' || name.front() == '-' ||
                   std::ranges::any_of(name, [](char c) {
                     return c == '/' || c == '@' || c == ':' || static_cast<unsigned char>(c) <= 32;
                   });
  if (bad)
    return fail(ErrorKind::invalid, format("'{}' cannot name a volume: 1 to 128 characters, without spaces, "
                                           "'/', '@' and ':', not beginning with '.' or '-'",
                                           name));
  return {};
}

Result<std::vector<std::string>> Home::volumes() const {
  const std::string folder = path_ + "/volumes";
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  if (error == std::errc::no_such_file_or_directory) return names;
  for (const std::filesystem::directory_iterator end; !error && entry != end; entry.increment(error))
    if (is_there(entry->path() / "settings.json").value_or(true)) names.push_back(entry->path().filename());
  if (error) return fail(from_errno(error.value(), "list " + folder));
  std::ranges::sort(names);
  return names;
}

Result<bool> Home::is_there(const std::string& path) {
  if (::access(path.c_str(), F_OK) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  return fail(from_errno(errno, "look for " + path));
}

Status Home::check_volume(const std::string& name) const {
  TRY_OK(check_volume_name(name));
  TRY(const bool there, is_there(volume(name) + "/settings.json"));
  const std::string mark = NewVolumeFolder::mark_of(volume(name));
  TRY(const bool unfinished, is_there(mark));
  if (unfinished) {
    TRY(const Bytes text, read_file(mark, 64));
    const bool recovery = text_of(text).starts_with("recover");
    return fail(ErrorKind::not_found,
                format("volume '{}' in {} is not {} yet: when that was interrupted, 'cumulus volume {}' "
                       "begins anew",
                       name, path_, recovery ? "recovered" : "made", recovery ? "recover" : "create"));
  }
  if (there) return {};
  return fail(ErrorKind::not_found, format("there is no volume '{}' in {}: 'cumulus volume ls' lists them, "
                                           "'cumulus volume recover' brings one back",
                                           name, path_));
}

Result<Bytes> Home::read_file(const std::string& path, std::size_t size_max, Kind kind) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | (kind == Kind::any ? 0 : O_NONBLOCK));
  if (fd < 0) return fail(from_errno(errno, "open " + path));
  struct stat info{};
  if (kind == Kind::regular && (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))) {
    ::close(fd);
    return fail(ErrorKind::corrupt, path + " is not a file");
  }
  Bytes content(size_max + 1);
  std::size_t size = 0;
  ssize_t got = 0;
  while (size < content.size() && (got = ::read(fd, content.data() + size, content.size() - size)) > 0)
    size += static_cast<std::size_t>(got);
  const int error = errno;
  ::close(fd);
  if (got < 0) return fail(from_errno(error, "read " + path));
  if (size > size_max)
    return fail(ErrorKind::corrupt, format("{}: larger than the {} bytes that it may have", path, size_max));
  content.resize(size);
  return content;
}

Error Home::to_restore(const Error& error, const std::string& name) const {
  const ErrorKind kind = error.kind() == ErrorKind::invalid ? ErrorKind::corrupt : error.kind();
  return {kind, format("{}: restore the file, or move {} away and bring the volume back with 'cumulus volume "
                       "recover {}'",
                       error.message(), volume(name), name)};
}

Status Home::write_file(const std::string& path, ByteView content) {
  const std::string temporary = path + ".new";
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return fail(from_errno(errno, "write " + temporary));
  bool well = true;
  while (well && !content.empty()) {
    const ssize_t put = ::write(fd, content.data(), content.size());
    if (put < 0 && errno == EINTR) continue;
    well = put > 0;
    if (well) content = content.subspan(static_cast<std::size_t>(put));
  }
  well = well && ::fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  if (!well) return fail(from_errno(error, "write " + temporary));
  if (::rename(temporary.c_str(), path.c_str()) != 0) return fail(from_errno(errno, "rename " + temporary));
  return {};
}

Json VolumeSettings::to_json() const {
  return {{"version", 1},
          {"id", volume_id},
          {"durability", options.flush_means == Durability::remote ? "network" : "local"},
          {"cache-size", options.cache_bytes},
          {"memory", options.memory_bytes},
          {"outage-wait", outage_wait_text(options.outage_wait)}};
}

Result<VolumeSettings> VolumeSettings::from_json(const Json& json) {
  VolumeSettings settings;
  const auto version = json.is_object() ? json.find("version") : json.end();
  if (version == json.end() || !version->is_number_integer()) return fail(damaged_settings("version"));
  if (*version != 1)
    return fail(ErrorKind::unsupported,
                format("version {} of the settings is not known: a newer Cumulus wrote them; use that one",
                       version->dump()));
  if (const auto id = json.find("id"); id != json.end()) {
    if (!id->is_string()) return fail(damaged_settings("id"));
    settings.volume_id = id->get<std::string>();
  }
  for (const char* key : {"durability", "cache-size", "memory", "outage-wait"}) {
    const auto found = json.find(key);
    if (found == json.end()) continue;
    if (!found->is_string() && !found->is_number_unsigned()) return fail(damaged_settings(key));
    TRY_OK(settings.set(key, found->is_string() ? found->get<std::string>() : found->dump()));
  }
  return settings;
}

Status VolumeSettings::set(const std::string& key, const std::string& value) {
  if (key == "durability") {
    if (value != "local" && value != "network")
      return fail(ErrorKind::invalid, format("durability is 'local' or 'network', not '{}'", value));
    options.flush_means = value == "network" ? Durability::remote : Durability::local;
    return {};
  }
  if (key == "cache-size" || key == "memory") {
    TRY(const std::uint64_t size, parse_size(value));
    (key == "memory" ? options.memory_bytes : options.cache_bytes) = size;
    return options.validate();
  }
  if (key == "outage-wait") {
    if (value == "forever") {
      options.outage_wait.reset();
      return {};
    }
    char* end = nullptr;
    const double amount = std::strtod(value.c_str(), &end);
    const std::string unit = end;
    const double seconds = unit == "ms"  ? amount / 1000
                           : unit == "m" ? amount * 60
                           : unit == "h" ? amount * 3600
                                         : amount;
    if (end == value.c_str() || !(amount >= 0 && seconds <= kOutageWaitMax) ||
        (!unit.empty() && unit != "s" && unit != "ms" && unit != "m" && unit != "h"))
      return fail(ErrorKind::invalid,
                  format("'{}' is not a time up to 1000 days: use 60s, 5m, 1h or forever", value));
    options.outage_wait = std::chrono::nanoseconds(static_cast<std::int64_t>(seconds * 1e9));
    return {};
  }
  return fail(ErrorKind::invalid,
              format("'{}' is not a setting: durability, cache-size, memory, outage-wait", key));
}

Result<VolumeSettings> Home::load_settings(const std::string& name) const {
  const std::string path = volume(name) + "/settings.json";
  TRY(const Bytes content, read_file(path, 1u << 20));
  const Json json = Json::parse(text_of(content), nullptr, false);
  if (json.is_discarded())
    return fail(ErrorKind::corrupt, path + " is not valid JSON: restore it, or recover the volume");
  auto settings = VolumeSettings::from_json(json);
  if (settings) return settings;
  // Out of bounds in the file is damage, not what somebody has just given.
  const Error& error = settings.error();
  const Error shown(error.kind() == ErrorKind::invalid ? ErrorKind::corrupt : error.kind(), error.message());
  return fail(shown.within(path));
}

Status Home::save_settings(const std::string& name, const VolumeSettings& settings) const {
  return write_file(volume(name) + "/settings.json", view_of(settings.to_json().dump(2) + "\n"));
}

Result<VolumeSettings> Home::change_settings(const std::string& name,
                                             const std::function<Status(VolumeSettings&)>& edit) const {
  const DirectoryTurn turn(volume(name));
  TRY(VolumeSettings settings, load_settings(name));
  TRY_OK(edit(settings));
  TRY_OK(save_settings(name, settings));
  return settings;
}

}  // namespace cumulus
