// The calls of FsHistory: to the file system and to the model, and what is said when they differ.
#include <algorithm>

#include "fs/modes.h"
#include "objectstore/base/format.h"
#include "tests/model/fs_history.h"

namespace cumulus {
namespace {

using Kind = FsOperation::Kind;
constexpr std::size_t kOpenMost = 8;

OpenFlags both_ways(bool sync = false) {
  OpenFlags flags;
  flags.read = flags.write = true;
  flags.sync = sync;
  return flags;
}

template <class T>
std::optional<FsError> error_of(const FsResult<T>& result) {
  if (result) return std::nullopt;
  return result.error();
}

std::optional<FsError> error_of(const Status& status) {
  if (status) return std::nullopt;
  return FsError{FsErrorKind::io, status.error().message()};
}

bool is_zero(ByteView bytes) {
  return std::ranges::all_of(bytes, [](std::uint8_t byte) { return byte == 0; });
}

}  // namespace

FsHistory::OpenFile* FsHistory::handle_of(ModelId node) {
  const auto found = std::ranges::find(opened_, node, &OpenFile::node);
  return found == opened_.end() ? nullptr : &*found;
}

void FsHistory::operate() {
  FsOperation operation = draw();
  if (!prepare(operation)) return;
  count(FsCount::operations);
  tell(operation.describe());
  FsModel next = now();
  const FsModel::Errors errors = next.apply(operation);
  const auto answer = std::make_shared<Answer>();
  const bool returned = run(execute(operation, answer), operation.describe());
  if (!returned && errors.empty()) in_flight_ = std::move(next);
  if (returned) judge(operation, *answer, errors, std::move(next));
}

void FsHistory::judge(const FsOperation& operation, const Answer& answer, const FsModel::Errors& errors,
                      FsModel next) {
  if (answer.error) {
    if (!errors.contains(answer.error->kind))
      return fail_story(format("{}: error {} '{}', expected {}", operation.describe(),
                               static_cast<int>(answer.error->kind), answer.error->message,
                               errors.empty() ? "success" : "another"));
    return count(FsCount::refused);
  }
  if (!errors.empty())
    return fail_story(format("{}: it succeeded, expected error {}", operation.describe(),
                             static_cast<int>(*errors.begin())));
  if (answer.node != 0) real_[operation.node] = answer.node;
  if (operation.kind == Kind::rollback) opened_.clear();
  if (answer.handle != 0) opened_.push_back({operation.node, answer.handle, false});
  std::vector<ModelId> nameless;
  for (const auto& [id, node] : next.nodes())
    if (node->nlink == 0 && handle_of(id) == nullptr) nameless.push_back(id);
  for (const ModelId id : nameless) next.remove_if_nameless(id);
  const bool changed = next.nodes() != now().nodes();  // a rename to itself waits for nothing
  states_.push_back(std::move(next));
  reached_.push_back(world_->now());
  const OpenFile* opened = operation.kind == Kind::write ? handle_of(operation.node) : nullptr;
  if ((synchronous_ && changed && operation.kind < Kind::create_snapshot) ||
      (opened != nullptr && opened->sync)) {
    floor_ = states_.size() - 1;
    count(FsCount::durable_at_once);
  }
  if (operation.kind != Kind::rollback) return;
  count(FsCount::rollbacks);
  compare_all();
}

// Handles for what works through one. False when that was cut off.
bool FsHistory::prepare(FsOperation& operation) {
  if (operation.kind == Kind::copy_range && !open_node(operation.other)) return false;
  const bool needs =
      operation.kind == Kind::write || operation.kind == Kind::allocate || operation.kind == Kind::copy_range;
  return !needs || open_node(operation.node);
}

bool FsHistory::open_node(ModelId id) {
  if (handle_of(id) != nullptr) return true;
  const auto answer = std::make_shared<Answer>();
  const OpenFlags flags = both_ways(random_.once_in(8));
  const auto body = [](FsHistory& self, NodeId node, OpenFlags how,
                       std::shared_ptr<Answer> into) -> Task<void> {
    const auto handle = co_await self.mounted()->open(node, how);
    if (!handle) co_return self.fail_story("open: " + handle.error().message);
    into->handle = *handle;
  };
  if (!run(body(*this, real(id), flags, answer), "open")) return false;
  opened_.push_back({id, answer->handle, flags.sync});
  return true;
}

// --- each kind of call ---

Task<void> FsHistory::execute(FsOperation operation, std::shared_ptr<Answer> answer) {
  if (operation.kind <= Kind::rename)
    co_await execute_on_names(std::move(operation), answer);
  else if (operation.kind <= Kind::copy_range)
    co_await execute_on_data(std::move(operation), answer);
  else
    co_await execute_on_snapshots(std::move(operation), answer);
}

// What has no name left is forgotten at once, by now with handles, or not before the file system is closed.
std::optional<FsError> FsHistory::forget_some(const FsResult<NodeId>& lost_name) {
  if (lost_name && random_.once_in(2)) mounted()->forget(*lost_name);
  return error_of(lost_name);
}

Task<void> FsHistory::execute_on_names(FsOperation operation, std::shared_ptr<Answer> answer) {
  PosixFileSystem& files = *mounted();
  const NodeId parent = real(operation.parent);
  switch (operation.kind) {
    case Kind::make_node: {
      const auto made = co_await files.make_node(operation.caller, parent, operation.name, operation.what);
      if (made) answer->node = made->node;
      answer->error = error_of(made);
      break;
    }
    case Kind::create:
    case Kind::create_nameless: {
      FsResult<Created> made;
      if (operation.kind == Kind::create)
        made =
            co_await files.create(operation.caller, parent, operation.name, operation.what.mode, both_ways());
      else
        made = co_await files.create_nameless(operation.caller, parent, operation.what.mode, both_ways());
      if (made) answer->node = made->entry.node;
      if (made) answer->handle = made->handle;
      answer->error = error_of(made);
      break;
    }
    case Kind::link: {
      const NodeId node = real(operation.node);
      answer->error = error_of(co_await files.link(operation.caller, node, parent, operation.name));
      break;
    }
    case Kind::unlink:
      answer->error = forget_some(co_await files.unlink(operation.caller, parent, operation.name));
      break;
    case Kind::rmdir:
      answer->error = forget_some(co_await files.rmdir(operation.caller, parent, operation.name));
      break;
    default: {
      const NodeId other = real(operation.other_parent);
      answer->error = forget_some(co_await files.rename(operation.caller, parent, operation.name, other,
                                                        operation.other_name, operation.flags));
    }
  }
}

Task<void> FsHistory::execute_on_data(FsOperation operation, std::shared_ptr<Answer> answer) {
  PosixFileSystem& files = *mounted();
  const NodeId node = real(operation.node);
  const OpenFile* opened = handle_of(operation.node);
  const HandleId handle = opened != nullptr ? opened->handle : 0;
  switch (operation.kind) {
    case Kind::setattr: {
      answer->error = error_of(co_await files.setattr(operation.caller, node, operation.change));
      break;
    }
    case Kind::set_xattr: {
      Bytes value = *operation.data;
      answer->error = error_of(
          co_await files.set_xattr(node, operation.name, std::move(value), operation.xattr_mode, false));
      break;
    }
    case Kind::remove_xattr:
      answer->error = error_of(co_await files.remove_xattr(node, operation.name));
      break;
    case Kind::write: {
      const ByteView data = *operation.data;
      const auto done = co_await files.write(operation.caller, handle, operation.offset, data, operation.data,
                                             operation.kill_set_id);
      answer->error = error_of(done);
      if (done && *done != data.size()) fail_story(format("wrote {} of {} bytes", *done, data.size()));
      break;
    }
    case Kind::allocate:
      answer->error = error_of(co_await files.allocate(operation.caller, handle, operation.mode,
                                                       operation.offset, operation.length));
      break;
    default: {
      const HandleId from = handle_of(operation.other)->handle;
      answer->error = error_of(co_await files.copy_range(operation.caller, from, operation.other_offset,
                                                         handle, operation.offset, operation.length));
    }
  }
}

// Going back is for file systems that nobody has mounted.
Task<void> FsHistory::execute_on_snapshots(FsOperation operation, std::shared_ptr<Answer> answer) {
  Volume& volume = *machine_->volume;
  if (operation.kind == Kind::create_snapshot) {
    std::vector<Volume::SnapshotTarget> targets{{dataset_, operation.name}};
    answer->error = error_of(co_await volume.create_snapshots(std::move(targets)));
    co_return;
  }
  if (operation.kind == Kind::remove_snapshot) {
    answer->error = error_of(co_await volume.remove_snapshot(dataset_, operation.name));
    co_return;
  }
  const Status closed = co_await detach();
  if (!closed) co_return fail_story("close to go back: " + closed.error().message());
  answer->error = error_of(co_await volume.rollback(dataset_, operation.name));
  FileSystemOptions options;
  options.synchronous = synchronous_;
  const Status opened = co_await mount(options);
  if (!opened) co_return fail_story("mount after going back: " + opened.error().message());
}

// --- what changes nothing that a walk shows ---

void FsHistory::fsync() {
  const NodeId node = real(any_node());
  const std::size_t floor = states_.size() - 1;
  tell("fsync");
  if (canary_ == FsCanary::fsync_forgotten) {
    floor_ = floor;
    return;
  }
  const auto body = [](FsHistory& self, NodeId at) -> Task<void> {
    const FsStatus done = co_await self.mounted()->fsync(at);
    if (!done) self.fail_story("fsync: " + done.error().message);
  };
  if (run(body(*this, node), "fsync")) floor_ = floor;
}

void FsHistory::open_some() {
  const auto file = any_file();
  if (file && opened_.size() < kOpenMost) open_node(*file);
}

void FsHistory::release_some() {
  if (opened_.empty()) return;
  const auto chosen = opened_.begin() + static_cast<std::ptrdiff_t>(below(opened_.size()));
  const OpenFile closed = *chosen;
  opened_.erase(chosen);
  tell(format("release {}", closed.node));
  const auto body = [](FsHistory& self, HandleId handle) -> Task<void> {
    const FsStatus done = co_await self.mounted()->release(handle);
    if (!done) self.fail_story("release: " + done.error().message);
  };
  if (run(body(*this, closed.handle), "release") && handle_of(closed.node) == nullptr)
    states_.back().remove_if_nameless(closed.node);
}

void FsHistory::read_some() {
  if (opened_.empty()) return;
  const OpenFile& chosen = opened_[below(opened_.size())];
  const Bytes& data = now().node(chosen.node).data;
  const std::uint64_t offset = below(data.size() + 10);
  const auto into = std::make_shared<Bytes>(1 + below(60'000));
  const auto body = [](FsHistory& self, HandleId handle, std::uint64_t at,
                       std::shared_ptr<Bytes> to) -> Task<void> {
    PosixFileSystem& files = *self.mounted();
    FsResult<std::size_t> got = 0;
    if (!files.try_read(handle, at, *to, got)) got = co_await files.read(handle, at, *to);
    if (!got) co_return self.fail_story("read: " + got.error().message);
    to->resize(*got);
  };
  const std::uint64_t wanted = into->size();
  if (!run(body(*this, chosen.handle, offset, into), "read")) return;
  const std::uint64_t there = offset < data.size() ? std::min(wanted, data.size() - offset) : 0;
  if (into->size() != there ||
      !std::equal(into->begin(), into->end(),
                  data.begin() + static_cast<std::ptrdiff_t>(offset < data.size() ? offset : 0)))
    fail_story(format("read {} bytes at {} of {}: {} came, or others than were written", wanted, offset,
                      chosen.node, into->size()));
}

void FsHistory::seek_some() {
  const auto file = any_file();
  if (!file) return;
  const Bytes& data = now().node(*file).data;
  const std::uint64_t offset = below(data.size() + 2);
  const bool for_data = random_.once_in(2);
  const auto answer = std::make_shared<FsResult<std::uint64_t>>();
  const auto body = [](FsHistory& self, NodeId node, std::uint64_t at, bool wants_data,
                       std::shared_ptr<FsResult<std::uint64_t>> into) -> Task<void> {
    *into = co_await self.mounted()->seek(node, at, wants_data);
  };
  if (!run(body(*this, real(*file), offset, for_data, answer), "seek")) return;
  const auto& found = *answer;
  const ByteView rest = ByteView(data).subspan(std::min<std::size_t>(offset, data.size()));
  bool right = false;
  if (!found)
    right = found.error().kind == FsErrorKind::beyond_end && (rest.empty() || (for_data && is_zero(rest)));
  else if (*found < offset || *found > data.size() || offset >= data.size())
    right = false;
  else if (for_data)
    right = *found < data.size() && is_zero(rest.first(*found - offset));
  else
    right = *found == data.size() || data[*found] == 0;
  if (!right)
    fail_story(format("seek for {} from {} of {}, which has {} bytes: {}", for_data ? "data" : "a hole",
                      offset, *file, data.size(), found ? format("{}", *found) : found.error().message));
}

void FsHistory::compare_all() {
  const FsWalk found = walk_all();
  if (over() || killed_) return;
  const std::string differs = difference(FsModel::picture(now().nodes()), found.picture);
  if (!differs.empty()) return fail_story("a walk: " + differs);
  for (const auto& [path, id] : FsModel::paths(now().nodes())) real_[id] = found.nodes.at(path);
}

}  // namespace cumulus
