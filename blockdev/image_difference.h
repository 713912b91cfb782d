// What changed between two instants of a disk: as ranges, and sent and received as a stream of differences.
//
// Receiving checks that the disk is what the difference was made from. When it is interrupted the same stream
// may be given again: what came of it is undone first (a disk from nothing is made anew, another is rolled
// back to its base), so that nothing written in between slips into the snapshot. Once the snapshot was taken
// nothing is undone, whatever becomes of it. Reactor thread; the volume outlives the calls. The caller keeps
// others from writing to a disk that receives (`writing`).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "blockdev/difference_stream.h"
#include "objectstore/object_store.h"

namespace cumulus {

// An instant of an image: its head when the snapshot is empty.
struct ImageInstant {
  std::string image;
  std::string snapshot;
};

// Stretches in which the two differ, or may: data that was written again counts as different. From `from` on,
// at most `limit`; `reached` is where to go on, the larger disk's size when all was looked at. Where only one
// of the disks reaches, it differs if it was written. not_found, invalid: no such instant, or not an image.
struct DifferencePage {
  std::vector<Volume::Range> ranges;
  std::uint64_t reached = 0;
  std::uint64_t size = 0;  // of the larger disk
};
Task<Result<DifferencePage>> difference_page(Volume& volume, ImageInstant older, ImageInstant newer,
                                             std::uint64_t from, std::size_t limit);

// True when the two views of images may read differently, or have other sizes.
Task<Result<bool>> views_differ(Volume& volume, View one, View other);

// not_found: no such image or snapshot of it.
Task<Result<SnapshotIdentity>> snapshot_identity(Volume& volume, ImageInstant instant);

// Takes the stream's next bytes. The view lives until it returns.
using DifferenceSink = std::function<Task<Status>(ByteView bytes)>;
// Fills `into` wholly, or up to the stream's end.
using DifferenceSource = std::function<Task<Result<std::size_t>>(MutableByteView into)>;

// `base` nullopt: from nothing. Both are snapshots of one image, the base the older, or of a clone and its
// parent. Returns the bytes of the disk that were sent.
Task<Result<std::uint64_t>> send_difference(Volume& volume, std::optional<ImageInstant> base,
                                            ImageInstant end, DifferenceSink sink, Progress progress);

struct Received {
  std::string snapshot;
  std::uint64_t bytes = 0;
};
// Applies a stream to `image`, makes it first when the difference is from nothing, and takes the snapshot
// that the stream ends at. `writing` is called with the image's dataset before its first change. Errors:
// exists (an image or snapshot of that name), invalid (the image is not what the difference was made from),
// corrupt.
Task<Result<Received>> receive_difference(Volume& volume, std::string image, DifferenceSource source,
                                          WallTime now, std::function<Status(DatasetId)> writing,
                                          Progress progress);

// The note that an image keeps of the stream that it received, or is receiving.
struct ReceivedMark {
  bool finished = false;
  DatasetId dataset = 0;  // the image's, which a clone's is not; 0: an older program wrote it
  Version version = 0;    // the head's then, until a snapshot or a rollback
  SnapshotIdentity end;
  bool operator==(const ReceivedMark&) const = default;

  Bytes encode() const;
  static Result<ReceivedMark> decode(ByteView bytes);
};

// The snapshot whose reception was interrupted or is under way: the image's head is neither what it was
// before nor that. Empty: none.
Task<Result<std::string>> unfinished_reception(Volume& volume, DatasetId image);

}  // namespace cumulus
