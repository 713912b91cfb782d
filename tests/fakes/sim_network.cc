#include "tests/fakes/sim_network.h"

#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;
constexpr const char* kFaultNames[] = {"request_lost",
                                       "answer_lost",
                                       "request_duplicated",
                                       "connection_refused",
                                       "cut_off",
                                       "crashed_inside",
                                       "full",
                                       "read_only",
                                       "wrong_bytes",
                                       "wrong_bytes_with_proof",
                                       "other_slice",
                                       "put_forgotten",
                                       "old_state",
                                       "rotten"};
static_assert(std::size(kFaultNames) == static_cast<std::size_t>(SimFault::count));

using Step = std::function<void()>;

}  // namespace

std::string_view to_string(SimFault fault) { return kFaultNames[static_cast<std::size_t>(fault)]; }

SimNetwork::SimNetwork(Runtime& runtime, std::size_t miner_count, std::uint64_t capacity_each)
    : runtime_(runtime), carried_(runtime) {
  hosts_.resize(miner_count);
  for (std::size_t i = 0; i < miner_count; ++i) {
    MinerEntry entry;
    entry.id.bytes.fill(static_cast<std::uint8_t>(i + 1));
    entry.address = format("10.0.0.{}:7300", i + 1);
    entry.domain = format("d{}", i + 1);
    entry.capacity = capacity_each;
    hosts_[i].miner = std::make_unique<SimMiner>(entry.id, capacity_each, runtime.random(), faults_);
    entries_.push_back(std::move(entry));
  }
}

SimNetwork::~SimNetwork() = default;

void SimNetwork::kill(std::size_t at) {
  hosts_[at].alive = false;
  ++hosts_[at].incarnation;
}

void SimNetwork::start(std::size_t at) {
  hosts_[at].alive = true;
  hosts_[at].silent = false;
  hosts_[at].busy_until = runtime_.now();
}

void SimNetwork::set_speed(std::size_t at, Duration for_each_request, Duration for_each_mib) {
  hosts_[at].for_each_request = for_each_request;
  hosts_[at].for_each_mib = for_each_mib;
}

void SimNetwork::cut_all(std::size_t client) {
  for (std::size_t at = 0; at < hosts_.size(); ++at) cut(client, at);
}

std::string SimNetwork::faults_text() const {
  std::string text;
  for (std::size_t i = 0; i < faults_.size(); ++i)
    if (faults_[i] != 0) text += format("{}{} {}", text.empty() ? "" : ", ", kFaultNames[i], faults_[i]);
  return text;
}

SimNetwork::Host* SimNetwork::find(const MinerId& id) {
  for (Host& host : hosts_)
    if (host.miner->id() == id) return &host;
  return nullptr;
}

Duration SimNetwork::draw_delay() {
  const Duration most = happens(weather_.slow_share) ? weather_.slow_max : weather_.delay_max;
  const Duration span = std::max(most - weather_.delay_min, Duration(1));
  return weather_.delay_min + Duration(static_cast<Duration::rep>(
                                  runtime_.random().below(static_cast<std::uint64_t>(span.count()))));
}

Task<bool> SimNetwork::serve(Host& host, std::uint64_t size, Step& work) {
  const std::uint64_t incarnation = host.incarnation;
  const auto cost = host.for_each_request +
                    host.for_each_mib * static_cast<Duration::rep>(size) / static_cast<Duration::rep>(kMiB);
  host.busy_until = std::max(host.busy_until, runtime_.now()) + cost;
  co_await runtime_.sleep_until(host.busy_until);
  const bool lived = host.alive && host.incarnation == incarnation;
  if (!lived) {
    count(SimFault::crashed_inside);
    // It died before or after the change was durable: either is possible, and nobody hears which.
    if (host.incarnation == incarnation + 1 && happens(500)) work();
    co_return false;
  }
  work();
  co_return true;
}

Task<void> SimNetwork::carry(Host& host, std::size_t client, std::uint64_t size, std::shared_ptr<Step> work,
                             std::shared_ptr<Step> answered) {
  const bool duplicated = happens(weather_.duplicated);
  co_await runtime_.sleep_for(draw_delay());
  const std::pair link(client, index_of(host));
  if (cuts_.contains(link)) {
    count(SimFault::cut_off);
    co_return;
  }
  if (happens(weather_.request_lost)) {
    count(SimFault::request_lost);
    co_return;
  }
  if (!host.alive || host.silent) co_return;
  const bool served = co_await serve(host, size, *work);
  if (duplicated) {
    count(SimFault::request_duplicated);
    const auto span = static_cast<std::uint64_t>(weather_.duplicate_after_max.count()) + 1;
    co_await runtime_.sleep_for(Duration(static_cast<Duration::rep>(runtime_.random().below(span))));
    if (host.alive && !host.silent) co_await serve(host, size, *work);
  }
  if (!served) co_return;
  if (happens(weather_.answer_lost)) {
    count(SimFault::answer_lost);
    co_return;
  }
  co_await runtime_.sleep_for(draw_delay());
  if (cuts_.contains(link))
    count(SimFault::cut_off);
  else
    (*answered)();
}

