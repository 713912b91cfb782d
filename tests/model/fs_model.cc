#include "tests/model/fs_model.h"

#include <algorithm>

#include "fs/modes.h"
#include "objectstore/base/format.h"

namespace cumulus {
namespace {

using Kind = FsOperation::Kind;
using Fault = FsErrorKind;

// Enough to tell contents apart in a message and in a comparison of a few dozen.
std::uint64_t hash_of(ByteView bytes) { return std::hash<std::string_view>()(text_of(bytes)); }

}  // namespace

std::string FsOperation::describe() const {
  static constexpr const char* kNames[] = {
      "make_node",       "create",          "create_nameless", "link", "unlink", "rmdir",    "rename",
      "setattr",         "set_xattr",       "remove_xattr",    "open", "write",  "allocate", "copy_range",
      "create_snapshot", "remove_snapshot", "rollback"};
  std::string text = format("{} {}", kNames[static_cast<std::size_t>(kind)], node);
  if (parent != 0) text += format(" in {} '{}'", parent, name);
  if (parent == 0 && !name.empty()) text += format(" '{}'", name);
  if (other_parent != 0) text += format(" to {} '{}'", other_parent, other_name);
  if (flags.no_replace) text += " no_replace";
  if (flags.exchange) text += " exchange";
  if (kind == Kind::write || kind == Kind::allocate || kind == Kind::copy_range)
    text += format(" at {}, {} bytes", offset, data ? data->size() : length);
  if (kind == Kind::copy_range) text += format(" from {} at {}", other, other_offset);
  if (mode.punch_hole) text += " punch";
  if (mode.zero_range) text += " zero";
  if (mode.keep_size) text += " keep_size";
  if (change.size) text += format(" size {}", *change.size);
  if (change.mode) text += format(" mode {:o}", *change.mode);
  if (change.uid) text += format(" uid {}", *change.uid);
  if (change.gid) text += format(" gid {}", *change.gid);
  if (change.mtime) text += format(" mtime {}", *change.mtime);
  return text;
}

std::string difference(const FsPicture& expected, const FsPicture& found) {
  for (const auto& [path, line] : expected.lines) {
    const auto there = found.lines.find(path);
    if (there == found.lines.end()) return format("/{} is missing: {}", path, line.text);
    if (there->second.text != line.text)
      return format("/{} is {}, expected {}", path, there->second.text, line.text);
    if (line.mtime && there->second.mtime != line.mtime)
      return format("/{}: mtime {}, expected {}", path, there->second.mtime.value_or(0), *line.mtime);
  }
  for (const auto& [path, line] : found.lines)
    if (!expected.lines.contains(path)) return format("/{} should not be there: {}", path, line.text);
  return "";
}

std::string picture_text(const Attributes& about, ByteView data, const std::map<std::string, Bytes>& xattrs,
                         const std::string& first_path) {
  std::string text = format("{:o} {}:{} {} links, {} bytes", about.mode, about.uid, about.gid, about.nlink,
                            is_directory(about.mode) ? 0 : about.size);
  if (about.rdev != 0) text += format(", device {}", about.rdev);
  if (!data.empty()) text += format(" {:016x}", hash_of(data));
  for (const auto& [name, value] : xattrs) text += format(", {}={:x}", name, hash_of(value));
  if (about.nlink > 1 && !is_directory(about.mode)) text += ", the same as /" + first_path;
  return text;
}

FsModel::FsModel() {
  auto root = std::make_shared<ModelNode>();
  root->mode = kDirectoryKind | 0755;
  root->nlink = 2;
  root->parent = kRoot;
  nodes_[kRoot] = std::move(root);
}

ModelNode& FsModel::change(ModelId id) {
  auto copy = std::make_shared<ModelNode>(*nodes_.at(id));
  ModelNode& node = *copy;
  nodes_[id] = std::move(copy);
  return node;
}

std::map<std::string, ModelId> FsModel::paths(const ModelNodes& nodes) {
  std::map<std::string, ModelId> found{{"", kRoot}};
  std::vector<std::string> left{""};
  while (!left.empty()) {
    const std::string path = std::move(left.back());
    left.pop_back();
    for (const auto& [name, id] : nodes.at(found.at(path))->entries) {
      std::string below = path.empty() ? name : path + "/" + name;
      if (is_directory(nodes.at(id)->mode)) left.push_back(below);
      found[std::move(below)] = id;
    }
  }
  return found;
}

FsPicture FsModel::picture(const ModelNodes& nodes) {
  FsPicture picture;
  std::map<ModelId, std::string> first;
  for (const auto& [path, id] : paths(nodes)) {
    const ModelNode& node = *nodes.at(id);
    Attributes about;
    about.mode = node.mode;
    about.uid = node.uid;
    about.gid = node.gid;
    about.nlink = node.nlink;
    about.rdev = node.rdev;
    about.size = node.data.size();
    const std::string& first_path = first.try_emplace(id, path).first->second;
    picture.lines[path] = {picture_text(about, node.data, node.xattrs, first_path), node.mtime};
  }
  return picture;
}

// Set-gid that is not for execution stays for those who could set it again.
void FsModel::clear_set_ids(ModelNode& node, const Caller& caller) {
  if (is_directory(node.mode)) return;
  node.mode &= ~kSetUid;
  const bool could = caller.uid == 0 || caller.gid == node.gid;
  if ((node.mode & kGroupExecute) != 0 || !could) node.mode &= ~kSetGid;
}

void FsModel::put(ModelId id, std::uint64_t offset, ByteView data) {
  ModelNode& node = change(id);
  node.mtime.reset();
  if (node.data.size() < offset + data.size()) node.data.resize(offset + data.size());
  std::ranges::copy(data, node.data.begin() + static_cast<std::ptrdiff_t>(offset));
}

void FsModel::remove_if_nameless(ModelId id) {
  const auto found = nodes_.find(id);
  if (found != nodes_.end() && found->second->nlink == 0) nodes_.erase(found);
}

void FsModel::drop_nameless() {
  std::erase_if(nodes_, [](const auto& entry) { return entry.second->nlink == 0; });
}

// A directory loses its only name, anything else one of them. Whoever holds the node open keeps it.
void FsModel::drop_link(ModelId id) {
  ModelNode& node = change(id);
  node.nlink = is_directory(node.mode) ? 0 : node.nlink - 1;
  if (is_directory(node.mode)) nodes_.erase(id);
}

bool FsModel::is_below(ModelId id, ModelId above) const {
  for (ModelId at = id;; at = node(at).parent) {
    if (at == above) return true;
    if (at == kRoot) return false;
  }
}

FsModel::Errors FsModel::apply(const FsOperation& operation) {
  switch (operation.kind) {
    case Kind::make_node:
    case Kind::create:
    case Kind::create_nameless:
      return make(operation);
    case Kind::link: {
      Errors errors;
      if (is_directory(node(operation.node).mode)) errors.insert(Fault::not_permitted);
      if (node(operation.parent).entries.contains(operation.name)) errors.insert(Fault::exists);
      if (!errors.empty()) return errors;
      change(operation.parent).entries[operation.name] = operation.node;
      change(operation.parent).mtime.reset();
      ++change(operation.node).nlink;
      return {};
    }
    case Kind::unlink:
    case Kind::rmdir:
      return remove(operation);
    case Kind::rename:
      return rename(operation);
    case Kind::setattr:
      return set_attributes(operation);
    case Kind::set_xattr:
    case Kind::remove_xattr:
      return set_xattr(operation);
    case Kind::write:
      put(operation.node, operation.offset, *operation.data);
      if (operation.kill_set_id) clear_set_ids(change(operation.node), operation.caller);
      return {};
    case Kind::allocate:
      return allocate(operation);
    case Kind::copy_range:
      return copy(operation);
    case Kind::create_snapshot:
    case Kind::remove_snapshot:
    case Kind::rollback:
      return turn_back(operation);
  }
  return {Fault::invalid};
}

FsModel::Errors FsModel::make(const FsOperation& operation) {
  const ModelNode& above = node(operation.parent);
  const bool named = operation.kind != Kind::create_nameless;
  if (named && operation.name.size() > 255) return {Fault::name_too_long};
  if (named && above.entries.contains(operation.name)) return {Fault::exists};
  auto made = std::make_shared<ModelNode>();
  made->mode = operation.what.mode;
  made->uid = operation.caller.uid;
  made->gid = (above.mode & kSetGid) != 0 ? above.gid : operation.caller.gid;
  if (!is_link(made->mode)) made->mode &= ~(operation.caller.umask & 0777);
  if (is_directory(made->mode)) {
    made->mode |= above.mode & kSetGid;
    made->parent = operation.parent;
  }
  made->nlink = !named ? 0 : is_directory(made->mode) ? 2 : 1;
  made->rdev = operation.what.rdev;
  made->data.assign(operation.what.symlink.begin(), operation.what.symlink.end());
  if (named) {
    ModelNode& parent = change(operation.parent);
    parent.entries[operation.name] = operation.node;
    parent.mtime.reset();
    if (is_directory(made->mode)) ++parent.nlink;
  }
  nodes_[operation.node] = std::move(made);
  return {};
}

FsModel::Errors FsModel::remove(const FsOperation& operation) {
  const ModelNode& above = node(operation.parent);
  const auto found = above.entries.find(operation.name);
  if (found == above.entries.end()) return {Fault::not_found};
  const ModelId id = found->second;
  const bool directory = is_directory(node(id).mode);
  if (operation.kind == Kind::rmdir && !directory) return {Fault::not_directory};
  if (operation.kind == Kind::unlink && directory) return {Fault::is_directory};
  if (directory && !node(id).entries.empty()) return {Fault::not_empty};
  ModelNode& parent = change(operation.parent);
  parent.entries.erase(operation.name);
  parent.mtime.reset();
  if (directory) --parent.nlink;
  drop_link(id);
  return {};
}

FsModel::Errors FsModel::rename(const FsOperation& operation) {
  const auto& from = node(operation.parent).entries;
  const auto& to = node(operation.other_parent).entries;
  const auto source = from.find(operation.name);
  if (source == from.end()) return {Fault::not_found};
  const ModelId moved = source->second;
  const auto target = to.find(operation.other_name);
  const bool replaces = target != to.end();
  const ModelId other = replaces ? target->second : 0;
  const bool directory = is_directory(node(moved).mode);
  const bool other_directory = replaces && is_directory(node(other).mode);
  Errors errors;
  if (directory && is_below(operation.other_parent, moved)) errors.insert(Fault::loop);
  if (other_directory && operation.flags.exchange && is_below(operation.parent, other))
    errors.insert(Fault::loop);
  if (!replaces && operation.flags.exchange) errors.insert(Fault::not_found);
  if (replaces && operation.flags.no_replace) errors.insert(Fault::exists);
  if (!errors.empty()) return errors;
  if (other == moved) return {};
  if (replaces && !operation.flags.exchange) {
    if (directory && !other_directory) errors.insert(Fault::not_directory);
    if (!directory && other_directory) errors.insert(Fault::is_directory);
    if (other_directory && !node(other).entries.empty()) errors.insert(Fault::not_empty);
    if (!errors.empty()) return errors;
  }
  for (const ModelId parent : {operation.parent, operation.other_parent}) change(parent).mtime.reset();
  change(operation.parent).entries.erase(operation.name);
  change(operation.other_parent).entries[operation.other_name] = moved;
  if (directory) {
    --change(operation.parent).nlink;
    ++change(operation.other_parent).nlink;
    change(moved).parent = operation.other_parent;
  }
  if (!replaces) return {};
  if (other_directory) --change(operation.other_parent).nlink;
  if (!operation.flags.exchange) {
    drop_link(other);
    return {};
  }
  change(operation.parent).entries[operation.name] = other;
  if (other_directory) {
    ++change(operation.parent).nlink;
    change(other).parent = operation.parent;
  }
  return {};
}

FsModel::Errors FsModel::set_attributes(const FsOperation& operation) {
  const AttributeChange& wanted = operation.change;
  ModelNode& node = change(operation.node);
  const std::uint32_t uid = operation.caller.uid;
  const bool may = uid == 0 || uid == node.uid || (node.mode & (kGroupWrite | kOthersWrite)) != 0;
  if (wanted.uid || wanted.gid || wanted.kill_set_id || (wanted.kill_set_id_only && may)) {
    clear_set_ids(node, operation.caller);
    if (is_file(node.mode)) node.xattrs.erase("security.capability");
  }
  if (wanted.uid) node.uid = *wanted.uid;
  if (wanted.gid) node.gid = *wanted.gid;
  if (wanted.mode) node.mode = (node.mode & kKindMask) | *wanted.mode;
  if (wanted.size) {
    node.data.resize(*wanted.size);
    node.mtime.reset();
  }
  if (wanted.mtime) node.mtime = wanted.mtime;
  return {};
}

FsModel::Errors FsModel::set_xattr(const FsOperation& operation) {
  const bool there = node(operation.node).xattrs.contains(operation.name);
  const bool removes = operation.kind == Kind::remove_xattr;
  if (there && !removes && operation.xattr_mode == PosixFileSystem::XattrMode::create) return {Fault::exists};
  if (!there && (removes || operation.xattr_mode == PosixFileSystem::XattrMode::replace))
    return {Fault::no_data};
  auto& xattrs = change(operation.node).xattrs;
  if (removes)
    xattrs.erase(operation.name);
  else
    xattrs[operation.name] = *operation.data;
  return {};
}

FsModel::Errors FsModel::allocate(const FsOperation& operation) {
  const std::uint64_t size = node(operation.node).data.size();
  const std::uint64_t end = operation.offset + operation.length;
  const bool grows = end > size && !operation.mode.keep_size && !operation.mode.punch_hole;
  const bool zeros = operation.mode.punch_hole || operation.mode.zero_range;
  ModelNode& file = change(operation.node);
  file.mtime.reset();
  if (operation.caller.uid != 0) clear_set_ids(file, operation.caller);
  if (!grows && (!zeros || operation.offset >= size)) return {};
  if (grows) file.data.resize(end);
  if (zeros) {
    const std::uint64_t last = std::min<std::uint64_t>(end, file.data.size());
    std::fill(file.data.begin() + static_cast<std::ptrdiff_t>(operation.offset),
              file.data.begin() + static_cast<std::ptrdiff_t>(last), std::uint8_t{0});
  }
  return {};
}

FsModel::Errors FsModel::copy(const FsOperation& operation) {
  const Bytes source = node(operation.other).data;
  if (operation.other_offset >= source.size()) return {};
  const std::uint64_t length =
      std::min<std::uint64_t>(operation.length, source.size() - operation.other_offset);
  put(operation.node, operation.offset, ByteView(source).subspan(operation.other_offset, length));
  if (operation.caller.uid != 0) clear_set_ids(change(operation.node), operation.caller);
  return {};
}

FsModel::Errors FsModel::turn_back(const FsOperation& operation) {
  const auto found = snapshots_.find(operation.name);
  if (operation.kind == Kind::create_snapshot) {
    snapshots_[operation.name] = nodes_;
    return {};
  }
  if (operation.kind == Kind::remove_snapshot) {
    snapshots_.erase(found);
    return {};
  }
  nodes_ = found->second;
  drop_nameless();
  return {};
}

}  // namespace cumulus
