// BlockModel: what disks are, as arrays of bytes by name: heads and snapshots; and the requests that change
// them. Copies share bytes that did not change. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "objectstore/base/bytes.h"

namespace cumulus {

struct BlockModel {
  using Disk = std::shared_ptr<const Bytes>;
  struct Image {
    Disk head;
    std::map<std::string, Disk> snapshots;
  };
  std::map<std::string, Image> images;

  const Bytes& head(const std::string& image) const { return *images.at(image).head; }
  // `snapshot` empty: the head. An empty range when the image, the snapshot or the range is not there.
  ByteView bytes(const std::string& image, const std::string& snapshot, std::uint64_t offset,
                 std::uint64_t length) const;
};

// Where the first differs from the second; empty: nowhere.
std::string difference(const BlockModel& expected, const BlockModel& found);

// One request of one connection, or one of whoever cares for the disks: all of it or nothing.
struct BlockRequest {
  enum class Kind : std::uint8_t {
    change,
    flush,
    snapshot,
    clone,
    resize,
    roll_back,
    remove_snapshot,
    remove_image,
    flatten,
  };
  struct Part {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::shared_ptr<const Bytes> data;  // none: zeroes
    bool allocated = false;             // of zeroes
  };
  Kind kind = Kind::change;
  std::vector<std::string> images;  // one; a snapshot may be of several, at one instant
  std::vector<Part> parts;          // change
  bool durable = false;             // change: with FUA
  std::string name;                 // of the snapshot; clone: of the parent's
  std::string clone;                // its name
  std::uint64_t size = 0;           // resize

  bool changes_model() const { return kind != Kind::flush && kind != Kind::flatten; }
  void apply(BlockModel& model) const;
  std::string text() const;
};

}  // namespace cumulus