// --- the port ----------------------------------------------------------------------------------------------

struct FakeTransport::Waiting {
  Waiting(Runtime& runtime, Calls the_kind, const void* the_owner)
      : done(runtime), kind(the_kind), owner(the_owner) {}
  Signal done;
  const Calls kind;
  const void* const owner;  // of a read's memory
  bool answered = false;
  bool interrupted = false;
};

FakeTransport::FakeTransport(Runtime& runtime, SimNetwork& network, std::size_t client, VolumeId volume)
    : runtime_(runtime),
      network_(network),
      client_(client),
      volume_(volume),
      miners_(network.entries()),
      idle_(runtime) {}

FakeTransport::~FakeTransport() { CHECK(closed_ && waiting_.empty()); }

template <class T>
Task<T> FakeTransport::call(MinerId miner, std::uint64_t size, TimePoint deadline,
                            std::function<T(SimMiner&)> work, Calls kind, const void* owner) {
  if (closed_) co_return fail(ErrorKind::closed, "the transport was closed");
  SimNetwork::Host* host = network_.find(miner);
  const bool listed = std::ranges::find(miners_, miner, &MinerEntry::id) != miners_.end();
  if (host == nullptr || !listed)
    co_return fail(ErrorKind::unavailable, "miner " + miner.brief() + ": no such host");
  if (host->impostor)
    co_return fail(ErrorKind::denied, "miner " + miner.brief() + ": another identity answers at its address");
  const TimePoint begin = runtime_.now();
  if (!host->alive && !network_.cuts_.contains({client_, network_.index_of(*host)})) {
    network_.count(SimFault::connection_refused);
    if (!refuse_at_once_) co_await runtime_.sleep_until(std::min(deadline, begin + network_.draw_delay()));
    note_latency(miner, Duration{}, false);
    co_return fail(ErrorKind::unavailable, "miner " + miner.brief() + ": connection refused");
  }
  const auto waiting = std::make_shared<Waiting>(runtime_, kind, owner);
  const auto value = std::make_shared<std::optional<T>>();
  waiting_.insert(waiting.get());
  // The first answer counts; a late duplicate changes the miner, not what the caller sees.
  auto at_miner = std::make_shared<Step>([host, work = std::move(work), value] {
    T result = work(*host->miner);
    if (!*value) value->emplace(std::move(result));
  });
  auto back = std::make_shared<Step>([waiting] {
    waiting->answered = true;
    waiting->done.notify_all();
  });
  network_.carried_.spawn(network_.carry(*host, client_, size, std::move(at_miner), std::move(back)));
  while (!waiting->answered && !waiting->interrupted && !closed_) {
    if (!co_await waiting->done.wait_until(deadline)) break;
  }
  waiting_.erase(waiting.get());
  if (waiting_.empty()) idle_.notify_all();
  const bool good = waiting->answered && runtime_.now() <= deadline;
  const bool ended = closed_ || waiting->interrupted;
  if (good || !ended) note_latency(miner, runtime_.now() - begin, good);
  if (good) co_return std::move(**value);
  if (ended) co_return fail(ErrorKind::closed, "the transport was closed");
  co_return fail(ErrorKind::unavailable, "miner " + miner.brief() + ": no answer in time");
}

// Every piece of work has a name before it is awaited: GCC 12 destroys a capturing temporary of a co_await
// expression twice.
Task<Status> FakeTransport::put(MinerId miner, SlicePut request, TimePoint deadline) {
  auto data = std::make_shared<Bytes>(request.data.begin(), request.data.end());
  const std::uint64_t size = data->size();
  Work<Status> work = [volume = volume_, slice = request.slice, manifest = request.manifest,
                       data](SimMiner& at) { return at.put(volume, slice, *manifest, *data); };
  ++puts_;
  Status status = co_await call<Status>(miner, size, deadline, std::move(work), Calls::all);
  --puts_;
  co_return status;
}

Result<SliceReadAnswer> FakeTransport::answer_of(Result<SimMiner::ReadOutcome> outcome,
                                                 const SliceRead& request) {
  TRY(SimMiner::ReadOutcome got, std::move(outcome));
  SliceReadAnswer answer;
  answer.manifest = std::move(got.manifest);
  if (request.with_proof) {
    answer.leaves_offset = got.offset;
    answer.leaves = std::move(got.bytes);
    answer.proof = std::move(got.proof);
  } else {
    CHECK(got.bytes.size() <= request.into.size());
    std::copy(got.bytes.begin(), got.bytes.end(), request.into.begin());
  }
  return answer;
}

