// What a home's disk has of the log, read from outside: the files of its segments, and what an opening did to
// them. One thread.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "objectstore/manifest.h"
#include "tests/sim/cluster.h"

namespace cumulus {

struct LocalSegment {
  std::string path;
  SegmentHeader header;
  ByteView bytes;  // the whole file; while the disk is not changed
};

// Those whose header parses, of the files given.
std::vector<LocalSegment> local_segments(const std::map<std::string, ByteView>& files, const KeyTree& keys);

// The files of a home by what is in them: a segment's salt tells it from any other.
struct LocalCopies {
  using Salt = std::array<std::uint8_t, 16>;
  struct Copies {
    SegmentId segment;
    std::set<std::string> paths;
  };
  std::map<Salt, Copies> by_salt;

  static LocalCopies of(Cluster& cluster, const Home& home);
  // Segments after `stored` that lie in two files.
  std::uint64_t doubled(Sequence stored) const;
  // Segments whose file is another one in `later`.
  std::uint64_t moved(const LocalCopies& later) const;
};

// The newest segment's groups as they lie on a disk, to see afterwards what a power cut tore.
class NewestSegment {
 public:
  static NewestSegment of(Cluster& cluster, const Home& home);
  // Is a group that was whole then partly there now?
  bool torn(Cluster& cluster, const Home& home) const;

 private:
  std::string path_;
  SegmentHeader header_;
  Bytes bytes_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> groups_;  // offset, length
};

// The file of one of the last segments up to `stored`: without it the log may have a hole, and the miners
// have what was in it. Empty: there is none.
std::string newest_stored(Cluster& cluster, const Home& home, Sequence stored);

}  // namespace cumulus
