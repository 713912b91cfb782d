#include "netclient/tcp_transport.h"

#include <algorithm>

#include "netclient/miner_link.h"
#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/tls_identity.h"

namespace cumulus {
namespace {

std::unexpected<Error> wrong_answer(std::string_view why) {
  return fail(ErrorKind::corrupt, "the miner's answer is not to what was asked: " + std::string(why));
}

Bytes owned(ByteView bytes) { return {bytes.begin(), bytes.end()}; }

template <class Message>
std::shared_ptr<Exchange> ask(wire::MessageType type, const Message& message, std::size_t payload = 0) {
  auto exchange = std::make_shared<Exchange>();
  exchange->type = type;
  exchange->frame = wire::frame({}, message, payload);
  return exchange;
}

// A proof or challenge answer: the one range that was asked, with the leaves in `kept`.
Result<SliceReadAnswer> leaves_of(Exchange& exchange, bool with_manifest) {
  TRY(const wire::ReadAnswer decoded, wire::ReadAnswer::decode(exchange.header));
  if (decoded.ranges.size() != 1 || decoded.payload_length() != exchange.kept.size())
    return wrong_answer("its payload has another length than its header says");
  SliceReadAnswer answer;
  answer.leaves_offset = decoded.ranges[0].bytes.offset;
  answer.proof = owned(decoded.ranges[0].proof);
  if (with_manifest) answer.manifest = owned(decoded.manifest);
  answer.leaves = std::move(exchange.kept);
  return answer;
}

Result<SliceReadAnswer> bare_answer(const Exchange& exchange, const SliceRead& request) {
  TRY(const wire::ReadAnswer decoded, wire::ReadAnswer::decode(exchange.header));
  const bool one_range = request.length > 0;
  if (decoded.ranges.size() != (one_range ? 1u : 0u)) return wrong_answer("another number of ranges");
  if (one_range && decoded.ranges[0].bytes != wire::ByteRange{request.offset, request.length})
    return wrong_answer("another range");
  SliceReadAnswer answer;
  if (request.with_manifest) answer.manifest = owned(decoded.manifest);
  return answer;
}

Result<HolderAnswer> holder_answer(const Exchange& exchange) {
  TRY(const wire::HolderMessage decoded, wire::HolderMessage::decode(exchange.header));
  HolderAnswer answer;
  answer.accepted = decoded.accepted;
  TRY(answer.state, HolderState::decode(decoded.state));
  return answer;
}

class Transport final : public TcpTransport {
 public:
  Transport(Runtime& runtime, std::shared_ptr<wire::TlsContext> tls, const TransportIdentity& identity,
            const TransportOptions& options, Resolver resolver)
      : names_(runtime, std::move(resolver)),
        tasks_(runtime),
        idle_(runtime),
        opening_(std::make_shared<Opening>()) {
    set_opening(identity.epoch, identity.instance);
    wire::HelloRequest hello;
    hello.grant = identity.grant;
    hello.software = identity.software;
    shared_ = std::make_shared<const LinkShared>(
        LinkShared{runtime, tasks_, names_, std::move(tls), opening_, std::move(hello), options});
  }
  ~Transport() override { CHECK(closed_ && calls_ == 0); }

  void set_opening(Epoch epoch, InstanceId instance) override {
    opening_->epoch = epoch;
    opening_->instance = instance;
  }
  const std::vector<MinerEntry>& miners() const override { return miners_; }
  void set_miners(std::vector<MinerEntry> miners) override;

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

  void try_now() override {
    for (const auto& [id, link] : links_) link->try_now();
  }
  void interrupt(Calls which) override {
    for (const auto& [id, link] : links_)
      link->interrupt([which](const Exchange& call) { return call.is(which); });
  }
  void interrupt_reads(const void* owner) override {
    for (const auto& [id, link] : links_)
      link->interrupt([owner](const Exchange& call) { return call.into_owner.get() == owner; });
  }
  Duration expected_latency(MinerId miner) const override;
  Task<void> close() override;

 private:
  Task<Status> call(MinerId miner, std::shared_ptr<Exchange> exchange, std::size_t bytes, TimePoint deadline);
  Task<Status> have_batch(MinerId miner, std::span<const SliceId> slices, TimePoint deadline,
                          std::vector<std::optional<Digest>>& roots);

