// Server: the exports of one volume on one socket. Accepts, bounds, and ends connections; opens an export's
// device once for all its connections. Reactor thread; close() before it is destroyed.
#pragma once

#include <functional>
#include <list>
#include <map>

#include "blockdev/nbd/connection.h"

namespace cumulus::nbd {

// "10.0.0.0/8", "::1"; a client from elsewhere is turned away. Unix sockets are guarded by their file's mode.
class AllowList {
 public:
  Status add(const std::string& cidr);
  // `address` as 16 bytes, IPv4 mapped into IPv6. An empty list allows everybody.
  bool allows(const std::array<std::uint8_t, 16>& address) const;

 private:
  struct Range {
    std::array<std::uint8_t, 16> address{};
    unsigned bits = 0;
  };
  std::vector<Range> ranges_;
};

struct ServerOptions {
  std::string image;  // empty: all images of the volume, each under its own name
  bool read_only = false;
  // Changes are answered when they survive the end of this process: a client that connects again after one
  // that was killed, and then flushes, has lost nothing that was answered before.
  bool reconnect_safe = false;
  bool unfinished = false;  // serves images whose import is not finished too: for the import itself
  AllowList allowed;
  std::shared_ptr<TlsSettings> tls;  // null: none
  Limits limits;
  std::shared_ptr<Memory> memory;  // null: 64 MiB of its own
  // Asked before a writable export's first connection: the reason to refuse, when someone else holds it.
  std::function<Status(DatasetId, const std::string& image)> may_attach;
};

class Server final : public Host {
 public:
  Server(Runtime& runtime, Volume& volume, ServerOptions options);
  ~Server() override;

  // A path that a living server listens on is refused (exists); a stale socket is replaced.
  Status listen_unix(const std::string& path);
  Status listen_tcp(const std::string& address);  // ADDR:PORT, [ADDR]:PORT; port 0: any
  // Instead of listening: serves the one client at the other end of `socket`, which is its own from now on.
  void adopt(int socket, std::string peer);
  const std::string& where() const { return where_; }
  void start();
  // Stops accepting, asks every connection to end.
  void end();
  // end(), lets what is in flight finish, closes.
  Task<void> close();

  // True while a writable device on it is open here.
  bool writes(DatasetId dataset) const;
  struct Client {
    std::string peer;
    std::string image;
  };
  std::vector<Client> clients() const;
  const ServerOptions& options() const { return options_; }

  // --- Host ---
  std::vector<std::string> export_names() const override;
  Task<Result<std::shared_ptr<BlockDevice>>> open_export(std::string name, std::string peer) override;
  std::shared_ptr<TlsSettings> tls() const override { return options_.tls; }

 private:
  Task<void> accept_loop();
  Task<void> serve(std::shared_ptr<Connection> connection);
  void admit(int socket, std::string peer);

  Runtime& runtime_;
  Volume& volume_;
  ServerOptions options_;
  Shared shared_;
  int listener_ = -1;
  std::unique_ptr<Readiness> readiness_;
  std::string where_;
  std::string unlink_;  // the unix socket's path
  bool closing_ = false;
  std::list<std::shared_ptr<Connection>> connections_;  // oldest first
  std::map<std::string, std::weak_ptr<BlockDevice>> devices_;
  TaskGroup tasks_;
};

}  // namespace cumulus::nbd
