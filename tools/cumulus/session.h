// Session: the daemon's end of one command's connection. A Task reads frames ahead into a small bounded
// queue, so that a command that goes away is noticed while its work runs. Reactor thread.
#pragma once

#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <deque>
#include <optional>

#include "objectstore/io/sync.h"
#include "tools/cumulus/frame.h"
#include "tools/cumulus/home.h"

namespace cumulus {

class Session {
 public:
  using Socket = asio::basic_stream_socket<asio::local::stream_protocol, ReactorExecutor>;

  Session(Runtime& runtime, Socket socket);
  ~Session();

  void start(TaskGroup& tasks) { tasks.spawn(read_loop()); }
  struct Frame {
    FrameKind kind = FrameKind::end;
    Bytes body;
  };
  // closed: the command went away.
  Task<Result<Frame>> receive();
  // The bytes of the request's data frames, one after the other: fills `into`, less only where the end frame
  // came. Once the end was seen: 0. closed: the command went away first; invalid: a frame of another kind.
  // `into` outlives the task.
  Task<Result<std::size_t>> receive_data(MutableByteView into);
  Task<Status> send(FrameKind kind, ByteView body);
  Task<Status> send_json(Json json);
  // At most five a second; false when the command is gone, so that a Progress callback can return it.
  bool progress(std::uint64_t done, std::uint64_t total, const std::string& waiting_for = {});
  TimePoint silent_since() const { return progressed_; }  // since the last progress
  bool gone() const { return gone_; }
  // The descriptor that came with the request, now the caller's; -1: none.
  int take_descriptor() { return std::exchange(descriptor_, -1); }
  void end();  // shuts the socket down: the reader ends

 private:
  Task<void> read_loop();
  Task<bool> read_exactly(MutableByteView into);
  Task<bool> write_exactly(ByteView from);

  Runtime& runtime_;
  Socket socket_;
  int descriptor_ = -1;
  std::deque<Frame> frames_;
  Bytes data_;  // the data frame that receive_data() is in, taken up to data_at_
  std::size_t data_at_ = 0;
  bool data_ended_ = false;
  bool gone_ = false;
  Signal changed_;
  Semaphore sending_;
  TimePoint progressed_;
};

}  // namespace cumulus
