#include "tools/cumulus/image_copy.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "objectstore/base/format.h"
#include "tools/cumulus/frame.h"
#include "tools/cumulus/nbd_disk.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kPiece = 4u << 20;    // one read or write
constexpr std::uint64_t kWindow = 64u << 20;  // looked at for holes at a time
constexpr int kAttachAttempts = 20;
constexpr auto kAttachPause = std::chrono::milliseconds(250);
constexpr std::uint64_t kMarkEvery = 256u << 20;  // what an interrupted copy does again at most

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

// The image, served by its daemon to this process alone; let go when this process ends, however it does.
class Attached {
 public:
  // A copy that was interrupted a moment ago may still be letting go of it.
  static Result<Attached> attach(const ImageCopy& copy, bool read_only) {
    for (int attempt = 0;; ++attempt) {
      auto attached = try_attach(copy, read_only);
      if (attached || attached.error().kind() != ErrorKind::exists || attempt == kAttachAttempts)
        return attached;
      std::this_thread::sleep_for(kAttachPause);
    }
  }
  // When it returns the image is free for others.
  Status close() {
    TRY_OK(socket_.send(FrameKind::end, {}));
    TRY_OK(socket_.receive());
    return {};
  }
  NbdDisk& disk() { return disk_; }

 private:
  static Result<Attached> try_attach(const ImageCopy& copy, bool read_only) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
      return fail(from_errno(errno, "reach the volume's daemon"));
    const Descriptor theirs{ends[1]};
    Descriptor ours{ends[0]};
    TRY(DaemonSocket socket, DaemonSocket::connect(copy.home.volume(copy.volume)));
    const Json request = {{"request", "image.attach"},
                          {"image", copy.image},
                          {"snapshot", copy.snapshot},
                          {"read_only", read_only}};
    TRY_OK(socket.send(FrameKind::json, view_of(request.dump()), theirs.fd));
    TRY(const DaemonSocket::Frame frame, socket.receive());
    const Json answer = Json::parse(text_of(frame.body), nullptr, false);
    if (!answer.is_object() || !answer.contains("ready")) {
      const Json error = answer.is_object() ? answer.value("error", Json::object()) : Json::object();
      const bool held = error.value("kind", "") == to_string(ErrorKind::exists);
      return fail(held ? ErrorKind::exists : ErrorKind::io,
                  error.value("message", "the volume's daemon answers nonsense"));
    }
    const std::string name = copy.snapshot.empty() ? copy.image : copy.image + "@" + copy.snapshot;
    TRY(NbdDisk disk, NbdDisk::over(std::exchange(ours.fd, -1), name));
    return Attached(std::move(socket), std::move(disk));
  }
  Attached(DaemonSocket socket, NbdDisk disk) : socket_(std::move(socket)), disk_(std::move(disk)) {}
  DaemonSocket socket_;
  NbdDisk disk_;
};

std::int64_t modified_ns(const struct stat& info) {
  return std::int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
}

Error changed_since(const ImageCopy& copy) {
  return Error(ErrorKind::exists, format("the import of '{}/{}' that was interrupted was of another file, or "
                                         "{} has changed since: remove the image and begin anew",
                                         copy.volume, copy.image, copy.file));
}

// A disk tells nobody when it was written.
Status check_unchanged(const ImageCopy& copy, const struct stat& before) {
  struct stat now{};
  if (::stat(copy.file.c_str(), &now) != 0) return fail(from_errno(errno, "look at " + copy.file));
  if (S_ISREG(before.st_mode) && (now.st_size != before.st_size || modified_ns(now) != modified_ns(before)))
    return fail(changed_since(copy));
  return {};
}

