// Readiness: waiting until a descriptor can be read or written, for descriptors that are not files of ours
// (/dev/fuse, a client's socket).
// Reactor thread only. Does not own the descriptor, which must stay open until this is destroyed.
#pragma once

#include <boost/asio/posix/basic_stream_descriptor.hpp>

#include "objectstore/io/runtime.h"

namespace cumulus {

class Readiness {
 public:
  Readiness(Runtime& runtime, int descriptor) : descriptor_(runtime.executor(), descriptor) {}
  ~Readiness() { descriptor_.release(); }
  Readiness(const Readiness&) = delete;
  Readiness& operator=(const Readiness&) = delete;

  // Until reading would not block, or the other end is gone, or cancel(): look, do not assume.
  Task<void> readable();
  Task<void> writable();
  void cancel();

 private:
  asio::posix::basic_stream_descriptor<ReactorExecutor> descriptor_;
};

}  // namespace cumulus
