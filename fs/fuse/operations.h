// The operations: each decodes a request of the kernel, calls one verb of the file system, and answers.
// Reactor thread.
#pragma once

#include <cstring>
#include <string>
#include <utility>

#include "fs/fuse/call.h"
#include "fs/fuse/kernel_protocol.h"

namespace cumulus {

// libfuse's table, with every operation that it knows.
const fuse_lowlevel_ops& fuse_operations();

void add_name_operations(fuse_lowlevel_ops& table);
void add_attribute_operations(fuse_lowlevel_ops& table);
void add_data_operations(fuse_lowlevel_ops& table);
void add_directory_operations(fuse_lowlevel_ops& table);

inline FuseSession& session_of(fuse_req_t request) {
  return *static_cast<FuseSession*>(fuse_req_userdata(request));
}

// Starts a call: body(call) is its Task, whose parameters are made from the request here, while it is still
// there.
template <class Body>
void spawn(fuse_req_t request, Body body) {
  FuseSession& session = session_of(request);
  auto call = std::make_unique<FuseCall>(session, request);
  call->hear_interrupts();
  session.calls().spawn(body(std::move(call)));
}

// The request's own structure, as the kernel laid it out, where libfuse does not pass all of it on.
template <class Body>
Body body_of(const FuseSession& session) {
  Body body{};
  const ByteView whole = session.request();
  const std::size_t after = sizeof(fuse_kernel::InHeader);
  if (whole.size() > after)
    std::memcpy(&body, whole.data() + after, std::min(whole.size() - after, sizeof body));
  return body;
}

}  // namespace cumulus
