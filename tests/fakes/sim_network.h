// SimNetwork and FakeTransport: the port to the miners over SimMiners, on a Runtime's (usually virtual) time.
// Messages are delayed and so reordered, lost, duplicated; miners are dead, restarted, slow, or cut off from
// one client and not from another. Everything is drawn from the runtime's seeded randomness, so a seed
// replays a run.
//
// One SimNetwork for a run; one FakeTransport for each client home. Reactor thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "objectstore/io/runtime.h"
#include "objectstore/io/sync.h"
#include "objectstore/slice_transport.h"
#include "tests/fakes/sim_miner.h"

namespace cumulus {

// How messages travel. Shares are of 1000 messages.
struct SimWeather {
  Duration delay_min = std::chrono::microseconds(100);
  Duration delay_max = std::chrono::milliseconds(2);
  unsigned slow_share = 0;  // messages that take up to `slow_max` instead
  Duration slow_max = std::chrono::seconds(2);
  unsigned request_lost = 0;
  unsigned answer_lost = 0;
  unsigned duplicated = 0;  // requests that are carried out a second time, later
  Duration duplicate_after_max = std::chrono::seconds(5);
};

class SimNetwork {
 public:
  // `miner_count` miners with ids, domains ("d1" ...) and addresses of their own.
  SimNetwork(Runtime& runtime, std::size_t miner_count, std::uint64_t capacity_each);
  ~SimNetwork();

  std::size_t size() const { return hosts_.size(); }
  SimMiner& miner(std::size_t at) { return *hosts_[at].miner; }
  const std::vector<MinerEntry>& entries() const { return entries_; }

  void set_weather(SimWeather weather) { weather_ = weather; }
  // kill -9: what it was working on may or may not have happened; nobody hears.
  void kill(std::size_t at);
  void start(std::size_t at);
  bool alive(std::size_t at) const { return hosts_[at].alive; }
  // A dead miner refuses connections at once; a silent one answers nothing until it is started.
  void set_silent(std::size_t at, bool silent) { hosts_[at].silent = silent; }
  // Disk time for each request and each MiB of it.
  void set_speed(std::size_t at, Duration for_each_request, Duration for_each_mib);
  void cut(std::size_t client, std::size_t at) { cuts_.insert({client, at}); }
  void mend(std::size_t client, std::size_t at) { cuts_.erase({client, at}); }
  void cut_all(std::size_t client);
  void mend_all() { cuts_.clear(); }
  // Another process answers at this miner's address.
  void set_impostor(std::size_t at, bool value) { hosts_[at].impostor = value; }

  const SimFaultCounts& faults() const { return faults_; }
  // "request_lost 3, full 1": the counters that are not zero.
  std::string faults_text() const;
  // Waits until no message is on its way (late duplicates included). Call before destruction.
  Task<void> settle() { return carried_.join(); }

 private:
  friend class FakeTransport;
  struct Host {
    std::unique_ptr<SimMiner> miner;
    bool alive = true;
    bool silent = false;
    bool impostor = false;
    std::uint64_t incarnation = 1;
    Duration for_each_request = std::chrono::microseconds(50);
    Duration for_each_mib = std::chrono::milliseconds(5);
    TimePoint busy_until{};
  };
  Host* find(const MinerId& id);
  std::size_t index_of(const Host& host) const { return static_cast<std::size_t>(&host - hosts_.data()); }
  Duration draw_delay();
  bool happens(unsigned share) { return share != 0 && runtime_.random().below(1000) < share; }
  void count(SimFault fault) { ++faults_[static_cast<std::size_t>(fault)]; }
  // Sends, works, sends back. `work` runs zero, one or two times, each time at once and whole; `answered`
  // runs at most once.
  Task<void> carry(Host& host, std::size_t client, std::uint64_t size,
                   std::shared_ptr<std::function<void()>> work,
                   std::shared_ptr<std::function<void()>> answered);
  // True when the miner finished the work and lives.
  Task<bool> serve(Host& host, std::uint64_t size, std::function<void()>& work);

  Runtime& runtime_;
  SimFaultCounts faults_{};
  std::vector<Host> hosts_;
  std::vector<MinerEntry> entries_;
  SimWeather weather_;
  std::set<std::pair<std::size_t, std::size_t>> cuts_;  // client, miner
  TaskGroup carried_;
};

class FakeTransport : public SliceTransport {
 public:
  // `client` numbers the home in cuts.
  FakeTransport(Runtime& runtime, SimNetwork& network, std::size_t client, VolumeId volume);
  ~FakeTransport() override;

  const std::vector<MinerEntry>& miners() const override { return miners_; }
  void set_miners(std::vector<MinerEntry> miners) override { miners_ = std::move(miners); }
  Task<Status> put(MinerId miner, SlicePut request, TimePoint deadline) override;
  Task<Result<SliceReadAnswer>> read(MinerId miner, SliceRead request, TimePoint deadline) override;
  Task<Result<SliceListPage>> list(MinerId miner, std::optional<Bytes> from, TimePoint deadline) override;
  Task<Result<std::vector<std::optional<Digest>>>> have(MinerId miner, std::vector<SliceId> slices,
                                                        TimePoint deadline) override;
  Task<Status> remove(MinerId miner, std::vector<SliceId> slices, TimePoint deadline) override;
  Task<Result<HolderAnswer>> promise(MinerId miner, BallotClaim claim, TimePoint deadline) override;
  Task<Result<HolderAnswer>> accept(MinerId miner, Superblock record, TimePoint deadline) override;
  Task<Result<HolderState>> superblock(MinerId miner, TimePoint deadline) override;
  Task<Result<SliceReadAnswer>> challenge(MinerId miner, SliceChallenge request, TimePoint deadline) override;
  Task<Result<MinerStatus>> status(MinerId miner, TimePoint deadline) override;
  void try_now() override {}  // it remembers no failures
  void interrupt(Calls which) override;
  void interrupt_reads(const void* owner) override;
  Duration expected_latency(MinerId miner) const override;
  Task<void> close() override;
  // As the real one does for a while after a failure: calls to a dead miner fail before they return a first
  // time.
  void refuse_at_once(bool value) { refuse_at_once_ = value; }
  std::size_t under_way() const { return waiting_.size(); }
  std::size_t puts_under_way() const { return puts_; }

 private:
  struct Waiting;
  // One exchange: `work` on the miner, its value here, by the deadline. T is a Result or Status.
  template <class T>
  using Work = std::function<T(SimMiner&)>;
  using Outcome = Result<SimMiner::ReadOutcome>;
  template <class T>
  Task<T> call(MinerId miner, std::uint64_t size, TimePoint deadline, Work<T> work, Calls kind = Calls::asked,
               const void* owner = nullptr);
  static Result<SliceReadAnswer> answer_of(Outcome outcome, const SliceRead& request);
  void note_latency(const MinerId& miner, Duration took, bool good);

  Runtime& runtime_;
  SimNetwork& network_;
  std::size_t client_;
  VolumeId volume_;
  std::vector<MinerEntry> miners_;
  std::map<MinerId, Duration> latency_;
  std::set<Waiting*> waiting_;
  std::size_t puts_ = 0;
  Signal idle_;
  bool closed_ = false;
  bool refuse_at_once_ = false;
};

}  // namespace cumulus
