// HomeFile: what one home (a volume's directory on one machine) remembers of its own openings: DIR/home.
//
// It answers two questions that decide who may write: "did this home write that record?" and "have we seen a
// newer one?". Replaced as a whole; a ballot or a version is never used before it is in the file. Losing it
// loses no data: the home then no longer knows its own records and opens like a stranger. Reactor thread.
// FORMAT.md has the layout.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"
#include "objectstore/io/file.h"
#include "objectstore/superblock.h"

namespace cumulus {

struct HomeRecord {
  static constexpr std::size_t kAuthoredMax = 32;
  static constexpr std::size_t kEncodedSizeMax = 128 * 1024;

  // Records that this home may have proposed under one ballot: versions up to `ceiling`, reserved in jumps.
  struct Authored {
    Ballot ballot;
    std::uint64_t ceiling = 0;
    bool operator==(const Authored&) const = default;
  };

  VolumeId volume;
  Ballot ballot;                   // the highest that this home ever claimed with
  std::vector<Authored> authored;  // oldest first, from the last ballot known accepted by a quorum on
  std::optional<Superblock> seen;  // the newest record known accepted by a quorum

  bool operator==(const HomeRecord&) const = default;
  // Did this home propose it?
  bool wrote(const Superblock& record) const;
  // True when `record` is older than what this home has seen: the miners were rolled back.
  bool rolled_back(const Superblock& record) const;
  // The ballot of the next opening: above `highest` (what a survey saw) and all of our own. `take_over`
  // starts a new epoch; otherwise the home keeps the epoch of its last ballot.
  Ballot next_ballot(const Ballot& highest, bool take_over, InstanceId instance) const;
  // A quorum accepted `record` under our ballot: earlier ballots can no longer win.
  void note_accepted(const Superblock& record);
  // Reserves versions up to `ceiling` under `under`.
  void reserve(const Ballot& under, std::uint64_t ceiling);

  Bytes encode() const;
  static Result<HomeRecord> decode(ByteView bytes);
};

class HomeFile {
 public:
  // `disk` outlives it; `directory` is the volume's own folder of the home.
  HomeFile(FileSystem& disk, std::string directory);

  // Reads the file. A missing one is an empty record (a new home); one that does not verify is `corrupt`.
  Task<Status> load(VolumeId volume);
  const HomeRecord& record() const { return record_; }
  // Makes `next` durable, then makes it record(). io: the record is unchanged.
  Task<Status> save(HomeRecord next);

 private:
  FileSystem& disk_;
  std::string path_;
  HomeRecord record_;
};

}  // namespace cumulus
