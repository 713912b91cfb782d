#include "fs/fuse/call.h"

#include <cerrno>

#include "fs/fuse/translate.h"
#include "objectstore/base/check.h"

namespace cumulus {
namespace {

// A signal may well hit a call that is about to end; only one that really waits is given up.
constexpr Duration kPatience = std::chrono::milliseconds(500);
fuse_file_info file_info(std::uint64_t handle) {
  fuse_file_info info{};
  info.fh = handle;
  info.keep_cache = 1;
  return info;
}

}  // namespace

FuseCall::FuseCall(FuseSession& session, fuse_req_t request) : session_(session), request_(request) {
  const fuse_ctx* context = fuse_req_ctx(request);
  caller_ = to_caller(*context);
}

FuseCall::~FuseCall() {
  if (patience_ != 0) session_.runtime().cancel_timer(patience_);
  CHECK(request_ == nullptr);
}

void FuseCall::hear_interrupts() { fuse_req_interrupt_func(request_, interrupted, this); }

void FuseCall::interrupted(fuse_req_t, void* self) {
  auto& call = *static_cast<FuseCall*>(self);
  if (call.patience_ != 0) return;
  Runtime& runtime = call.session_.runtime();
  call.patience_ = runtime.start_timer(runtime.now() + kPatience, [&call] {
    call.patience_ = 0;
    call.error(EINTR);
  });
}

// The request, once. Who is told no more what the call did believes that it did nothing.
bool FuseCall::take(fuse_req_t& request) {
  request = std::exchange(request_, nullptr);
  if (request != nullptr) return true;
  session_.forget_in_kernel(std::exchange(changed_, {}));
  return false;
}

bool FuseCall::error(int code) {
  fuse_req_t request;
  return take(request) && fuse_reply_err(request, code) == 0;
}

bool FuseCall::failed(const FsError& why) { return error(to_errno(why)); }

bool FuseCall::entry(const Entry& made, std::uint32_t name_valid) {
  fuse_req_t request;
  if (!take(request)) return false;
  const fuse_entry_param param = entry_param(made, name_valid);
  return fuse_reply_entry(request, &param) == 0;
}

bool FuseCall::no_entry(std::uint32_t valid) {
  fuse_req_t request;
  if (!take(request)) return false;
  fuse_entry_param param{};
  param.entry_timeout = valid;
  return fuse_reply_entry(request, &param) == 0;
}

bool FuseCall::created(const Entry& made, std::uint64_t handle) {
  fuse_req_t request;
  if (!take(request)) return false;
  const fuse_entry_param param = entry_param(made, kValidForGood);
  const fuse_file_info info = file_info(handle);
  return fuse_reply_create(request, &param, &info) == 0;
}

bool FuseCall::attributes(const Attributes& now) {
  fuse_req_t request;
  if (!take(request)) return false;
  const struct stat about = to_stat(now);
  return fuse_reply_attr(request, &about, attributes_valid(now)) == 0;
}

bool FuseCall::opened(std::uint64_t handle) {
  fuse_req_t request;
  if (!take(request)) return false;
  const fuse_file_info info = file_info(handle);
  return fuse_reply_open(request, &info) == 0;
}

bool FuseCall::bytes(ByteView data) {
  fuse_req_t request;
  return take(request) &&
         fuse_reply_buf(request, reinterpret_cast<const char*>(data.data()), data.size()) == 0;
}

bool FuseCall::written(std::size_t count) {
  fuse_req_t request;
  return take(request) && fuse_reply_write(request, count) == 0;
}

bool FuseCall::size(std::size_t count) {
  fuse_req_t request;
  return take(request) && fuse_reply_xattr(request, count) == 0;
}

bool FuseCall::offset(std::uint64_t at) {
  fuse_req_t request;
  return take(request) && fuse_reply_lseek(request, static_cast<off_t>(at)) == 0;
}

bool FuseCall::statfs(const FileSystemStatus& status) {
  fuse_req_t request;
  if (!take(request)) return false;
  const struct statvfs about = to_statvfs(status);
  return fuse_reply_statfs(request, &about) == 0;
}

}  // namespace cumulus
