// Mounts: the file systems that a volume's daemon serves to the kernel, each a resident that ends when it is
// unmounted. They are remembered in the volume's folder (mounts.json) until they end, so that `mount
// --recover` knows what a killed daemon had mounted. Reactor thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fs/file_system.h"
#include "fs/fuse/session.h"
#include "objectstore/object_store.h"
#include "tools/cumulus/residents.h"

namespace cumulus {

// What is mounted: the words of a request, understood.
struct MountOrder {
  std::string file_system;
  std::string directory;
  MountOptions options;

  static Result<MountOrder> from_json(const Json& request);
};

class Mounts {
 public:
  // `folder`: the volume's. All outlive this.
  Mounts(Runtime& runtime, Residents& residents, Home home, std::string volume);
  ~Mounts();  // closed

  // Everything that can be wrong with an order, before the kernel is asked: not_found, exists (mounted for
  // writing already), invalid.
  Task<Status> check(Volume& store, MountOrder order);
  // Serves the kernel's connection, which is owned from now on; returns when the mount can be used.
  Task<Status> serve(Volume& store, MountOrder order, int device);
  // Brings what the kernel holds for the mount at `directory` into the volume, and it to `level`. not_found.
  Task<Status> flush(Volume& store, std::string directory, Durability level, Progress progress);
  bool is_mounted(const std::string& directory) const { return find(directory) != nullptr; }
  // The file system of a dataset that is mounted for writing, or nullptr. The mount ends no sooner than this
  // is let go.
  std::shared_ptr<PosixFileSystem> files_of(DatasetId dataset) const;
  // Until a mount ended, or a moment passed: look again.
  Task<void> wait_a_while();
  // Ends all, and takes no more.
  Task<void> close();

 private:
  class Mount;
  Task<void> run(std::shared_ptr<Mount> mount);
  std::shared_ptr<Mount> find(const std::string& directory) const;
  std::shared_ptr<Mount> in_the_way_of(const MountOrder& order, DatasetId dataset) const;
  void forget(Mount& mount);
  void remember();

  Runtime& runtime_;
  Residents& residents_;
  Home home_;
  std::string volume_;
  BlockingLane lane_;
  std::vector<std::shared_ptr<Mount>> mounts_;
  bool closing_ = false;
  Signal changed_;
  TaskGroup tasks_;
};

}  // namespace cumulus