// Where the import begins: makes the image, or finds how far an interrupted one came.
Result<std::uint64_t> begin_import(Client& client, const ImageCopy& copy, const struct stat& source,
                                   std::uint64_t size) {
  Json mark = {{"request", "image.mark"}, {"image", copy.image}};
  Json ask = mark;
  ask["ask"] = true;
  const auto known = client.call(ask, "", false);
  if (!known && known.error().kind() != ErrorKind::not_found) return fail(known.error());
  if (!known) {
    TRY_OK(client.call({{"request", "image.create"}, {"image", copy.image}, {"size", size}}, "", false));
    mark["position"] = 0;
    mark["source_size"] = static_cast<std::uint64_t>(source.st_size);
    mark["source_modified_ns"] = modified_ns(source);
    TRY_OK(client.call(mark, "", false));
    return 0;
  }
  const Json note = known->value("mark", Json());
  if (!note.is_object())
    return fail(ErrorKind::exists,
                format("there is an image '{}/{}' already: give another name, or remove it first",
                       copy.volume, copy.image));
  if (S_ISBLK(source.st_mode))
    return fail(ErrorKind::exists,
                format("the import of '{}/{}' was interrupted, and whether the disk {} has changed since "
                       "nobody knows: remove the image and begin anew",
                       copy.volume, copy.image, copy.file));
  if (note.value("source_size", std::uint64_t{0}) != static_cast<std::uint64_t>(source.st_size) ||
      note.value("source_modified_ns", std::int64_t{0}) != modified_ns(source) ||
      known->value("size", std::uint64_t{0}) != size)
    return fail(changed_since(copy));
  return note.value("position", std::uint64_t{0});
}

// Calls `put` for each piece of data in [from, size) and `reached` after each window.
template <class Put, class Reached>
Status copy_data(NbdDisk& source, std::uint64_t from, std::uint64_t size, Put put, Reached reached) {
  Bytes buffer(kPiece);
  for (std::uint64_t at = from; at < size;) {
    const std::uint64_t window = std::min(kWindow, size - at);
    TRY(const auto stretches, source.stretches(at, window));
    for (const NbdDisk::Stretch& stretch : stretches) {
      for (std::uint64_t done = 0; stretch.data && done < stretch.length;) {
        const MutableByteView piece =
            MutableByteView(buffer).first(std::min<std::uint64_t>(kPiece, stretch.length - done));
        TRY_OK(source.read(stretch.offset + done, piece));
        TRY_OK(put(stretch.offset + done, piece));
        done += piece.size();
      }
    }
    at += window;
    TRY_OK(reached(at));
  }
  return {};
}

// --- export ---

// Tells the snapshot from all others, also from a later one of its name. Empty: the image itself, as it is
// now.
Result<std::string> identity_of(Client& client, const ImageCopy& copy) {
  if (copy.snapshot.empty()) return std::string();
  const Json request = {
      {"request", "snapshot.identity"}, {"dataset", copy.image}, {"snapshot", copy.snapshot}};
  TRY(const Json answer, client.call(request, "", false));
  return answer.value("identity", "");
}

Json export_state(const std::string& identity, std::uint64_t size, std::uint64_t position) {
  return {{"snapshot", identity}, {"size", size}, {"position", position}};
}

std::uint64_t resumed_at(const ImageCopy& copy, const std::string& identity, std::uint64_t size) {
  if (identity.empty()) return 0;
  const auto text = Home::read_file(copy.file + ".part.state", 4096);
  const Json state = text ? Json::parse(text_of(*text), nullptr, false) : Json();
  if (!state.is_object()) return 0;
  const auto position = state.value("position", std::uint64_t{0});
  return state == export_state(identity, size, position) && position <= size ? position : 0;
}

Status write_at(int fd, std::uint64_t offset, ByteView bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return fail(from_errno(put == 0 ? EIO : errno, "write " + path));
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
  return {};
}

