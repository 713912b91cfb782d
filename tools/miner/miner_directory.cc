#include "tools/miner/miner_directory.h"

#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "objectstore/base/format.h"
#include "objectstore/crypto/tls_identity.h"

namespace cumulus {
namespace {

constexpr std::string_view kIdentityLabel = "cumulus-miner identity v1";

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r'))
    text.remove_suffix(1);
  return text;
}

Result<std::uint64_t> number_of(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    return fail(ErrorKind::invalid, "'" + std::string(text) + "' is not a number");
  return value;
}

Status set_value(MinerConfig& config, int& format, std::string_view key, std::string_view value) {
  if (key == "domain") {
    config.domain = value;
    return {};
  }
  if (key == "secret") {
    if (!from_hex(value, config.secret)) return fail(ErrorKind::invalid, "the secret is not 64 hex digits");
    return {};
  }
  TRY(const std::uint64_t number, number_of(value));
  if (key == "format") {
    format = static_cast<int>(number);
  } else if (key == "capacity") {
    config.capacity = number;
  } else if (key == "scrub_rate") {
    config.scrub_rate = number;
  } else if (key == "draining") {
    config.draining = number != 0;
  } else {
    return fail(ErrorKind::unsupported, "'" + std::string(key) + "' is not known to this program");
  }
  return {};
}

// Private from the first moment, durable when it returns.
Status write_private_file(const std::string& path, std::string_view content) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return fail(from_errno(errno, "create " + path));
  const bool written =
      ::write(file, content.data(), content.size()) == static_cast<ssize_t>(content.size()) &&
      ::fsync(file) == 0;
  const int why = errno;
  ::close(file);
  if (!written) return fail(from_errno(why, "write " + path));
  return {};
}

std::string public_key_of(const MinerDirectory::Seed& seed) {
  return to_hex(TlsIdentity::from_seed(seed).public_key());
}

}  // namespace

std::string MinerConfig::print() const {
  return cumulus::format(
      "# Configuration of a Cumulus miner (FORMAT.md). `secret` keys the checksums of the bundles: do not "
      "change it.\n"
      "format = {}\ncapacity = {}\ndomain = {}\nscrub_rate = {}\ndraining = {}\nsecret = {}\n",
      kFormat, capacity, domain, scrub_rate, draining ? 1 : 0, to_hex(secret));
}

Result<MinerConfig> MinerConfig::parse(std::string_view text) {
  MinerConfig config;
  int format = 0;
  bool secret = false;
  for (int number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#') continue;
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos)
      return fail(ErrorKind::invalid, cumulus::format("line {}: expected KEY = VALUE", number));
    const std::string_view key = trimmed(line.substr(0, equals));
    secret |= key == "secret";
    const Status set = set_value(config, format, key, trimmed(line.substr(equals + 1)));
    if (!set) return fail(set.error().within(cumulus::format("line {}", number)));
  }
  if (format != kFormat)
    return fail(ErrorKind::unsupported,
                cumulus::format("format {} is not known; this program knows {}", format, kFormat));
  if (!secret || config.capacity == 0) return fail(ErrorKind::invalid, "secret or capacity is missing");
  return config;
}

Task<Status> MinerDirectory::create(const MinerConfig& config, const Seed& seed) {
  const cumulus::Error taken(ErrorKind::exists,
                             path_ + " holds a miner already; `cumulus-miner status` shows it");
  if (::access(config_path().c_str(), F_OK) == 0) co_return fail(taken);
  CO_TRY_OK(files_.create_directories(path_));
  CO_TRY(const auto lock, DirectoryLock::take(path_));
  if (::access(config_path().c_str(), F_OK) == 0) co_return fail(taken);
  // The config is the last to be written: without it an identity is of an interrupted init, and nobody has
  // heard of it, or of a miner whose config was lost.
  for (const std::string& folder : {path_ + "/bundles", holders_path()})
    if (const auto kept = files_.list(folder); kept && !kept->empty())
      co_return fail(ErrorKind::exists,
                     folder + " is of a miner whose config is gone: bring that back from a copy");
  if (::unlink(identity_path().c_str()) != 0 && errno != ENOENT)
    co_return fail(from_errno(errno, "remove " + identity_path()));
  if (::chmod(path_.c_str(), 0700) != 0) co_return fail(from_errno(errno, "chmod " + path_));
  CO_TRY_OK(files_.create_directories(holders_path()));
  CO_TRY_OK(files_.create_directories(path_ + "/bundles"));
  CO_TRY_OK(write_private_file(
      identity_path(), cumulus::format("{}\n{}\n{}\n", kIdentityLabel, to_hex(seed), public_key_of(seed))));
  CO_TRY_OK(co_await write_config(config));
  co_return co_await files_.sync_directory(path_);
}

Task<Result<MinerConfig>> MinerDirectory::config() {
  const auto bytes = co_await files_.read_file(config_path(), 64 * 1024);
  if (!bytes && bytes.error().kind() == ErrorKind::not_found)
    co_return fail(ErrorKind::not_found, path_ + " is no miner's directory; `cumulus-miner init` makes one");
  if (!bytes) co_return fail(bytes.error());
  auto config = MinerConfig::parse(text_of(*bytes));
  if (!config) co_return fail(config.error().within(config_path()));
  co_return config;
}

Task<Status> MinerDirectory::write_config(MinerConfig config) {
  const std::string text = config.print();
  const ByteView view = view_of(text);
  co_return co_await files_.replace_file(config_path(), Bytes(view.begin(), view.end()));
}

Task<Result<MinerDirectory::Seed>> MinerDirectory::identity_seed() {
  CO_TRY(const Bytes bytes, co_await files_.read_file(identity_path(), 4096));
  const std::string_view text = text_of(bytes);
  const std::size_t line = text.find('\n');
  Seed seed{};
  if (text.substr(0, line) != kIdentityLabel || !from_hex(text.substr(line + 1, 64), seed))
    co_return fail(ErrorKind::corrupt, identity_path() + ": not a miner's identity file");
  // Directories of before the line was there have none.
  std::string_view stated = text.substr(std::min(text.size(), line + 1 + 64));
  while (stated.starts_with('\n')) stated.remove_prefix(1);
  while (stated.ends_with('\n')) stated.remove_suffix(1);
  if (!stated.empty() && stated != public_key_of(seed))
    co_return fail(ErrorKind::corrupt,
                   identity_path() +
                       ": it is damaged, clients would take this for another miner: bring "
                       "it back from a copy");
  co_return seed;
}

Result<DirectoryLock> DirectoryLock::take(const std::string& directory) {
  const std::string path = directory + "/lock";
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return fail(from_errno(errno, "open " + path));
  if (::flock(file, LOCK_EX | LOCK_NB) == 0) return DirectoryLock(file);
  const int why = errno;
  ::close(file);
  if (why == EWOULDBLOCK)
    return fail(ErrorKind::exists, directory + ": another cumulus-miner works in it; stop that one first");
  return fail(from_errno(why, "lock " + path));
}

DirectoryLock::~DirectoryLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace cumulus
