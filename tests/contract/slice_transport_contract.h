// What every SliceTransport must do, the simulated and the real one alike. A program that has one includes
// this, compiles slice_transport_contract.cc in and instantiates the suite with a factory for its harness:
//   INSTANTIATE_TEST_SUITE_P(Fake, SliceTransportContract, ::testing::Values(HarnessFactory{"fake", make}));
#pragma once

#include <functional>
#include <gtest/gtest.h>
#include <memory>
#include <ostream>
#include <string>

#include "objectstore/io/runtime.h"
#include "objectstore/slice_transport.h"

namespace cumulus {

// Three miners, empty at first, that allow the volumes of sample_key(1) and sample_key(2), and a transport
// for each of the two. Miners keep what they have across stop and start.
class TransportHarness {
 public:
  virtual ~TransportHarness() = default;
  virtual Runtime& runtime() = 0;
  virtual void run(Task<void> body) = 0;  // on the reactor, until done
  virtual SliceTransport& transport(std::uint8_t owner = 1) = 0;
  virtual Task<void> stop_miner(std::size_t at) = 0;  // as a crash
  virtual Task<void> start_miner(std::size_t at) = 0;
  // Closes both transports (if not closed) and all miners: called last, inside run().
  virtual Task<void> tear_down() = 0;
};

struct HarnessFactory {
  std::string name;
  std::function<std::unique_ptr<TransportHarness>()> make;
};
inline std::ostream& operator<<(std::ostream& out, const HarnessFactory& factory) {
  return out << factory.name;
}

class SliceTransportContract : public ::testing::TestWithParam<HarnessFactory> {
 protected:
  void SetUp() override { harness_ = GetParam().make(); }
  // Runs a test's body, then the harness's end.
  void run(std::function<Task<void>()> body);

  MinerId miner(std::size_t at) { return harness_->transport().miners().at(at).id; }
  TimePoint soon() { return harness_->runtime().now() + std::chrono::seconds(10); }
  SliceTransport& transport() { return harness_->transport(); }

  std::unique_ptr<TransportHarness> harness_;
};

}  // namespace cumulus
