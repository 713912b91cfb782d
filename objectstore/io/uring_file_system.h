// The real FileSystem: io_uring on the reactor's thread (the only include of liburing is in its .cc), with a
// fall-back to worker threads where the kernel or a container forbids io_uring. Data calls never block the
// reactor for the disk.
#pragma once

#include <memory>

#include "objectstore/io/file.h"
#include "objectstore/io/reactor.h"

namespace cumulus {

// `queue_depth` bounds operations in flight; callers beyond it wait. The reactor must outlive the file
// system.
std::unique_ptr<FileSystem> make_uring_file_system(Reactor& reactor, unsigned queue_depth = 256);
// The same port through pread/pwrite on the workers: the fall-back, and the other side of the contract test.
std::unique_ptr<FileSystem> make_worker_file_system(Reactor& reactor);

}  // namespace cumulus
