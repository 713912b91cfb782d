#include "tools/cumulus/nbd_disk.h"

#include <algorithm>
#include <cerrno>
#include <libnbd.h>
#include <unistd.h>

#include "objectstore/base/format.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kAskAtMost = 1u << 30;  // one answer of block status
constexpr std::uint32_t kHoleOrZero = 3;        // NBD_STATE_HOLE | NBD_STATE_ZERO

Error why(const char* what) {
  const char* text = nbd_get_error();
  const ErrorKind kind = nbd_get_errno() == ENOSPC ? ErrorKind::no_space : ErrorKind::io;
  return {kind, format("{}: {}", what, text == nullptr ? "no reason given" : text)};
}

}  // namespace

struct NbdDisk::Handle {
  nbd_handle* nbd = nbd_create();
  Handle() = default;
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (nbd != nullptr) nbd_close(nbd);
  }
};

NbdDisk::NbdDisk(std::unique_ptr<Handle> handle) : handle_(std::move(handle)) {}
NbdDisk::NbdDisk(NbdDisk&&) noexcept = default;
NbdDisk::~NbdDisk() = default;

Result<NbdDisk> NbdDisk::over(int socket, const std::string& export_name) {
  auto handle = std::make_unique<Handle>();
  if (handle->nbd == nullptr) {
    ::close(socket);
    return fail(why("prepare to copy"));
  }
  nbd_handle* nbd = handle->nbd;
  if (nbd_set_export_name(nbd, export_name.c_str()) != 0 ||
      nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || nbd_connect_socket(nbd, socket) != 0)
    return fail(why("reach the image"));
  return NbdDisk(std::move(handle));
}

Result<NbdDisk> NbdDisk::served_by(std::vector<std::string> command) {
  auto handle = std::make_unique<Handle>();
  std::vector<char*> words;
  words.reserve(command.size() + 1);
  for (std::string& word : command) words.push_back(word.data());
  words.push_back(nullptr);
  if (handle->nbd == nullptr || nbd_add_meta_context(handle->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 ||
      nbd_connect_systemd_socket_activation(handle->nbd, words.data()) != 0)
    return fail(why(format("read it through {} (Debian package qemu-utils)", command.front()).c_str()));
  return NbdDisk(std::move(handle));
}

Result<std::uint64_t> NbdDisk::size() {
  const std::int64_t size = nbd_get_size(handle_->nbd);
  if (size < 0) return fail(why("ask for the size"));
  return static_cast<std::uint64_t>(size);
}

Result<std::vector<NbdDisk::Stretch>> NbdDisk::stretches(std::uint64_t offset, std::uint64_t length) {
  std::vector<Stretch> all;
  const std::uint64_t end = offset + length;
  if (nbd_can_meta_context(handle_->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) != 1) {
    all.push_back({offset, length, true});
    return all;
  }
  struct Found {
    std::vector<Stretch>* all;
    std::uint64_t at;
    std::uint64_t end;
  } found{&all, offset, end};
  const auto collect = [](void* user, const char*, std::uint64_t, std::uint32_t* entries, std::size_t count,
                          int*) {
    auto& into = *static_cast<Found*>(user);
    for (std::size_t i = 0; i + 1 < count && into.at < into.end; i += 2) {
      const std::uint64_t part = std::min<std::uint64_t>(entries[i], into.end - into.at);
      const bool data = (entries[i + 1] & kHoleOrZero) == 0 || (entries[i + 1] & LIBNBD_STATE_ZERO) == 0;
      if (!into.all->empty() && into.all->back().data == data)
        into.all->back().length += part;
      else
        into.all->push_back({into.at, part, data});
      into.at += part;
    }
    return 0;
  };
  while (found.at < end) {
    const std::uint64_t before = found.at;
    nbd_extent_callback callback{};
    callback.callback = collect;
    callback.user_data = &found;
    if (nbd_block_status(handle_->nbd, std::min(kAskAtMost, end - found.at), found.at, callback, 0) != 0)
      return fail(why("ask where its data are"));
    if (found.at == before) return fail(ErrorKind::corrupt, "the disk's server says nothing of a range");
  }
  return all;
}

Status NbdDisk::read(std::uint64_t offset, MutableByteView into) {
  if (nbd_pread(handle_->nbd, into.data(), into.size(), offset, 0) != 0)
    return fail(why(format("read {} bytes at {}", into.size(), offset).c_str()));
  return {};
}

Status NbdDisk::write(std::uint64_t offset, ByteView from) {
  if (nbd_pwrite(handle_->nbd, from.data(), from.size(), offset, 0) != 0)
    return fail(why(format("write {} bytes at {}", from.size(), offset).c_str()));
  return {};
}

Status NbdDisk::flush() {
  if (nbd_flush(handle_->nbd, 0) != 0) return fail(why("flush"));
  return {};
}

}  // namespace cumulus