// What an interrupted export left; when that is gone or from nothing, an empty file, and `from` is 0. -1:
// errno.
int open_part(const std::string& part, std::uint64_t size, std::uint64_t& from) {
  if (from > 0) {
    struct stat info{};
    const int fd = ::open(part.c_str(), O_RDWR | O_CLOEXEC);
    if (fd >= 0 && ::fstat(fd, &info) == 0 && static_cast<std::uint64_t>(info.st_size) == size) return fd;
    if (fd >= 0) ::close(fd);
    from = 0;
  }
  // First: it says what is in a file that now becomes another.
  if (::unlink((part + ".state").c_str()) != 0 && errno != ENOENT) return -1;
  return ::open(part.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

Status export_raw(NbdDisk& disk, const ImageCopy& copy, const std::string& identity, const std::string& part,
                  std::uint64_t size) {
  std::uint64_t from = resumed_at(copy, identity, size);
  const Descriptor file{open_part(part, size, from)};
  if (file.fd < 0) return fail(from_errno(errno, "make " + part));
  if (::ftruncate(file.fd, static_cast<off_t>(size)) != 0) return fail(from_errno(errno, "make " + part));
  ProgressLine progress("exporting", true);
  std::uint64_t marked = from;
  TRY_OK(copy_data(
      disk, from, size,
      [&](std::uint64_t offset, ByteView bytes) { return write_at(file.fd, offset, bytes, part); },
      [&](std::uint64_t at) -> Status {
        progress.show(at, size);
        if (identity.empty() || at - marked < kMarkEvery) return {};
        if (::fdatasync(file.fd) != 0) return fail(from_errno(errno, "write " + part));
        marked = at;
        return Home::write_file(part + ".state", view_of(export_state(identity, size, at).dump()));
      }));
  if (::fdatasync(file.fd) != 0) return fail(from_errno(errno, "write " + part));
  return {};
}

// Other formats are qemu-img's to write: from a finished raw copy, so that it meets no network.
Status convert(const std::string& raw, const std::string& file, const std::string& file_format) {
  std::vector<std::string> command = {"qemu-img", "convert", "-f", "raw", "-O", file_format, raw, file};
  std::vector<char*> words;
  words.reserve(command.size() + 1);
  for (std::string& word : command) words.push_back(word.data());
  words.push_back(nullptr);
  pid_t child = 0;
  if (const int error = ::posix_spawnp(&child, "qemu-img", nullptr, nullptr, words.data(), environ);
      error != 0)
    return fail(from_errno(error, "run qemu-img (Debian package qemu-utils)"));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return fail(ErrorKind::io, format("qemu-img could not write {} as {}", file, file_format));
  return {};
}

}  // namespace

Result<std::uint64_t> import_image(Client& client, const ImageCopy& copy) {
  struct stat info{};
  if (::stat(copy.file.c_str(), &info) != 0) return fail(from_errno(errno, "look at " + copy.file));
  if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode))
    return fail(ErrorKind::invalid, copy.file + " is neither a file nor a disk");
  std::vector<std::string> command = {"qemu-nbd", "--read-only"};
  if (!copy.file_format.empty()) command.insert(command.end(), {"--format", copy.file_format});
  command.insert(command.end(), {"--", copy.file});
  auto source = NbdDisk::served_by(std::move(command));
  if (!source) return fail(source.error().within(copy.file));
  TRY(const std::uint64_t size, source->size());
  TRY(const std::uint64_t from, begin_import(client, copy, info, size));
  TRY(Attached target, Attached::attach(copy, false));
  ProgressLine progress("importing", true);
  std::uint64_t marked = from;
  Json mark = {{"request", "image.mark"},
               {"image", copy.image},
               {"source_size", static_cast<std::uint64_t>(info.st_size)},
               {"source_modified_ns", modified_ns(info)}};
  TRY_OK(copy_data(
      *source, from, size,
      [&](std::uint64_t offset, ByteView bytes) { return target.disk().write(offset, bytes); },
      [&](std::uint64_t at) -> Status {
        progress.show(at, size);
        if (at - marked < kMarkEvery) return {};
        marked = at;
        mark["position"] = at;
        TRY_OK(client.call(mark, "", false));
        return {};
      }));
  TRY_OK(target.disk().flush());
  TRY_OK(target.close());
  TRY_OK(check_unchanged(copy, info));
  TRY_OK(client.call({{"request", "image.mark"}, {"image", copy.image}}, "", false));
  return size;
}

Result<std::uint64_t> export_image(Client& client, const ImageCopy& copy) {
  TRY_OK(client.start({}, false, "opening"));
  TRY(const std::string identity, identity_of(client, copy));
  TRY(Attached source, Attached::attach(copy, true));
  TRY(const std::string attached, identity_of(client, copy));
  if (attached != identity)
    return fail(ErrorKind::unavailable,
                format("the snapshot '{}' was made anew a moment ago: run it again", copy.snapshot));
  TRY(const std::uint64_t size, source.disk().size());
  const std::string part = copy.file + ".part";
  TRY_OK(export_raw(source.disk(), copy, identity, part, size));
  TRY_OK(source.close());
  std::string made = part;
  if (!copy.file_format.empty() && copy.file_format != "raw") {
    made = copy.file + ".converted";
    TRY_OK(convert(part, made, copy.file_format));
  }
  ::unlink((part + ".state").c_str());
  if (made != part) ::unlink(part.c_str());
  if (::rename(made.c_str(), copy.file.c_str()) != 0) return fail(from_errno(errno, "make " + copy.file));
  return size;
}

}  // namespace cumulus
