// Pusher: takes sealed segments and sees each to k + m acknowledged slices on miners, then advances the tail
// (R2).
//
// It never loses a segment and never gives up: with no miners it waits, with few it doubles slices up.
// Segments that wait keep their memory only within a budget; beyond it their bytes come again from the local
// slot and are verified before they are sent. It sends nothing before the tail keeper has claimed the volume,
// and nothing after it was fenced. Reactor thread; erasure code and hashing run on workers.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "objectstore/base/metrics.h"
#include "objectstore/io/sync.h"
#include "objectstore/log/change.h"
#include "objectstore/log/log_writer.h"
#include "objectstore/object_store.h"
#include "objectstore/slice_transport.h"
#include "objectstore/store/eligible_miners.h"
#include "objectstore/store/tail_keeper.h"

namespace cumulus {

struct PusherOptions {
  VolumeShape shape;
  std::uint32_t in_flight_max = 4;  // segments being encoded and sent at once
  Duration request_deadline = std::chrono::seconds(30);
  std::uint64_t queue_memory_max = 32u << 20;  // of segments that wait; those in flight are beside it
};

class Pusher {
 public:
  // The sealed bytes of a local segment whose memory was given up; at least `length` bytes. The pusher
  // verifies them.
  using LoadSegment = std::function<Task<Result<std::shared_ptr<const Buffer>>>(SealedSegment)>;
  // All k + m slices are acknowledged; called (and awaited) before the tail may cover the segment. The volume
  // stages `placed` as bookkeeping. Its failure is logged: the tail advances all the same.
  using OnStored = std::function<Task<Status>(change::Placed placed, Manifest manifest)>;

  Pusher(Runtime& runtime, SliceTransport& transport, const KeyTree& keys, TailKeeper& tail,
         PusherOptions options, LoadSegment load, OnStored on_stored, Metrics& metrics);
  ~Pusher();

  // `stored`: what is stored already (the accepted tail, or what recovery found); log segments after it must
  // be pushed in order of sequence, in this or later calls.
  void start(Tail stored);
  // The log writer's sink. Never blocks: the bytes are durable locally; the log's disk budget is the bound.
  void push(SealedSegment segment);
  // For segments of an earlier run: miners are asked first what they hold of it, and only the rest is sent.
  // One that the stored prefix covers already (its Placed change was lost) is placed again, and the tail
  // stays.
  void push_again(SealedSegment segment);

  // Every log segment up to it is on the miners, whole. accepted() of the tail keeper follows a moment later.
  const Tail& stored() const { return stored_; }
  // Remote: what the accepted tail covers.
  LogPosition remote() const { return tail_.remote_tail().position; }
  std::uint64_t dirty_bytes() const;  // pushed and not yet Remote
  std::size_t waiting() const { return queue_.size(); }
  std::size_t in_flight() const { return under_way_.size(); }
  std::uint64_t crowded() const { return crowded_; }  // segments stored so since start
  // Why nothing moves just now, for status; empty: it does, or there is nothing to do.
  std::string obstacle() const;
  // Returns when the accepted tail covers `position` (its segment must have been sealed, or be about to).
  // `progress` gets dirty bytes, about five times a second; false interrupts (closed). fenced: it never will.
  Task<Status> wait_remote(LogPosition position, Progress progress = {});

  // Returns when every segment that is being sent at the call is stored. unavailable after `patience`;
  // closed.
  Task<Status> wait_for_those_under_way(Duration patience);

  // wait_remote() ends with `closed` from now on; sending goes on.
  void stop_waiting();
  // Stops sending; what was not stored stays in its local slot for push_again() of the next opening.
  Task<void> close();

 private:
  struct Item {
    SealedSegment segment;
    bool again = false;
  };
  struct Prepared;
  struct Ahead {
    Digest previous_chain{};
    Tail tail;
  };

  void enqueue(Item item);
  void trim_memory();
  Task<void> work();
  Task<void> watch_miners();
  Task<void> follow_tail();
  Task<Status> store(Item& item);
  Task<Status> load_bytes(SealedSegment& segment);
  Task<Result<std::shared_ptr<Prepared>>> prepare(const SealedSegment& segment);
  Task<std::vector<MinerId>> find_held(const SegmentId& segment, const Prepared& prepared);
  void note_obstacle(const SegmentId& segment, const std::string& reason);
  void advance(const SealedSegment& segment);
  void move_prefix();

  Runtime& runtime_;
  SliceTransport& transport_;
  const KeyTree& keys_;
  TailKeeper& tail_;
  PusherOptions options_;
  LoadSegment load_;
  OnStored on_stored_;
  EligibleMiners eligible_;
  BufferPool parity_;
  Counter& segments_stored_;
  Counter& bytes_sent_;

  std::deque<Item> queue_;
  std::uint64_t begun_ = 0;            // segments taken off the queue
  std::set<std::uint64_t> under_way_;  // by their number among those
  Tail stored_;
  std::map<Sequence, Ahead> stored_ahead_;   // beyond the contiguous prefix
  std::map<Sequence, std::uint64_t> dirty_;  // bytes of log segments that the accepted tail does not cover
  std::uint64_t crowded_ = 0;
  std::map<SegmentId, std::string> obstacles_;  // why each of these is not stored yet
  bool stopping_ = false;
  bool over_ = false;      // stopping, or fenced: nothing more is sent
  bool unwaited_ = false;  // stop_waiting() was called

  Signal wake_;      // workers, and uploads that wait for miners
  Signal progress_;  // wait_remote()
  TaskGroup tasks_;
};

}  // namespace cumulus
