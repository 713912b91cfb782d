#include "tools/cumulus/nbd_resident.h"

#include <unistd.h>

#include "blockdev/images.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"

namespace cumulus {

Result<NbdRequest> NbdRequest::from_json(const Json& json) {
  NbdRequest request;
  request.image = json.value("image", "");
  request.socket = json.value("socket", "");
  request.listen = json.value("listen", "");
  request.tls_certificates = json.value("tls_certificates", "");
  request.tls_psk = json.value("tls_psk", "");
  request.allow = json.value("allow", std::vector<std::string>());
  request.read_only = json.value("read_only", false);
  request.reconnect_safe = json.value("reconnect_safe", false);
  request.replace = json.value("replace", false);
  if (request.socket.empty() == request.listen.empty())
    return fail(ErrorKind::invalid, "give --socket PATH or --listen ADDR:PORT");
  if (!request.tls_certificates.empty() && !request.tls_psk.empty())
    return fail(ErrorKind::invalid, "give --tls-certificates or --tls-psk, not both");
  return request;
}

NbdResident::NbdResident(Runtime& runtime, Volume& volume, Residents& residents, std::string volume_name,
                         NbdRequest request)
    : volume_(volume),
      residents_(residents),
      volume_name_(std::move(volume_name)),
      request_(std::move(request)),
      number_(residents.next_number()),
      changed_(runtime) {}

NbdResident::~NbdResident() = default;

Status NbdResident::open(Runtime& runtime, std::uint64_t memory_max) {
  for (Resident* one : residents_.list()) {
    const auto* other = dynamic_cast<NbdResident*>(one);
    if (other != nullptr && memory_ == nullptr) memory_ = other->memory_;
  }
  if (!memory_) memory_ = std::make_shared<nbd::Memory>(runtime, memory_max);
  nbd::ServerOptions options;
  options.memory = memory_;
  options.image = request_.image;
  options.read_only = request_.read_only;
  options.reconnect_safe = request_.reconnect_safe;
  options.unfinished = request_.imports();
  for (const std::string& cidr : request_.allow) TRY_OK(options.allowed.add(cidr));
  if (!request_.tls_certificates.empty()) {
    TRY(options.tls, nbd::TlsSettings::from_certificates(request_.tls_certificates));
  }
  if (!request_.tls_psk.empty()) {
    TRY(options.tls, nbd::TlsSettings::from_psk(request_.tls_psk));
  }
  options.may_attach = [this](DatasetId dataset, const std::string& image) {
    return residents_.check_free(dataset, volume_name_ + "/" + image, this);
  };
  auto server = std::make_unique<nbd::Server>(runtime, volume_, std::move(options));
  if (request_.connected >= 0) {
    server->adopt(request_.connected, "a command");
    server_ = std::move(server);
    return {};
  }
  TRY_OK(request_.socket.empty() ? server->listen_tcp(request_.listen)
                                 : server->listen_unix(request_.socket));
  server->start();
  server_ = std::move(server);
  return {};
}

Task<Result<std::shared_ptr<NbdResident>>> NbdResident::start(Runtime& runtime, Volume& volume,
                                                              Residents& residents, std::string volume_name,
                                                              NbdRequest request, std::uint64_t memory_max) {
  DatasetId dataset = 0;
  if (!request.image.empty()) {
    auto device = co_await BlockDevice::open(volume, request.image, "", true);
    CO_TRY_OK(device);
    dataset = (*device)->dataset();
    if (!request.imports() && request.snapshot.empty())
      CO_TRY_OK(co_await check_import_done(volume, dataset));
  }
  const std::string address = request.socket.empty() ? request.listen : request.socket;
  const std::vector<Resident*> now = residents.list();  // one may end while another is stopped
  for (Resident* one : now) {
    if (!residents.has(one)) continue;
    auto* other = dynamic_cast<NbdResident*>(one);
    if (!request.replace || other == nullptr) continue;
    const bool same_address =
        !address.empty() && (other->address() == address || other->request_.listen == address);
    if (!same_address && (dataset == 0 || request.read_only || !other->holds(dataset))) continue;
    other->replaced_by_ = address;
    co_await other->stop();
  }
  if (dataset != 0 && !request.read_only)
    CO_TRY_OK(residents.check_free(dataset, volume_name + "/" + request.image));
  std::shared_ptr<NbdResident> made(
      new NbdResident(runtime, volume, residents, std::move(volume_name), std::move(request)));
  CO_TRY_OK(made->open(runtime, memory_max));
  made->self_ = made;
  residents.add(*made);
  log_info("nbd: serving on {}", made->address());
  co_return made;
}

Json NbdResident::describe() const {
  Json clients = Json::array();
  for (const auto& client : server_->clients())
    clients.push_back({{"peer", client.peer}, {"image", client.image}});
  return {{"kind", "nbd"},
          {"where", format("{} (pid {})", address(), ::getpid())},
          {"address", address()},
          {"pid", ::getpid()},
          {"number", number_},
          {"volume", volume_name_},
          {"image", request_.image},
          {"read_only", request_.read_only},
          {"reconnect_safe", request_.reconnect_safe},
          {"tls", server_->options().tls != nullptr},
          {"clients", std::move(clients)}};
}

bool NbdResident::holds(DatasetId dataset) const {
  if (request_.image.empty()) return server_->writes(dataset);
  const DatasetInfo* info = volume_.find_dataset(request_.image);
  return !request_.read_only && info != nullptr && info->id == dataset;
}

// What was answered is in the volume already.
Task<Status> NbdResident::write_out() { co_return Status(); }

Task<void> NbdResident::stop() {
  const std::shared_ptr<NbdResident> alive = self_;
  if (stopping_) {
    co_await ended();
    co_return;
  }
  stopping_ = true;
  co_await server_->close();
  residents_.remove(*this);
  stopped_ = true;
  log_info("nbd: {} is closed", address());
  changed_.notify_all();
  self_.reset();
}

Task<void> NbdResident::ended() {
  const std::shared_ptr<NbdResident> alive = self_;
  while (!stopped_) co_await changed_.wait();
}

}  // namespace cumulus
