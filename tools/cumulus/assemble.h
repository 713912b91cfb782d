// Assemble: the whole stack of one volume, put together in one place. Whoever is above sees only Volume.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "netclient/tcp_transport.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/io/reactor.h"
#include "objectstore/io/uring_file_system.h"
#include "objectstore/object_store.h"
#include "tools/cumulus/home.h"

namespace cumulus {

// How the volume is opened: what the starting command asks of the daemon.
struct OpenRequest {
  enum class Kind : std::uint8_t { open, create, recover, destroy };
  Kind kind = Kind::open;
  bool steal = false;
  bool accept_loss = false;
  VolumeShape shape;
  std::string passphrase;
  bool has_passphrase = false;

  Json to_json() const;
  static Result<OpenRequest> from_json(const Json& json);
};

// Everything that a volume's daemon owns, in the order in which it is taken down.
class Stack {
 public:
  // Reads key, settings and miners from the volume's folder. The reactor outlives the stack.
  static Task<Result<std::unique_ptr<Stack>>> assemble(Reactor& reactor, Home home, std::string name,
                                                       OpenRequest request, Progress progress);
  // Ends the volume instead of opening it: see Volume::destroy().
  static Task<Result<std::vector<std::string>>> destroy(Reactor& reactor, Home home, std::string name,
                                                        OpenRequest request, Progress progress);
  Task<Status> close();

  Volume& volume() { return *volume_; }
  Metrics& metrics() { return metrics_; }
  const KeyTree& keys() const { return *keys_; }
  VolumeSettings& settings() { return settings_; }

 private:
  // All but the volume.
  static Task<Result<std::unique_ptr<Stack>>> lay_ground(Reactor& reactor, Home home, std::string name,
                                                         OpenRequest request);
  VolumeParts parts(Reactor& reactor, std::string directory);

  VolumeSettings settings_;
  Metrics metrics_;
  std::unique_ptr<FileSystem> disk_;
  std::unique_ptr<KeyTree> keys_;
  std::unique_ptr<TcpTransport> transport_;
  std::unique_ptr<Volume> volume_;
};

}  // namespace cumulus
