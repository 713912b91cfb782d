#include "tools/cumulus/nbd_requests.h"

#include "objectstore/base/format.h"
#include "objectstore/memory_shares.h"
#include "tools/cumulus/nbd_resident.h"

namespace cumulus {
namespace {

NbdResident* server_at(Desk& desk, const std::string& address) {
  for (Resident* one : desk.residents.list())
    if (auto* server = dynamic_cast<NbdResident*>(one); server != nullptr && server->address() == address)
      return server;
  return nullptr;
}

}  // namespace

Task<Result<Json>> serve_nbd_serve(Desk& desk, Session&, Json request) {
  CO_TRY(NbdRequest wanted, NbdRequest::from_json(request));
  const MemoryShares memory(desk.stack.settings().options.memory_bytes);
  CO_TRY(const auto server, co_await NbdResident::start(desk.reactor, desk.stack.volume(), desk.residents,
                                                        desk.name, std::move(wanted), memory.disk_requests));
  co_return server->describe();
}

// Returns when the server has ended; ends it when the command goes away: that is `--foreground`.
Task<Result<Json>> serve_nbd_wait(Desk& desk, Session& session, Json request) {
  const std::string address = request.value("address", "");
  while (server_at(desk, address) != nullptr && !session.gone())
    co_await desk.reactor.sleep_for(std::chrono::milliseconds(200));
  if (NbdResident* server = server_at(desk, address)) co_await server->stop();
  co_return Json::object();
}

Task<Result<Json>> serve_nbd_stop(Desk& desk, Session&, Json request) {
  const std::string image = request.value("image", "");
  std::size_t stopped = 0;
  std::vector<std::string> addresses;
  for (Resident* one : desk.residents.list()) {
    const auto* server = dynamic_cast<NbdResident*>(one);
    if (server == nullptr || (!image.empty() && server->image() != image)) continue;
    one->begin_stop();
    addresses.push_back(server->address());
  }
  for (const std::string& address : addresses) {
    ++stopped;
    if (NbdResident* server = server_at(desk, address)) co_await server->stop();  // or it has ended meanwhile
  }
  if (stopped == 0)
    co_return fail(ErrorKind::not_found,
                   image.empty() ? format("volume '{}' has no NBD server", desk.name)
                                 : format("'{}/{}' has no NBD server of its own", desk.name, image));
  co_return Json{{"stopped", stopped}};
}

}  // namespace cumulus
