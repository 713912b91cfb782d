// MinerLink: everything about reaching one miner: its two connections (bulk and prompt), the windows before
// them, backoff between attempts, the one retry, and how long it usually takes to answer. Reactor thread;
// held by shared_ptr, because calls outlive a change of the miner list.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "netclient/connection.h"
#include "netclient/name_lookups.h"
#include "netclient/window.h"

namespace cumulus {

// What all links of one transport share.
struct LinkShared {
  Runtime& runtime;
  TaskGroup& tasks;
  NameLookups& names;
  std::shared_ptr<wire::TlsContext> tls;
  std::shared_ptr<Opening> opening;
  wire::HelloRequest hello;
  TransportOptions options;
};

class MinerLink : public std::enable_shared_from_this<MinerLink> {
 public:
  MinerLink(std::shared_ptr<const LinkShared> shared, MinerEntry entry);

  // Sends and waits for the answer, within the window, until `deadline`. `bytes` is the payload either way.
  // After success the exchange holds the answer; an error answer is returned as that error.
  Task<Status> call(std::shared_ptr<Exchange> exchange, std::size_t bytes, TimePoint deadline);

  const MinerEntry& entry() const { return entry_; }
  void set_entry(MinerEntry entry);
  Duration expected_latency() const { return latency_; }
  // The next call connects at once, however lately the last attempt failed.
  void try_now();
  // The calls that `which` is true for end with `closed`; connections stay.
  void interrupt(const std::function<bool(const Exchange&)>& which);
  // Ends connections and everything that waits; calls after it fail with closed.
  void shut();

 private:
  struct Lane {
    Lane(Runtime& runtime, const TransportOptions& options)
        : window(runtime, options.requests_in_flight_max, options.bytes_in_flight_max), changed(runtime) {}
    Window window;
    std::shared_ptr<Connection> connection;
    TimePoint connected_at;
    bool answered = false;  // the connection, a call
    bool connecting = false;
    unsigned failures = 0;  // in a row, since a connection answered
    TimePoint not_before;
    Error last_failure{ErrorKind::unavailable, "not connected yet"};
    Signal changed;
  };

  Task<Status> call_in_window(std::shared_ptr<Exchange> exchange, std::size_t bytes, TimePoint deadline);
  Task<Status> call_once(Lane& lane, std::shared_ptr<Exchange> exchange, TimePoint deadline, bool& broken);
  Task<Window::Hold> enter(Lane& lane, const Exchange& exchange, std::size_t bytes, TimePoint deadline);
  Task<Result<std::shared_ptr<Connection>>> connected(Lane& lane, const Exchange& exchange,
                                                      TimePoint deadline);
  Task<void> connect(Lane& lane);
  Task<Result<std::shared_ptr<Connection>>> open(std::string address, TimePoint deadline);
  Task<Result<wire::TcpSocket>> dial(std::string address, TimePoint deadline);
  void retire(Lane& lane);
  std::vector<std::shared_ptr<Connection>> connections() const;
  void note_failure(Lane& lane, Error why, TimePoint attempted);
  void note_answer(Lane& lane, const Connection& connection);
  void note_latency(Duration took, bool good);
  std::string name() const;

  std::shared_ptr<const LinkShared> shared_;
  MinerEntry entry_;
  Lane prompt_;
  Lane bulk_;
  std::vector<std::weak_ptr<Connection>> sent_away_;  // not in a lane any more; oldest first
  Duration latency_;
  bool shut_ = false;
  std::set<Exchange*> under_way_;
};

}  // namespace cumulus
