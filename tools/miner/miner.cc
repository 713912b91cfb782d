#include "tools/miner/miner.h"

#include <nlohmann/json.hpp>

#include "objectstore/base/log.h"
#include "objectstore/crypto/tls_identity.h"
#include "tools/miner/store/rocks_slice_index.h"

namespace cumulus {

Task<Result<std::unique_ptr<SliceStore>>> open_miner_store(Runtime& runtime, FileSystem& files,
                                                           MinerDirectory& directory, Metrics& metrics) {
  CO_TRY(const MinerConfig config, co_await directory.config());
  const std::string path = directory.index_path();
  auto index = co_await runtime.offload([&path] {
    auto opened = open_rocks_slice_index(path);
    if (opened || opened.error().kind() != ErrorKind::corrupt) return opened;
    log_error("{}; rebuilding it from the bundles", opened.error().message());
    if (const Status discarded = discard_rocks_slice_index(path); !discarded)
      return Result<std::unique_ptr<SliceIndex>>(fail(discarded.error()));
    return open_rocks_slice_index(path);
  });
  if (!index) co_return fail(index.error());
  SliceStoreOptions options;
  options.directory = directory.path();
  options.secret = config.secret;
  options.capacity = config.capacity;
  options.bundle_size = bundle_size_for(config.capacity);
  options.free_min = std::min<std::uint64_t>(options.free_min, config.capacity / 16);
  co_return co_await SliceStore::open(runtime, files, *std::move(index), metrics, options);
}

Task<Result<std::unique_ptr<Miner>>> Miner::start(Runtime& runtime, FileSystem& files, std::string directory,
                                                  MinerOptions options) {
  {
    MinerDirectory place(files, directory);
    CO_TRY_OK(
        co_await place.config());  // says that it is no miner's directory before a lock file is made in it
  }
  CO_TRY(auto lock, DirectoryLock::take(directory));
  std::unique_ptr<Miner> miner(new Miner(runtime, files, std::move(directory), std::move(lock)));
  const Status assembled = co_await miner->assemble(std::move(options));
  if (!assembled) {
    co_await miner->close();
    co_return fail(assembled.error());
  }
  co_return miner;
}

Task<Status> Miner::assemble(MinerOptions options) {
  CO_TRY(config_, co_await directory_.config());
  condition_.draining = config_.draining;
  CO_TRY(const auto seed, co_await directory_.identity_seed());
  const TlsIdentity identity = TlsIdentity::from_seed(seed);
  id_.bytes = identity.public_key();
  CO_TRY(auto context, wire::TlsContext::make(identity));

  CO_TRY(store_, co_await open_miner_store(runtime_, files_, directory_, metrics_));
  CO_TRY_OK(files_.create_directories(directory_.holders_path()));
  CO_TRY_OK(co_await files_.sync_directory(directory_.path()));
  holders_ = std::make_unique<HolderBook>(runtime_, files_, directory_.holders_path());
  allowed_ = std::make_unique<AllowList>(files_, directory_.allow_path(), options.open_quota);
  CO_TRY_OK(co_await allowed_->reload());
  handler_ = std::make_unique<RequestHandler>(*store_, *holders_, *allowed_, condition_,
                                              options.server.software, options.open_volumes_max);
  scrubber_ = std::make_unique<Scrubber>(runtime_, *store_, metrics_, config_.scrub_rate);
  server_ = std::make_unique<MinerServer>(runtime_, *handler_, *allowed_, std::move(context), metrics_,
                                          options.server);
  if (options.metrics) {
    metrics_server_ = std::make_unique<MetricsServer>(runtime_, metrics_);
    CO_TRY_OK(metrics_server_->listen(options.metrics->first, options.metrics->second));
  }
  if (options.control) {
    control_ = std::make_unique<ControlServer>(runtime_, *this, directory_.path());
    CO_TRY_OK(control_->listen());
  }
  CO_TRY_OK(server_->listen());
  scrubber_->start();
  metrics_.counter("cumulus_miner_capacity_bytes").set(config_.capacity);
  metrics_.counter("cumulus_miner_draining").set(config_.draining ? 1 : 0);
  co_return Status();
}

Task<void> Miner::close() {
  if (store_) store_->end_retries();  // the server waits for its puts
  if (server_) co_await server_->close();
  if (scrubber_) co_await scrubber_->close();
  if (control_) co_await control_->close();
  if (metrics_server_) co_await metrics_server_->close();
  if (store_) co_await store_->close();
}

Task<Status> Miner::reload() {
  CO_TRY_OK(co_await allowed_->reload());
  CO_TRY(const MinerConfig fresh, co_await directory_.config());
  condition_.draining = config_.draining = fresh.draining;
  metrics_.counter("cumulus_miner_draining").set(config_.draining ? 1 : 0);
  co_return Status();
}

std::string Miner::status_json() const {
  const StoreTotals totals = store_->totals();
  const auto counters = metrics_.snapshot();
  const auto count = [&](const char* name) {
    const auto found = counters.find(name);
    return found == counters.end() ? 0 : found->second;
  };
  const nlohmann::json status{{"running", true},
                              {"listen", server_->endpoint()},
                              {"identity", id_.hex()},
                              {"capacity", store_->capacity()},
                              {"used", totals.used},
                              {"live", totals.live},
                              {"slices", totals.slices},
                              {"volumes", totals.volumes},
                              {"bundles", totals.bundles},
                              {"allowed_volumes", allowed_->size()},
                              {"connections", server_->connections()},
                              {"draining", condition_.draining},
                              {"read_only", store_->write_failed()},
                              {"rotten_found", count("cumulus_miner_rotten_slices_found_total")},
                              {"scrub_rounds", count("cumulus_miner_scrub_rounds_total")}};
  return status.dump();
}

}  // namespace cumulus
