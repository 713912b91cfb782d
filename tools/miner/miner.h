// Miner: one storage node, put together: directory, store, holders, allow list, server, scrub, metrics,
// control socket. What `cumulus-miner run` runs, and what tests start on a loopback port. Reactor thread.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "objectstore/base/metrics.h"
#include "objectstore/io/file.h"
#include "objectstore/io/runtime.h"
#include "tools/miner/control_server.h"
#include "tools/miner/metrics_server.h"
#include "tools/miner/miner_directory.h"
#include "tools/miner/scrubber.h"
#include "tools/miner/server/miner_server.h"

namespace cumulus {

struct MinerOptions {
  MinerServerOptions server;
  std::optional<std::uint64_t> open_quota;  // admit every volume, each with this quota
  std::size_t open_volumes_max = RequestHandler::kOpenVolumesMax;
  std::optional<std::pair<std::string, std::uint16_t>> metrics;  // address and port
  bool control = true;                                           // DIR/control.sock
};

class Miner {
 public:
  // Takes DIR's lock, replays, listens. The runtime and the file system must outlive it.
  static Task<Result<std::unique_ptr<Miner>>> start(Runtime& runtime, FileSystem& files,
                                                    std::string directory, MinerOptions options);
  // Stops serving: what was received is answered. Call once, before destruction.
  Task<void> close();

  const MinerId& id() const { return id_; }
  std::string endpoint() const { return server_->endpoint(); }
  std::uint16_t port() const { return server_->port(); }
  SliceStore& store() { return *store_; }
  HolderBook& holders() { return *holders_; }
  MinerServer& server() { return *server_; }
  Scrubber& scrubber() { return *scrubber_; }
  Metrics& metrics() { return metrics_; }
  bool draining() const { return condition_.draining; }

  // Re-reads the allow list and the configuration's draining mark.
  Task<Status> reload();
  std::string status_json() const;

 private:
  Miner(Runtime& runtime, FileSystem& files, std::string directory, DirectoryLock lock)
      : runtime_(runtime), files_(files), directory_(files, std::move(directory)), lock_(std::move(lock)) {}
  Task<Status> assemble(MinerOptions options);

  Runtime& runtime_;
  FileSystem& files_;
  Metrics metrics_;
  MinerDirectory directory_;
  DirectoryLock lock_;
  MinerConfig config_;
  MinerId id_;
  MinerCondition condition_;
  std::unique_ptr<SliceStore> store_;
  std::unique_ptr<HolderBook> holders_;
  std::unique_ptr<AllowList> allowed_;
  std::unique_ptr<RequestHandler> handler_;
  std::unique_ptr<MinerServer> server_;
  std::unique_ptr<Scrubber> scrubber_;
  std::unique_ptr<ControlServer> control_;
  std::unique_ptr<MetricsServer> metrics_server_;
};

// The store of DIR without serving, for commands while no daemon runs. Close it.
Task<Result<std::unique_ptr<SliceStore>>> open_miner_store(Runtime& runtime, FileSystem& files,
                                                           MinerDirectory& directory, Metrics& metrics);

}  // namespace cumulus
