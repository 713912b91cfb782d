// FuseChannel: the way requests come from the kernel and answers go back; replaceable, so that one day
// requests may come through a ring instead. The one here is /dev/fuse.
//
// Requests are received into pooled buffers, because a WRITE's payload stays in its buffer until the file
// system has taken it. Reactor thread only, except send(), which any thread may call (the kernel takes each
// message whole).
#pragma once

#include <memory>
#include <sys/uio.h>

#include "objectstore/base/bytes.h"
#include "objectstore/io/readiness.h"

namespace cumulus {

class FuseChannel {
 public:
  enum class Got : std::uint8_t { request, nothing, ended };

  virtual ~FuseChannel() = default;
  // Takes the next request into `into` and sets its `size`. nothing: none waits now. ended: the kernel has
  // let go (unmounted or aborted).
  virtual Got receive(MutableByteView into, std::size_t& size) = 0;
  // Until there may be something to receive, or interrupt().
  virtual Task<void> wait() = 0;
  virtual void interrupt() = 0;
  // An answer or a notification, whole. 0 or a negative errno; -ENOENT: nobody waits for this answer any
  // more.
  virtual ssize_t send(const iovec* parts, int count) = 0;
};

// Over the descriptor of a mounted connection, which it owns from now on.
std::unique_ptr<FuseChannel> make_device_channel(Runtime& runtime, int device);

}  // namespace cumulus
