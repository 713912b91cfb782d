// MinerDirectory: DIR of a miner: its configuration, its identity, and the lock that keeps two daemons apart.
// FORMAT.md lists the files. Reactor thread; these calls block for a moment and are made at start and by
// commands.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "objectstore/base/ids.h"
#include "objectstore/base/random.h"
#include "objectstore/base/result.h"
#include "objectstore/io/file.h"
#include "tools/miner/store/bundle_format.h"

namespace cumulus {

struct MinerConfig {
  static constexpr int kFormat = 1;
  std::uint64_t capacity = 0;
  std::string domain;                     // what init printed; the volume's own list decides
  std::uint64_t scrub_rate = 8ULL << 20;  // bytes a second, in the background; 0: no background scrub
  bool draining = false;
  bundle::StoreSecret secret{};

  std::string print() const;
  // invalid (with the line), unsupported: a newer format.
  static Result<MinerConfig> parse(std::string_view text);
};

class MinerDirectory {
 public:
  using Seed = std::array<std::uint8_t, 32>;

  MinerDirectory(FileSystem& files, std::string path) : files_(files), path_(std::move(path)) {}

  // Makes the directory, a fresh identity and configuration. exists: it is a miner's already.
  Task<Status> create(const MinerConfig& config, const Seed& seed);
  Task<Result<MinerConfig>> config();
  Task<Status> write_config(MinerConfig config);
  Task<Result<Seed>> identity_seed();

  const std::string& path() const { return path_; }
  std::string config_path() const { return path_ + "/config"; }
  std::string allow_path() const { return path_ + "/allow"; }
  std::string index_path() const { return path_ + "/index"; }
  std::string holders_path() const { return path_ + "/holders"; }
  std::string identity_path() const { return path_ + "/identity"; }

 private:
  FileSystem& files_;
  std::string path_;
};

// Held by whoever works in DIR: the daemon, or a command while it is not running.
class DirectoryLock {
 public:
  // exists: another process holds it.
  static Result<DirectoryLock> take(const std::string& directory);
  DirectoryLock(DirectoryLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  DirectoryLock& operator=(DirectoryLock&&) = delete;
  ~DirectoryLock();

 private:
  explicit DirectoryLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

}  // namespace cumulus
