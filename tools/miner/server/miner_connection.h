// MinerConnection: one client's TLS stream: its handshake and HELLO, the loop that reads requests, and the
// answers that leave as they get ready, in any order. Acts for at most one volume: the one its grant names.
// Reactor thread.
#pragma once

#include "tools/miner/server/miner_server.h"

namespace cumulus {

class MinerConnection {
 public:
  MinerConnection(MinerServer& server, wire::TcpSocket socket);
  ~MinerConnection();

  // Until the client leaves, errs or is cut off; all its requests are done when it returns.
  Task<void> run();
  // Reads no more; answers what it has, then ends.
  void say_goodbye();
  void cut() { stream_.shut(); }

 private:
  class Watchdog;
  struct Received {
    MinerRequest request;
    Semaphore::Hold turn;
    Semaphore::Hold own_bytes;  // of the payload
    Semaphore::Hold tenants_bytes;
    Semaphore::Hold all_bytes;
    Semaphore::Hold own_answer;
    Semaphore::Hold tenants_answer;
    Semaphore::Hold all_answers;
    TimePoint deadline = TimePoint::max();
  };

  Task<Status> hello();
  Task<Result<wire::HelloAnswer>> admit(wire::HelloRequest message);
  Task<Status> check_grant(const wire::Grant& grant);
  Task<Status> read_requests();
  // A whole request, with room for it and for its answer: the client waits here when there is none.
  Task<Result<Received>> receive();
  Task<Status> receive_payload(Received& received);
  Task<Status> skip(std::uint32_t length);
  Task<void> answer(Received received);
  Task<void> send(MinerAnswer answer);
  Duration transfer_time(std::uint64_t bytes) const;

  MinerServer& server_;
  Runtime& runtime_;
  wire::TlsStream stream_;
  std::optional<VolumeId> volume_;
  std::uint32_t rights_ = 0;
  bool leaving_ = false;
  Semaphore requests_;
  Semaphore put_bytes_;
  Semaphore answer_bytes_;
  Semaphore writing_;
  std::shared_ptr<MinerServer::Tenant> tenant_;
  TaskGroup tasks_;
};

}  // namespace cumulus