  NameLookups names_;
  TaskGroup tasks_;
  Signal idle_;
  std::shared_ptr<Opening> opening_;
  std::shared_ptr<const LinkShared> shared_;
  std::vector<MinerEntry> miners_;
  std::map<MinerId, std::shared_ptr<MinerLink>> links_;
  std::size_t calls_ = 0;
  bool closed_ = false;
};

void Transport::set_miners(std::vector<MinerEntry> miners) {
  std::map<MinerId, std::shared_ptr<MinerLink>> links;
  for (const MinerEntry& entry : miners) {
    const auto found = links_.find(entry.id);
    if (found == links_.end()) {
      links[entry.id] = std::make_shared<MinerLink>(shared_, entry);
    } else {
      found->second->set_entry(entry);
      links[entry.id] = found->second;
      links_.erase(found);
    }
  }
  for (const auto& [id, gone] : links_) gone->shut();
  links_ = std::move(links);
  miners_ = std::move(miners);
}

Task<Status> Transport::call(MinerId miner, std::shared_ptr<Exchange> exchange, std::size_t bytes,
                             TimePoint deadline) {
  if (closed_) co_return fail(ErrorKind::closed, "the transport was closed");
  const auto found = links_.find(miner);
  // Segments that were found by their slices name nobody for those that no miner showed.
  if (miner == MinerId{})
    co_return fail(ErrorKind::unavailable, "it is not known which miner has it; those that answer do not");
  if (found == links_.end())
    co_return fail(ErrorKind::unavailable, format("miner {}: not in the volume's miner list", miner.brief()));
  ++calls_;
  const std::shared_ptr<MinerLink> link = found->second;
  Status status = co_await link->call(std::move(exchange), bytes, deadline);
  if (--calls_ == 0) idle_.notify_all();
  co_return status;
}

Task<Status> Transport::put(MinerId miner, SlicePut request, TimePoint deadline) {
  if (request.data.size() > wire::kPayloadMax)
    co_return fail(ErrorKind::invalid, "PUT: the slice is too long");
  const wire::PutRequest message{request.slice, *request.manifest};
  const auto exchange = ask(message.kType, message, request.data.size());
  exchange->payload = request.data;
  exchange->payload_owner = request.owner;
  co_return co_await call(miner, exchange, request.data.size(), deadline);
}

Task<Result<SliceReadAnswer>> Transport::read(MinerId miner, SliceRead request, TimePoint deadline) {
  if (request.length > wire::kPayloadMax || request.offset > UINT64_MAX - request.length)
    co_return fail(ErrorKind::invalid, "READ: the range is too long");
  CHECK(request.with_proof || request.into.size() == request.length);
  wire::ReadRequest message;
  message.slice = request.slice;
  message.with_proof = request.with_proof;
  message.with_manifest = request.with_manifest;
  if (request.length > 0) message.ranges.push_back({request.offset, request.length});
  if (message.ranges.empty() && !request.with_manifest)
    co_return fail(ErrorKind::invalid, "READ: of nothing");
  const auto exchange = ask(message.kType, message);
  exchange->direct = !request.with_proof;
  exchange->into = request.into;
  exchange->into_owner = request.owner;
  CO_TRY_OK(co_await call(miner, exchange, request.length, deadline));
  co_return request.with_proof&& request.length > 0 ? leaves_of(*exchange, request.with_manifest)
                                                    : bare_answer(*exchange, request);
}

Task<Result<SliceReadAnswer>> Transport::challenge(MinerId miner, SliceChallenge request,
                                                   TimePoint deadline) {
  const wire::ChallengeRequest message{request.slice, request.leaf};
  const auto exchange = ask(message.kType, message);
  CO_TRY_OK(co_await call(miner, exchange, 0, deadline));
  co_return leaves_of(*exchange, false);
}

Task<Result<SliceListPage>> Transport::list(MinerId miner, std::optional<Bytes> from, TimePoint deadline) {
  wire::ListRequest message;
  if (from) message.from = *from;
  const auto exchange = ask(message.kType, message);
  CO_TRY_OK(co_await call(miner, exchange, wire::kListBytesMax, deadline));
  CO_TRY(const wire::ListAnswer decoded, wire::ListAnswer::decode(exchange->header));
  SliceListPage page;
  for (const auto& slice : decoded.slices) page.slices.push_back({slice.index, owned(slice.manifest)});
  if (decoded.next) {
    page.next = owned(*decoded.next);
    if (page.slices.empty() || (from && *page.next == *from))
      co_return wrong_answer("the listing does not advance");
  }
  co_return page;
}

Task<Status> Transport::have_batch(MinerId miner, std::span<const SliceId> slices, TimePoint deadline,
                                   std::vector<std::optional<Digest>>& roots) {
  const wire::HaveRequest message{std::vector<SliceId>(slices.begin(), slices.end())};
  const auto exchange = ask(message.kType, message);
  CO_TRY_OK(co_await call(miner, exchange, 0, deadline));
  CO_TRY(const wire::HaveAnswer decoded, wire::HaveAnswer::decode(exchange->header));
  if (decoded.roots.size() != slices.size()) co_return wrong_answer("another number of slices");
  roots.insert(roots.end(), decoded.roots.begin(), decoded.roots.end());
  co_return Status{};
}

Task<Result<std::vector<std::optional<Digest>>>> Transport::have(MinerId miner, std::vector<SliceId> slices,
                                                                 TimePoint deadline) {
  std::vector<std::optional<Digest>> roots;
  for (std::span<const SliceId> rest = slices; !rest.empty();) {
    const auto batch = rest.first(std::min(rest.size(), wire::kBatchMax));
    CO_TRY_OK(co_await have_batch(miner, batch, deadline, roots));
    rest = rest.subspan(batch.size());
  }
  co_return roots;
}

Task<Status> Transport::remove(MinerId miner, std::vector<SliceId> slices, TimePoint deadline) {
  for (std::span<const SliceId> rest = slices; !rest.empty();) {
    const auto batch = rest.first(std::min(rest.size(), wire::kBatchMax));
    const wire::RemoveRequest message{std::vector<SliceId>(batch.begin(), batch.end())};
    const auto exchange = ask(message.kType, message);
    CO_TRY_OK(co_await call(miner, exchange, 0, deadline));
    rest = rest.subspan(batch.size());
  }
  co_return Status{};
}

Task<Result<HolderAnswer>> Transport::promise(MinerId miner, BallotClaim claim, TimePoint deadline) {
  const Bytes encoded = claim.encode();
  const wire::PromiseRequest message{encoded};
  const auto exchange = ask(message.kType, message);
  CO_TRY_OK(co_await call(miner, exchange, 0, deadline));
  co_return holder_answer(*exchange);
}

Task<Result<HolderAnswer>> Transport::accept(MinerId miner, Superblock record, TimePoint deadline) {
  const Bytes encoded = record.encode();
  const wire::AcceptRequest message{encoded};
  const auto exchange = ask(message.kType, message);
  CO_TRY_OK(co_await call(miner, exchange, 0, deadline));
  co_return holder_answer(*exchange);
}

Task<Result<HolderState>> Transport::superblock(MinerId miner, TimePoint deadline) {
  const auto exchange = ask(wire::MessageType::superblock, wire::Empty{});
  CO_TRY_OK(co_await call(miner, exchange, 0, deadline));
  CO_TRY(HolderAnswer answer, holder_answer(*exchange));
  co_return std::move(answer.state);
}

Task<Result<MinerStatus>> Transport::status(MinerId miner, TimePoint deadline) {
  const auto exchange = ask(wire::MessageType::status, wire::Empty{});
  CO_TRY_OK(co_await call(miner, exchange, 0, deadline));
  CO_TRY(wire::StatusAnswer answer, wire::StatusAnswer::decode(exchange->header));
  co_return std::move(answer.status);
}

Duration Transport::expected_latency(MinerId miner) const {
  const auto found = links_.find(miner);
  return found == links_.end() ? Duration(std::chrono::seconds(60)) : found->second->expected_latency();
}

Task<void> Transport::close() {
  closed_ = true;
  for (const auto& [id, link] : links_) link->shut();
  names_.shut();
  while (calls_ > 0) co_await idle_.wait();
  co_await tasks_.join();
}

}  // namespace

Result<std::unique_ptr<TcpTransport>> make_tcp_transport(Runtime& runtime, const TransportIdentity& identity,
                                                         std::vector<MinerEntry> miners,
                                                         TransportOptions options, Resolver resolver) {
  TRY(auto tls, wire::TlsContext::make(TlsIdentity::from_seed(identity.tls_seed)));
  auto transport =
      std::make_unique<Transport>(runtime, std::move(tls), identity, options, std::move(resolver));
  transport->set_miners(std::move(miners));
  return std::unique_ptr<TcpTransport>(std::move(transport));
}

}  // namespace cumulus
