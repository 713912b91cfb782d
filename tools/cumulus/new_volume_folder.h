// NewVolumeFolder: the folder of a volume that is being made or recovered. Until the command is through it
// holds a file `unfinished`, and no other command touches the volume: one that was interrupted leaves nothing
// that looks like a volume, and the same command begins anew in its place. Blocking; one thread.
#pragma once

#include <string>

#include "tools/cumulus/home.h"

namespace cumulus {

class NewVolumeFolder {
 public:
  // Makes HOME/volumes/NAME, or clears it of what an interrupted command left. `command`: "create" or
  // "recover". Errors: exists, when there is a volume, or somebody still works on this one.
  static Result<NewVolumeFolder> make(const Home& home, const std::string& name, const std::string& command);
  NewVolumeFolder(NewVolumeFolder&& other) noexcept;
  NewVolumeFolder& operator=(NewVolumeFolder&&) = delete;
  // Unless kept: ends the daemon that was started on it, and removes it.
  ~NewVolumeFolder();

  // The volume is whole and its owner knows all there is to know: from here on it counts.
  Status keep();

  static std::string mark_of(const std::string& folder) { return folder + "/unfinished"; }

 private:
  NewVolumeFolder(Home home, std::string name, int mark)
      : home_(std::move(home)), name_(std::move(name)), mark_(mark) {}
  static Status clear(const Home& home, const std::string& name);

  Home home_;
  std::string name_;
  int mark_;  // locked as long as the command lives
};

}  // namespace cumulus
