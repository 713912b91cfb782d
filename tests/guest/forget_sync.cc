// A canary's tool, preloaded into the volume daemon by tests: every fdatasync of the program itself says
// "done" and does nothing, through io_uring (also behind a write) and as a call. Calls from libraries (the
// index's) and of directories stay as they are, so that what is missing is exactly what the log promises. It
// must never be linked into a program.
#include <cstring>
#include <dlfcn.h>
#include <liburing.h>
#include <sys/uio.h>

namespace {

template <typename Function>
Function* next_of(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

bool in_program(void* address) {
  Dl_info caller{};
  return dladdr(address, &caller) != 0 && caller.dli_fname != nullptr &&
         std::strstr(caller.dli_fname, ".so") == nullptr;
}

void forget_syncs(io_uring* ring) {
  const io_uring_sq& queue = ring->sq;
  for (unsigned at = queue.sqe_head; at != queue.sqe_tail; ++at) {
    io_uring_sqe& entry = queue.sqes[at & *queue.kring_mask];
    if (entry.opcode == IORING_OP_WRITE) entry.rw_flags &= ~RWF_DSYNC;
    if (entry.opcode != IORING_OP_FSYNC) continue;
    const auto user_data = entry.user_data;
    io_uring_prep_nop(&entry);
    entry.user_data = user_data;
  }
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) int io_uring_submit(io_uring* ring) {
  static auto* const real = next_of<int(io_uring*)>("io_uring_submit");
  forget_syncs(ring);
  return real(ring);
}

__attribute__((visibility("default"))) int fdatasync(int descriptor) {
  static auto* const real = next_of<int(int)>("fdatasync");
  return in_program(__builtin_return_address(0)) ? 0 : real(descriptor);
}

}  // extern "C"
