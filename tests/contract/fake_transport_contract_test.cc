// The simulated network keeps the transport's contract, so that what is proved on it holds on the real one.
#include "objectstore/io/reactor.h"
#include "tests/contract/slice_transport_contract.h"
#include "tests/fakes/sample_formats.h"
#include "tests/fakes/sim_network.h"

namespace cumulus {
namespace {

class FakeHarness final : public TransportHarness {
 public:
  FakeHarness() {
    SimWeather weather;
    weather.delay_max = std::chrono::microseconds(300);
    network_.set_weather(weather);
    for (std::size_t at = 0; at < network_.size(); ++at) {
      network_.miner(at).set_page_slices(7);
      network_.miner(at).allow_only({sample_volume(1), sample_volume(2)});
    }
  }
  Runtime& runtime() override { return reactor_; }
  void run(Task<void> body) override { reactor_.run(std::move(body)); }
  SliceTransport& transport(std::uint8_t owner) override { return owner == 1 ? first_ : second_; }
  Task<void> stop_miner(std::size_t at) override {
    network_.kill(at);
    co_return;
  }
  Task<void> start_miner(std::size_t at) override {
    network_.start(at);
    co_return;
  }
  Task<void> tear_down() override {
    co_await first_.close();
    co_await second_.close();
    co_await network_.settle();
  }

 private:
  Reactor reactor_{0};
  SimNetwork network_{reactor_, 3, 1 << 30};
  FakeTransport first_{reactor_, network_, 1, sample_volume(1)};
  FakeTransport second_{reactor_, network_, 2, sample_volume(2)};
};

INSTANTIATE_TEST_SUITE_P(Fake, SliceTransportContract,
                         ::testing::Values(HarnessFactory{"fake",
                                                          [] { return std::make_unique<FakeHarness>(); }}));

}  // namespace
}  // namespace cumulus
