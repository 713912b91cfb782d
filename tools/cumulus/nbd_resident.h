// NbdResident: one NBD server living in a volume's daemon. Owns itself until stop() has ended it. Reactor
// thread.
#pragma once

#include <memory>
#include <string>

#include "blockdev/nbd/server.h"
#include "tools/cumulus/residents.h"

namespace cumulus {

struct NbdRequest {
  std::string image;     // empty: all images
  std::string snapshot;  // of `connected`: the only one that it wants
  std::string socket;    // or
  std::string listen;    // or
  int connected = -1;    // a client's socket, instead of an address; owned by start() from the call on
  std::string tls_certificates;
  std::string tls_psk;
  std::vector<std::string> allow;
  bool read_only = false;
  bool reconnect_safe = false;
  bool replace = false;

  // Only the command that imports an image may have it before it is whole.
  bool imports() const { return connected >= 0 && !read_only; }
  static Result<NbdRequest> from_json(const Json& json);
};

class NbdResident final : public Resident {
 public:
  // Serves when it returns. exists: the image is attached elsewhere, named with address and pid.
  // Shares `memory_max` bytes for its clients' requests with the others of this daemon.
  static Task<Result<std::shared_ptr<NbdResident>>> start(Runtime& runtime, Volume& volume,
                                                          Residents& residents, std::string volume_name,
                                                          NbdRequest request, std::uint64_t memory_max);
  ~NbdResident() override;

  std::string kind() const override { return "nbd"; }
  Json describe() const override;
  bool holds(DatasetId dataset) const override;
  Task<Status> write_out() override;
  void begin_stop() override { server_->end(); }
  Task<void> stop() override;

  const std::string& image() const { return request_.image; }
  const std::string& address() const { return server_->where(); }
  std::uint64_t number() const { return number_; }
  bool stopped() const { return stopped_; }
  // The address of the server that took its place; empty: none did.
  const std::string& replaced_by() const { return replaced_by_; }
  std::shared_ptr<NbdResident> share() const { return self_; }
  Task<void> ended();

 private:
  NbdResident(Runtime& runtime, Volume& volume, Residents& residents, std::string volume_name,
              NbdRequest request);
  Status open(Runtime& runtime, std::uint64_t memory_max);

  Volume& volume_;
  Residents& residents_;
  std::string volume_name_;
  NbdRequest request_;
  std::shared_ptr<nbd::Memory> memory_;
  std::unique_ptr<nbd::Server> server_;
  const std::uint64_t number_;
  std::string replaced_by_;
  bool stopping_ = false;
  bool stopped_ = false;
  Signal changed_;
  std::shared_ptr<NbdResident> self_;
};

}  // namespace cumulus