Task<Result<SliceReadAnswer>> FakeTransport::read(MinerId miner, SliceRead request, TimePoint deadline) {
  CHECK(request.with_proof || request.into.size() == request.length);
  Work<Outcome> work = [volume = volume_, slice = request.slice, offset = request.offset,
                        length = request.length, proof = request.with_proof,
                        manifest = request.with_manifest](SimMiner& at) {
    return at.read(volume, slice, offset, length, proof, manifest);
  };
  Outcome outcome = co_await call<Outcome>(miner, request.length, deadline, std::move(work), Calls::asked,
                                           request.owner.get());
  co_return answer_of(std::move(outcome), request);
}

Task<Result<SliceReadAnswer>> FakeTransport::challenge(MinerId miner, SliceChallenge request,
                                                       TimePoint deadline) {
  Work<Outcome> work = [volume = volume_, request](SimMiner& at) { return at.challenge(volume, request); };
  Outcome outcome = co_await call<Outcome>(miner, 4096, deadline, std::move(work));
  SliceRead as_read;
  as_read.with_proof = true;
  co_return answer_of(std::move(outcome), as_read);
}

Task<Result<SliceListPage>> FakeTransport::list(MinerId miner, std::optional<Bytes> from,
                                                TimePoint deadline) {
  Work<Result<SliceListPage>> work = [volume = volume_, from](SimMiner& at) { return at.list(volume, from); };
  co_return co_await call<Result<SliceListPage>>(miner, 0, deadline, std::move(work));
}

Task<Result<std::vector<std::optional<Digest>>>> FakeTransport::have(MinerId miner,
                                                                     std::vector<SliceId> slices,
                                                                     TimePoint deadline) {
  using Roots = Result<std::vector<std::optional<Digest>>>;
  Work<Roots> work = [volume = volume_, slices](SimMiner& at) { return at.have(volume, slices); };
  co_return co_await call<Roots>(miner, 0, deadline, std::move(work));
}

Task<Status> FakeTransport::remove(MinerId miner, std::vector<SliceId> slices, TimePoint deadline) {
  Work<Status> work = [volume = volume_, slices](SimMiner& at) { return at.remove(volume, slices); };
  co_return co_await call<Status>(miner, 0, deadline, std::move(work));
}

Task<Result<HolderAnswer>> FakeTransport::promise(MinerId miner, BallotClaim claim, TimePoint deadline) {
  Work<Result<HolderAnswer>> work = [volume = volume_, claim](SimMiner& at) {
    return at.promise(volume, claim);
  };
  co_return co_await call<Result<HolderAnswer>>(miner, 0, deadline, std::move(work), Calls::all);
}

Task<Result<HolderAnswer>> FakeTransport::accept(MinerId miner, Superblock record, TimePoint deadline) {
  Work<Result<HolderAnswer>> work = [volume = volume_, record](SimMiner& at) {
    return at.accept(volume, record);
  };
  co_return co_await call<Result<HolderAnswer>>(miner, 0, deadline, std::move(work), Calls::all);
}

Task<Result<HolderState>> FakeTransport::superblock(MinerId miner, TimePoint deadline) {
  Work<Result<HolderState>> work = [volume = volume_](SimMiner& at) { return at.superblock(volume); };
  co_return co_await call<Result<HolderState>>(miner, 0, deadline, std::move(work), Calls::all);
}

Task<Result<MinerStatus>> FakeTransport::status(MinerId miner, TimePoint deadline) {
  Work<Result<MinerStatus>> work = [volume = volume_](SimMiner& at) { return at.status(volume); };
  co_return co_await call<Result<MinerStatus>>(miner, 0, deadline, std::move(work));
}

void FakeTransport::note_latency(const MinerId& miner, Duration took, bool good) {
  const auto [at, first] = latency_.try_emplace(miner, took);
  if (first) return;
  if (good)
    at->second += (took - at->second) / 8;
  else
    at->second = std::min<Duration>(at->second * 2 + std::chrono::milliseconds(1), std::chrono::seconds(10));
}

void FakeTransport::interrupt(Calls which) {
  for (Waiting* waiting : waiting_) {
    if (which == Calls::asked && waiting->kind != Calls::asked) continue;
    waiting->interrupted = true;
    waiting->done.notify_all();
  }
}

void FakeTransport::interrupt_reads(const void* owner) {
  for (Waiting* waiting : waiting_) {
    if (waiting->owner != owner) continue;
    waiting->interrupted = true;
    waiting->done.notify_all();
  }
}

Duration FakeTransport::expected_latency(MinerId miner) const {
  const auto found = latency_.find(miner);
  return found == latency_.end() ? Duration(std::chrono::milliseconds(2)) : found->second;
}

Task<void> FakeTransport::close() {
  closed_ = true;
  for (Waiting* waiting : waiting_) waiting->done.notify_all();
  while (!waiting_.empty()) co_await idle_.wait();
}

}  // namespace cumulus
