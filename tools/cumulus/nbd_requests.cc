#include "tools/cumulus/nbd_requests.h"

#include "objectstore/base/format.h"
#include "objectstore/memory_shares.h"
#include "tools/cumulus/nbd_resident.h"

namespace cumulus {
namespace {

std::shared_ptr<NbdResident> server_of(Desk& desk, std::uint64_t number) {
  for (Resident* one : desk.residents.list())
    if (auto* server = dynamic_cast<NbdResident*>(one); server != nullptr && server->number() == number)
      return server->share();
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
  const std::shared_ptr<NbdResident> server = server_of(desk, request.value("number", std::uint64_t{0}));
  // It may have ended before it was asked for, with the daemon even: another one's numbers are not this
  // one's.
  if (!server || server->address() != request.value("address", "")) co_return Json::object();
  while (!server->stopped() && !session.gone())
    co_await desk.reactor.sleep_for(std::chrono::milliseconds(200));
  if (!server->stopped()) co_await server->stop();
  co_return Json{{"replaced_by", server->replaced_by()}};
}

Task<Result<Json>> serve_nbd_stop(Desk& desk, Session&, Json request) {
  const std::string image = request.value("image", "");
  std::size_t stopped = 0;
  std::vector<std::uint64_t> numbers;
  for (Resident* one : desk.residents.list()) {
    const auto* server = dynamic_cast<NbdResident*>(one);
    if (server == nullptr || (!image.empty() && server->image() != image)) continue;
    one->begin_stop();
    numbers.push_back(server->number());
  }
  for (const std::uint64_t number : numbers) {
    ++stopped;
    // Or it has ended meanwhile.
    if (const std::shared_ptr<NbdResident> server = server_of(desk, number)) co_await server->stop();
  }
  if (stopped == 0)
    co_return fail(ErrorKind::not_found,
                   image.empty() ? format("volume '{}' has no NBD server", desk.name)
                                 : format("'{}/{}' has no NBD server of its own", desk.name, image));
  co_return Json{{"stopped", stopped}};
}

}  // namespace cumulus
