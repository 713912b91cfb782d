// The real transport keeps its contract over real sockets and TLS, against simulated miners behind a wire
// server.
#include "netclient/tcp_transport.h"
#include "objectstore/crypto/tls_identity.h"
#include "objectstore/io/reactor.h"
#include "tests/contract/slice_transport_contract.h"
#include "tests/fakes/sample_formats.h"
#include "tests/fakes/wire_miner.h"

namespace cumulus {
namespace {

std::unique_ptr<TcpTransport> transport_of(Reactor& reactor, std::uint8_t owner,
                                           const std::vector<MinerEntry>& miners) {
  TransportIdentity identity;
  identity.tls_seed = WireMiner::seed_of(static_cast<std::uint8_t>(100 + owner));
  identity.grant.volume = sample_volume(owner);
  identity.grant.tls_public_key = TlsIdentity::from_seed(identity.tls_seed).public_key();
  wire::sign_grant(identity.grant, sample_key(owner));
  identity.software = "contract test";
  return std::move(*make_tcp_transport(reactor, identity, miners));
}

class TcpHarness final : public TransportHarness {
 public:
  TcpHarness() {
    for (std::uint8_t i = 0; i < 3; ++i) {
      const auto seed = static_cast<std::uint8_t>(i + 1);
      miners_[i] =
          std::make_unique<SimMiner>(WireMiner::identity_of(seed), 1 << 30, reactor_.random(), faults_);
      miners_[i]->set_page_slices(7);
      servers_[i] = std::make_unique<WireMiner>(reactor_, seed, *miners_[i]);
      servers_[i]->start();
      entries_.push_back({miners_[i]->id(), servers_[i]->address(), "d", 0, 1.0});
    }
    first_ = transport_of(reactor_, 1, entries_);
    second_ = transport_of(reactor_, 2, entries_);
  }
  Runtime& runtime() override { return reactor_; }
  void run(Task<void> body) override { reactor_.run(std::move(body)); }
  SliceTransport& transport(std::uint8_t owner) override { return owner == 1 ? *first_ : *second_; }
  Task<void> stop_miner(std::size_t at) override {
    co_await servers_[at]->stop();
    stopped_.insert(at);
  }
  Task<void> start_miner(std::size_t at) override {
    servers_[at]->start(servers_[at]->port());
    stopped_.erase(at);
    co_return;
  }
  Task<void> tear_down() override {
    co_await first_->close();
    co_await second_->close();
    for (const auto& server : servers_) co_await server->stop();
  }

 private:
  Reactor reactor_{1};
  SimFaultCounts faults_{};
  std::array<std::unique_ptr<SimMiner>, 3> miners_;
  std::array<std::unique_ptr<WireMiner>, 3> servers_;
  std::set<std::size_t> stopped_;
  std::vector<MinerEntry> entries_;
  std::unique_ptr<TcpTransport> first_;
  std::unique_ptr<TcpTransport> second_;
};

INSTANTIATE_TEST_SUITE_P(Tcp, SliceTransportContract,
                         ::testing::Values(HarnessFactory{"tcp",
                                                          [] { return std::make_unique<TcpHarness>(); }}));

}  // namespace
}  // namespace cumulus
