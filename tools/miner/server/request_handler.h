// RequestHandler: what a miner answers to each message of an admitted connection. It knows volumes, slices
// and holders, nothing of sockets. Whatever is asked, only the connection's own volume is touched. Reactor
// thread.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "netclient/wire/messages.h"
#include "objectstore/base/metrics.h"
#include "tools/miner/server/allow_list.h"
#include "tools/miner/server/holder_book.h"
#include "tools/miner/store/slice_store.h"

namespace cumulus {

// A request as it came in, whole.
struct MinerRequest {
  wire::Prelude prelude;
  Bytes header;
  std::shared_ptr<Buffer> payload;  // PUT; prelude.payload_length bytes of it
  std::optional<VolumeId> volume;   // from the connection's grant
  std::uint32_t rights = 0;         // Grant::k...
};

// What goes back: a frame, and a payload kept by `owner`.
struct MinerAnswer {
  Bytes frame;
  ByteView payload;
  std::shared_ptr<Buffer> owner;
};

struct MinerCondition {
  bool draining = false;
};

class RequestHandler {
 public:
  // With `run --open`, how many volumes without a line of their own are taken in: each costs a file and rows.
  static constexpr std::size_t kOpenVolumesMax = 4096;

  RequestHandler(SliceStore& store, HolderBook& holders, const AllowList& allowed,
                 const MinerCondition& condition, std::string version,
                 std::size_t open_volumes_max = kOpenVolumesMax)
      : store_(store),
        holders_(holders),
        allowed_(allowed),
        condition_(condition),
        version_(std::move(version)),
        open_volumes_max_(open_volumes_max) {}

  // Never fails: errors are answers.
  Task<MinerAnswer> handle(MinerRequest request);
  BufferPools& buffers() { return store_.buffers(); }
  // Whether a message of this type will be looked at for this volume and these rights; else the error that
  // answers it (unsupported, denied), and nothing that it brings needs room.
  static Status may_ask(wire::MessageType type, const std::optional<VolumeId>& volume, std::uint32_t rights);
  // Bytes that an answer to this request will hold in memory: what to reserve first.
  static std::uint64_t answer_weight(const MinerRequest& request);
  static MinerAnswer error_answer(const wire::Prelude& prelude, const Error& error);

 private:
  // denied: not on the allow list; no_space: too many volumes came in by `run --open`.
  Status admit(const VolumeId& volume);
  Task<Result<MinerAnswer>> dispatch(const MinerRequest& request);
  Task<Result<MinerAnswer>> put(const MinerRequest& request, VolumeId volume);
  Task<Result<MinerAnswer>> read(const MinerRequest& request, VolumeId volume);
  Task<Result<MinerAnswer>> list(const MinerRequest& request, VolumeId volume);
  Task<Result<MinerAnswer>> have(const MinerRequest& request, VolumeId volume);
  Task<Result<MinerAnswer>> remove(const MinerRequest& request, VolumeId volume);
  Task<Result<MinerAnswer>> challenge(const MinerRequest& request, VolumeId volume);
  Task<Result<MinerAnswer>> promise(const MinerRequest& request, VolumeId volume);
  Task<Result<MinerAnswer>> accept(const MinerRequest& request, VolumeId volume);
  Task<Result<MinerAnswer>> superblock(const MinerRequest& request, VolumeId volume);
  MinerAnswer status(const MinerRequest& request) const;
  Task<Result<StoredRange>> read_ranges(SliceKey key, std::vector<wire::ByteRange> ranges);

  SliceStore& store_;
  HolderBook& holders_;
  const AllowList& allowed_;
  const MinerCondition& condition_;
  std::string version_;
  std::size_t open_volumes_max_;
};

}  // namespace cumulus
