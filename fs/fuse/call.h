// FuseCall: one request of the kernel, from the moment it is decoded until it was answered, exactly once. An
// interrupted call that does not end soon is answered EINTR, and its work goes on with nobody waiting. When
// it ends, the kernel is told to forget what the call has changed behind it. Reactor thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fs/file_system.h"
#include "fs/fuse/session.h"

namespace cumulus {

class FuseCall {
 public:
  FuseCall(FuseSession& session, fuse_req_t request);
  ~FuseCall();  // answered
  FuseCall(const FuseCall&) = delete;
  FuseCall& operator=(const FuseCall&) = delete;

  FuseSession& session() { return session_; }
  PosixFileSystem& files() { return session_.files(); }
  const Caller& caller() const { return caller_; }
  // From now on the call may be waiting: an interrupt is heard.
  void hear_interrupts();
  // What the call is about to change: a node, with its pages or without; a name in a directory.
  void changes(NodeId node, bool pages) { changed_.push_back({node, {}, pages}); }
  void changes(NodeId directory, const std::string& name) { changed_.push_back({directory, name}); }

  // Answers. False: nobody took it (the caller was interrupted before), so what it would have held is to be
  // undone.
  bool error(int code);
  bool done() { return error(0); }
  bool failed(const FsError& error);
  bool finish(const FsStatus& status) { return status ? done() : failed(status.error()); }
  bool entry(const Entry& entry, std::uint32_t name_valid);
  bool no_entry(std::uint32_t valid);  // the kernel remembers that too
  bool created(const Entry& entry, std::uint64_t handle);
  bool attributes(const Attributes& attributes);
  bool opened(std::uint64_t handle);
  bool bytes(ByteView data);
  bool written(std::size_t count);
  bool size(std::size_t count);  // of an xattr
  bool offset(std::uint64_t at);
  bool statfs(const FileSystemStatus& status);
  fuse_req_t request() { return request_; }

 private:
  static void interrupted(fuse_req_t, void* self);
  bool take(fuse_req_t& request);

  FuseSession& session_;
  fuse_req_t request_;
  Caller caller_;
  TimerId patience_ = 0;
  std::vector<FuseSession::Stale> changed_;
};
using Call = std::unique_ptr<FuseCall>;

}  // namespace cumulus
