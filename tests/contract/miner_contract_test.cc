// The real transport and the real miner keep the contract together: TCP, TLS, bundles and index on a real
// disk.
#include <filesystem>

#include "netclient/tcp_transport.h"
#include "objectstore/crypto/tls_identity.h"
#include "objectstore/io/uring_file_system.h"
#include "tests/contract/slice_transport_contract.h"
#include "tests/fakes/sample_formats.h"
#include "tools/miner/miner.h"

namespace cumulus {
namespace {

class MinerHarness final : public TransportHarness {
 public:
  MinerHarness() {
    root_ = std::filesystem::temp_directory_path() / ("miner_contract_" + std::to_string(::getpid()));
    std::filesystem::remove_all(root_);
    reactor_.run(begin());
  }
  ~MinerHarness() override { std::filesystem::remove_all(root_); }

  Runtime& runtime() override { return reactor_; }
  void run(Task<void> body) override { reactor_.run(std::move(body)); }
  SliceTransport& transport(std::uint8_t owner) override { return *transports_[owner - 1]; }
  Task<void> stop_miner(std::size_t at) override {
    co_await miners_[at]->close();
    miners_[at].reset();
  }
  Task<void> start_miner(std::size_t at) override {
    MinerOptions options;
    options.server.port = ports_[at];
    options.server.goodbye_timeout = std::chrono::milliseconds(100);
    auto miner = co_await Miner::start(reactor_, *files_, directory(at), options);
    if (!miner) ADD_FAILURE() << miner.error().message();
    miners_[at] = *std::move(miner);
    ports_[at] = miners_[at]->port();
  }
  Task<void> tear_down() override {
    for (auto& transport : transports_) co_await transport->close();
    for (auto& miner : miners_) {
      if (miner) co_await miner->close();
    }
  }

 private:
  std::string directory(std::size_t at) const { return root_ + "/" + std::to_string(at); }

  Task<void> begin() {
    std::vector<MinerEntry> entries;
    for (std::size_t i = 0; i < 3; ++i) {
      MinerDirectory place(*files_, directory(i));
      MinerConfig config;
      config.capacity = 1 << 30;
      MinerDirectory::Seed seed;
      reactor_.random().fill(seed);
      EXPECT_TRUE(co_await place.create(config, seed));
      std::map<VolumeId, std::uint64_t> quotas;
      quotas[sample_volume(1)] = 1 << 29;
      quotas[sample_volume(2)] = 1 << 29;
      const std::string text = AllowList::print(quotas);
      const ByteView view = view_of(text);
      Bytes content(view.begin(), view.end());
      EXPECT_TRUE(co_await files_->replace_file(place.allow_path(), std::move(content)));
      co_await start_miner(i);
      MinerEntry entry;
      entry.id = miners_[i]->id();
      entry.address = miners_[i]->endpoint();
      entry.domain = "d";
      entries.push_back(entry);
    }
    for (std::uint8_t owner = 1; owner <= 2; ++owner) {
      TransportIdentity identity;
      identity.tls_seed.fill(static_cast<std::uint8_t>(100 + owner));
      identity.grant.volume = sample_volume(owner);
      identity.grant.tls_public_key = TlsIdentity::from_seed(identity.tls_seed).public_key();
      wire::sign_grant(identity.grant, sample_key(owner));
      identity.software = "contract test";
      transports_[owner - 1] = std::move(*make_tcp_transport(reactor_, identity, entries));
    }
  }

  std::string root_;
  Reactor reactor_{2};
  std::unique_ptr<FileSystem> files_ = make_uring_file_system(reactor_);
  std::array<std::unique_ptr<Miner>, 3> miners_;
  std::array<std::uint16_t, 3> ports_{};
  std::array<std::unique_ptr<TcpTransport>, 2> transports_;
};

INSTANTIATE_TEST_SUITE_P(Miner, SliceTransportContract,
                         ::testing::Values(HarnessFactory{"miner",
                                                          [] { return std::make_unique<MinerHarness>(); }}));

}  // namespace
}  // namespace cumulus
