// HolderBook: what this miner promised and accepted as a holder of volumes' superblocks. Durable before it
// answers; the rule itself is objectstore/superblock.h's. One file a volume (FORMAT.md). A file that does not
// verify is never taken for an empty state: that would forget a promise. Reactor thread; requests for one
// volume run one at a time.
#pragma once

#include <list>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "objectstore/io/file.h"
#include "objectstore/io/sync.h"
#include "objectstore/superblock.h"

namespace cumulus {

class HolderBook {
 public:
  static constexpr std::size_t kCachedMax = 256;

  // `directory` (DIR/holders) exists.
  HolderBook(Runtime& runtime, FileSystem& files, std::string directory)
      : files_(files), directory_(std::move(directory)), unlocked_(runtime) {}

  // corrupt: the stored state does not verify; io, no_space: the new one could not be made durable.
  Task<Result<HolderAnswer>> promise(BallotClaim claim);
  Task<Result<HolderAnswer>> accept(Superblock record);
  Task<Result<HolderState>> state(VolumeId volume);
  // An accepted record says so: no put is taken any more.
  Task<Result<bool>> destroyed(VolumeId volume);

  // Whether anything was promised or accepted for it; of how many volumes. Look at the disk.
  Result<bool> knows(const VolumeId& volume) { return files_.exists(path(volume)); }
  Result<std::size_t> count();

  static Bytes encode_file(const HolderState& state);
  static Result<HolderState> decode_file(ByteView bytes);

 private:
  class Lock;
  Task<void> lock(VolumeId volume);
  Task<Result<HolderState>> load(VolumeId volume);
  Task<Status> keep(VolumeId volume, HolderState state);
  void remember(VolumeId volume, HolderState state);
  std::string path(const VolumeId& volume) const { return directory_ + "/" + volume.hex() + ".holder"; }

  FileSystem& files_;
  std::string directory_;
  std::unordered_set<VolumeId> locked_;
  Signal unlocked_;
  std::list<std::pair<VolumeId, HolderState>> cached_;  // most recently used first
  std::unordered_map<VolumeId, std::list<std::pair<VolumeId, HolderState>>::iterator> by_volume_;
};

}  // namespace cumulus
