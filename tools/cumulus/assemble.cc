#include "tools/cumulus/assemble.h"

#include <pwd.h>
#include <unistd.h>

#include "netclient/miner_list.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/crypto/key_file.h"
#include "objectstore/crypto/tls_identity.h"
#include "objectstore/index/rocksdb_engine.h"
#include "objectstore/memory_shares.h"
#include "tools/cumulus/former_miners.h"

namespace cumulus {
namespace {

std::string writer_label() {
  char host[256] = "unknown host";
  ::gethostname(host, sizeof host - 1);
  char text[4096];
  passwd entry{};
  passwd* found = nullptr;
  ::getpwuid_r(::geteuid(), &entry, text, sizeof text, &found);
  return format("{}@{}", found != nullptr ? found->pw_name : std::to_string(::geteuid()), host);
}

// The owner's word that this daemon's TLS key speaks for the volume.
TransportIdentity transport_identity(const KeyTree& keys) {
  TransportIdentity identity;
  identity.tls_seed = keys.tls_seed().array();
  identity.grant.volume = keys.volume_id();
  identity.grant.sign_public_key = keys.signing_key().public_key();
  identity.grant.tls_public_key = TlsIdentity::from_seed(identity.tls_seed).public_key();
  identity.software = "cumulus";
  wire::sign_grant(identity.grant, keys.signing_key());
  return identity;
}

}  // namespace

Json OpenRequest::to_json() const {
  Json json = {{"kind", static_cast<int>(kind)},
               {"steal", steal},
               {"accept_loss", accept_loss},
               {"k", shape.k},
               {"m", shape.m},
               {"segment_log2", shape.segment_log2}};
  if (has_passphrase) json["passphrase"] = passphrase;
  return json;
}

Result<OpenRequest> OpenRequest::from_json(const Json& json) {
  if (!json.is_object()) return fail(ErrorKind::invalid, "the daemon was started without a request");
  OpenRequest request;
  request.kind = static_cast<Kind>(json.value("kind", 0));
  request.steal = json.value("steal", false);
  request.accept_loss = json.value("accept_loss", false);
  request.shape = {json.value("k", std::uint8_t{4}), json.value("m", std::uint8_t{2}),
                   json.value("segment_log2", std::uint8_t{23})};
  request.has_passphrase = json.contains("passphrase");
  request.passphrase = json.value("passphrase", "");
  return request;
}

Task<Result<std::unique_ptr<Stack>>> Stack::lay_ground(Reactor& reactor, Home home, std::string name,
                                                       OpenRequest request) {
  auto stack = std::make_unique<Stack>();
  const std::string directory = home.volume(name);
  CO_TRY(stack->settings_, home.load_settings(name));
  const auto key_bytes = Home::read_file(directory + "/key", kKeyFileSizeMax);
  if (!key_bytes) co_return fail(home.to_restore(key_bytes.error(), name));
  std::optional<std::string_view> passphrase;
  if (request.has_passphrase) passphrase = request.passphrase;
  auto master = decode_key_file(*key_bytes, passphrase);
  if (!master && master.error().kind() == ErrorKind::corrupt)
    co_return fail(home.to_restore(master.error().within(directory + "/key"), name));
  if (!master) co_return fail(master.error().within(directory + "/key"));
  stack->keys_ = std::make_unique<KeyTree>(std::move(*master));
  auto miners = load_miner_list(directory + "/miners.toml");
  if (!miners) co_return fail(home.to_restore(miners.error(), name));

  stack->disk_ = make_uring_file_system(reactor);
  CO_TRY(stack->transport_,
         make_tcp_transport(reactor, transport_identity(*stack->keys_), *std::move(miners)));
  co_return stack;
}

VolumeParts Stack::parts(Reactor& reactor, std::string directory) {
  const KeyTree& keys = *keys_;
  RocksDbOptions engine;
  const MemoryShares memory(settings_.options.memory_bytes);
  engine.block_cache_bytes = memory.index_blocks;
  engine.write_buffer_bytes = memory.index_writes;
  const auto open_engine = [&reactor, &keys, engine](std::string path, std::function<Status()> barrier,
                                                     bool fresh) {
    return open_rocksdb_engine(reactor, std::move(path), keys.index_key().clone(), std::move(barrier), fresh,
                               engine);
  };
  return {reactor, *disk_, *transport_, keys, metrics_, std::move(directory), open_engine, writer_label()};
}

Task<Result<std::vector<std::string>>> Stack::destroy(Reactor& reactor, Home home, std::string name,
                                                      OpenRequest request, Progress progress) {
  std::string directory = home.volume(name);
  CO_TRY(auto former, former_miners(home, name));
  CO_TRY(const auto stack,
         co_await lay_ground(reactor, std::move(home), std::move(name), std::move(request)));
  VolumeParts parts = stack->parts(reactor, std::move(directory));
  parts.former_miners = std::move(former);
  auto left = co_await Volume::destroy(std::move(parts), stack->settings_.options, std::move(progress));
  co_await stack->transport_->close();
  co_return left;
}

Task<Result<std::unique_ptr<Stack>>> Stack::assemble(Reactor& reactor, Home home, std::string name,
                                                     OpenRequest request, Progress progress) {
  std::string directory = home.volume(name);
  CO_TRY(auto stack, co_await lay_ground(reactor, home, name, request));
  VolumeParts parts = stack->parts(reactor, std::move(directory));
  const OpenMode mode = request.steal ? OpenMode::steal : OpenMode::read_write;
  Result<std::unique_ptr<Volume>> volume = fail(ErrorKind::invalid, "unknown way to open a volume");
  if (request.kind == OpenRequest::Kind::create)
    volume = co_await Volume::create(std::move(parts), request.shape, stack->settings_.options);
  else if (request.kind == OpenRequest::Kind::recover)
    volume = co_await Volume::recover(std::move(parts), stack->settings_.options, mode, request.accept_loss,
                                      std::move(progress));
  else
    volume = co_await Volume::open(std::move(parts), stack->settings_.options, mode);
  if (!volume) {
    co_await stack->transport_->close();
    co_return fail(volume.error());
  }
  stack->volume_ = std::move(*volume);
  // The record's list may be newer than this home's file: another home, or a change that was cut short.
  const std::string path = home.volume(name) + "/miners.toml";
  const auto listed = load_miner_list(path);
  if (!listed || *listed != stack->volume_->miners()) {
    const Status kept = Home::write_file(path, view_of(print_miner_list(stack->volume_->miners())));
    if (!kept) log_warn("the volume's miner list cannot be kept: {}", kept.error().message());
  }
  co_return stack;
}

Task<Status> Stack::close() {
  const Status closed = co_await volume_->close();
  volume_.reset();
  co_await transport_->close();
  co_return closed;
}

}  // namespace cumulus
