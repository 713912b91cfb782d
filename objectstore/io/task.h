// Task<T>: a coroutine on a volume's or a miner's reactor thread. The only address of Boost.Asio's coroutine
// headers.
//
// The concurrency model, once: everything that belongs to one volume (or one miner's server) is owned by ONE
// reactor thread, which runs Tasks and nothing that blocks. Work that takes long (ciphers over a megabyte,
// erasure code, RocksDB, directory fsync) is handed to worker threads with Runtime::offload: a worker sees
// values and views that nobody changes meanwhile, and returns a value. So there are no locks around volume
// state, and the simulator replays a run by replaying the order of events.
//
// Rules for coroutines (GCC 12 and clang 19 both build this):
//  - parameters by value, or by reference to something that the caller keeps alive until the Task is done;
//  - never a capturing lambda that is itself a coroutine, unless it is kept alive by a TaskGroup (spawn takes
//  the callable);
//  - no co_await inside ?:, inside a braced initialiser list, or in a condition together with a declaration;
//  - no detached work: spawn only through a TaskGroup, and join it.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>

namespace cumulus {

namespace asio = boost::asio;

using ReactorExecutor = asio::io_context::executor_type;

template <class T = void>
using Task = asio::awaitable<T, ReactorExecutor>;

}  // namespace cumulus
