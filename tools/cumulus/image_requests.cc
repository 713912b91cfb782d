#include "tools/cumulus/image_requests.h"

#include <algorithm>
#include <unistd.h>

#include "blockdev/flatten.h"
#include "blockdev/image_difference.h"
#include "blockdev/images.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/memory_shares.h"
#include "tools/cumulus/nbd_resident.h"

namespace cumulus {
namespace {

// Keeps the daemon alive while an image is flattened, and ends the work with it.
class Flattening final : public WorkingResident {
 public:
  Flattening(Desk& desk, DatasetId image, std::string name)
      : WorkingResident(desk.reactor, desk.residents), image_(image), name_(std::move(name)) {}

  DatasetId image() const { return image_; }
  bool stopping() const { return stopping_; }
  void note(std::uint64_t done, std::uint64_t total) {
    done_ = done;
    total_ = total;
  }

  std::string kind() const override { return "flatten"; }
  Json describe() const override {
    return {
        {"kind", kind()}, {"where", "of " + name_}, {"target", name_}, {"done", done_}, {"total", total_}};
  }
  bool holds(DatasetId) const override { return false; }  // it works beside whoever has the image attached

 private:
  void ask_to_end() override { stopping_ = true; }

  DatasetId image_;
  std::string name_;
  std::uint64_t done_ = 0;
  std::uint64_t total_ = 0;
  bool stopping_ = false;
};

}  // namespace

Task<Result<Json>> serve_image_create(Desk& desk, Session&, Json request) {
  std::string name = request.value("image", "");
  CO_TRY(const DatasetId id,
         co_await create_image(desk.stack.volume(), std::move(name), request.value("size", std::uint64_t{0}),
                               desk.reactor.wall_now()));
  CO_TRY_OK(co_await desk.stack.volume().flush());
  co_return Json{{"id", id}};
}

Task<Result<Json>> serve_image_list(Desk& desk, Session&, Json) {
  Volume& volume = desk.stack.volume();
  Json list = Json::array();
  for (const DatasetInfo& info : volume.datasets()) {
    if (info.type != DatasetType::image) continue;
    Json one = {
        {"name", info.name}, {"parent", image_parent(volume, info.id)}, {"snapshots", info.snapshots.size()}};
    const auto size = co_await image_size(volume, info.id);
    if (volume.find_dataset(info.id) == nullptr) continue;  // removed meanwhile
    if (size) {
      one["size"] = *size;
      const auto mark = co_await import_mark(volume, info.id);
      if (mark && *mark) one["importing"] = (*mark)->position;
      const auto receiving = co_await unfinished_reception(volume, info.id);
      if (receiving && !receiving->empty()) one["receiving"] = *receiving;
      const auto flattened = co_await flatten_position(volume, info.id);
      if (flattened && *flattened) one["flattened"] = std::min(**flattened, *size);
    } else {
      one["error"] = size.error().message();
    }
    if (const Resident* holder = desk.residents.holder_of(info.id))
      one["attached"] = holder->describe()["where"];
    list.push_back(std::move(one));
  }
  co_return list;
}

Task<Result<Json>> serve_image_remove(Desk& desk, Session&, Json request) {
  const std::string name = request.value("image", "");
  CO_TRY(const DatasetId id, find_image(desk.stack.volume(), name));
  CO_TRY_OK(desk.residents.check_free(id, desk.name + "/" + name));
  CO_TRY_OK(co_await desk.stack.volume().remove_dataset(id));
  CO_TRY_OK(co_await desk.stack.volume().flush());
  co_return Json::object();
}

Task<Result<Json>> serve_image_resize(Desk& desk, Session&, Json request) {
  Volume& volume = desk.stack.volume();
  const std::string name = request.value("image", "");
  const auto size = request.value("size", std::uint64_t{0});
  CO_TRY(const DatasetId id, find_image(volume, name));
  CO_TRY(const std::uint64_t now, co_await image_size(volume, id));
  if (size < now) CO_TRY_OK(desk.residents.check_free(id, desk.name + "/" + name));
  CO_TRY_OK(co_await resize_image(volume, id, size, request.value("shrink", false)));
  CO_TRY_OK(co_await volume.flush());
  co_return Json{{"size", size}};
}

Task<Result<Json>> serve_image_flatten(Desk& desk, Session& session, Json request) {
  Volume& volume = desk.stack.volume();
  const std::string name = request.value("image", "");
  CO_TRY(const DatasetId id, find_image(volume, name));
  for (const Resident* one : desk.residents.list())
    if (const auto* other = dynamic_cast<const Flattening*>(one); other != nullptr && other->image() == id)
      co_return fail(ErrorKind::exists, format("'{}/{}' is being flattened already: 'cumulus image ls' shows "
                                               "how far it is",
                                               desk.name, name));
  Flattening flattening(desk, id, desk.name + "/" + name);
  if (request.value("background", false)) {
    Json begun = {{"result", {{"begun", true}}}};
    CO_TRY_OK(co_await session.send_json(std::move(begun)));
    session.end();
  }
  Progress progress = [&](std::uint64_t done, std::uint64_t total) {
    flattening.note(done, total);
    static_cast<void>(session.progress(done, total));  // it goes on when nobody looks
    return !flattening.stopping();
  };
  const Status done = co_await flatten_image(volume, id, std::move(progress));
  if (!done) log_warn("flattening {}/{}: {}", desk.name, name, done.error().message());
  CO_TRY_OK(done);
  CO_TRY_OK(co_await volume.flush());
  co_return Json::object();
}

Task<Result<Json>> serve_image_mark(Desk& desk, Session&, Json request) {
  Volume& volume = desk.stack.volume();
  CO_TRY(const DatasetId id, find_image(volume, request.value("image", "")));
  std::optional<ImportMark> mark;
  if (request.contains("position")) {
    mark.emplace();
    mark->position = request.value("position", std::uint64_t{0});
    mark->source_size = request.value("source_size", std::uint64_t{0});
    mark->source_modified_ns = request.value("source_modified_ns", std::int64_t{0});
  }
  if (request.value("ask", false)) {
    CO_TRY(const auto known, co_await import_mark(volume, id));
    CO_TRY(const std::uint64_t size, co_await image_size(volume, id));
    Json answer = {{"size", size}};
    if (known)
      answer["mark"] = {{"position", known->position},
                        {"source_size", known->source_size},
                        {"source_modified_ns", known->source_modified_ns}};
    co_return answer;
  }
  CO_TRY_OK(co_await volume.flush(Durability::local));
  CO_TRY_OK(co_await set_import_mark(volume, id, mark));
  CO_TRY_OK(co_await volume.flush());
  co_return Json::object();
}

Task<Result<Json>> serve_image_attach(Desk& desk, Session& session, Json request) {
  NbdRequest wanted;
  wanted.image = request.value("image", "");
  wanted.snapshot = request.value("snapshot", "");
  wanted.read_only = request.value("read_only", false);
  wanted.connected = session.take_descriptor();
  if (wanted.connected < 0) co_return fail(ErrorKind::invalid, "no socket came with the request");
  const int socket = wanted.connected;
  const MemoryShares memory(desk.stack.settings().options.memory_bytes);
  auto server = co_await NbdResident::start(desk.reactor, desk.stack.volume(), desk.residents, desk.name,
                                            std::move(wanted), memory.disk_requests);
  if (!server) {
    ::close(socket);
    co_return fail(server.error());
  }
  Json ready = {{"ready", true}};
  const Status sent = co_await session.send_json(std::move(ready));
  if (sent) {
    const auto ended = co_await session.receive();  // the command says that it is done, or is gone
    static_cast<void>(ended);
  }
  co_await (*server)->stop();
  CO_TRY_OK(sent);
  co_return Json::object();
}

}  // namespace cumulus
