// Home: where everything of a user lies on this machine, and a volume's folder in it. Blocking; any thread.
//
//   HOME/volumes/NAME/key            the key file, 0600
//   HOME/volumes/NAME/settings.json  how this machine opens it
//   HOME/volumes/NAME/miners.toml    its miners, as last given
//   HOME/volumes/NAME/former_miners.toml                those that were drained and taken off the list
//   HOME/volumes/NAME/home, replay, segments/, index/   the object store's (objectstore/FORMAT.md)
//   HOME/volumes/NAME/unfinished     while it is made or recovered
//   HOME/volumes/NAME/lock, daemon.sock, daemon.log     of its daemon
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"
#include "objectstore/options.h"

namespace cumulus {

using Json = nlohmann::json;

// What `volume set` changes; stored as JSON.
struct VolumeSettings {
  VolumeOptions options;
  std::string volume_id;  // hex, for people and for `cumulus-miner allow`

  Json to_json() const;
  // corrupt or invalid, naming the key; unsupported.
  static Result<VolumeSettings> from_json(const Json& json);
  // KEY=VALUE as a person gives it: durability, cache-size, memory, outage-wait.
  Status set(const std::string& key, const std::string& value);
};

class Home {
 public:
  // `given` is --home; else CUMULUS_HOME; else the XDG data folder, or /var/lib/cumulus for root.
  static Home locate(const std::optional<std::string>& given);

  const std::string& path() const { return path_; }
  std::string volume(const std::string& name) const { return path_ + "/volumes/" + name; }
  // Also the ones into which this user may not look; denied when that is so of all.
  Result<std::vector<std::string>> volumes() const;
  // Errors: denied, io; not_found is an answer here.
  static Result<bool> is_there(const std::string& path);
  // not_found, with what to do, when there is no such volume here; invalid for a bad name.
  Status check_volume(const std::string& name) const;

  // What is not a regular file is waited for only when it may be `any` kind (a pipe that somebody gives).
  enum class Kind : std::uint8_t { regular, any };
  static Result<Bytes> read_file(const std::string& path, std::size_t size_max, Kind kind = Kind::regular);
  // Replaces whole: temporary file, fsync, rename.
  static Status write_file(const std::string& path, ByteView content);
  // What is wrong with a file of the volume's folder, with what to do: no fault of the words that were given.
  Error to_restore(const Error& error, const std::string& volume) const;
  Result<VolumeSettings> load_settings(const std::string& name) const;
  Status save_settings(const std::string& name, const VolumeSettings& settings) const;
  // Reads, edits and saves; one command at a time. Answers what it saved.
  Result<VolumeSettings> change_settings(const std::string& name,
                                         const std::function<Status(VolumeSettings&)>& edit) const;

 private:
  std::string path_;
};

Status check_volume_name(const std::string& name);

}  // namespace cumulus
