// FsModel: what a POSIX file system must answer, written the obvious way: nodes with bytes, names and
// attributes in maps. A state costs little to keep: nodes that did not change are shared. It knows nothing of
// the code that it checks but the values of its door (fs/file_system.h). Pure.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "fs/file_system.h"

namespace cumulus {

using ModelId = std::uint64_t;  // never used again; 1 is the root

struct ModelNode {
  std::uint32_t mode = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t nlink = 0;
  std::uint32_t rdev = 0;
  Bytes data;  // of a symbolic link: where it points
  std::map<std::string, Bytes> xattrs;
  std::map<std::string, ModelId> entries;
  ModelId parent = 0;                 // of directories
  std::optional<std::int64_t> mtime;  // while nothing but setattr has set it
};
using ModelNodes = std::map<ModelId, std::shared_ptr<const ModelNode>>;

// One call through the door, by the model's own numbers.
struct FsOperation {
  enum class Kind : std::uint8_t {
    make_node,
    create,
    create_nameless,
    link,
    unlink,
    rmdir,
    rename,
    setattr,
    set_xattr,
    remove_xattr,
    write,
    allocate,
    copy_range,
    create_snapshot,
    remove_snapshot,
    rollback,
  };
  Kind kind = Kind::make_node;
  ModelId parent = 0;
  std::string name;
  ModelId other_parent = 0;
  std::string other_name;
  RenameFlags flags;
  ModelId node = 0;   // what is changed, or is to be made
  ModelId other = 0;  // the source of copy_range
  NewNode what;
  Caller caller;
  AttributeChange change;
  PosixFileSystem::XattrMode xattr_mode = PosixFileSystem::XattrMode::any;
  std::shared_ptr<const Bytes> data;
  std::uint64_t offset = 0;
  std::uint64_t other_offset = 0;
  std::uint64_t length = 0;
  AllocateMode mode;
  bool kill_set_id = false;

  std::string describe() const;
};

// A tree as a walk shows it: what two trees must have in common to be the same one.
struct FsPicture {
  struct Line {
    std::string text;  // kind, mode, owner, links, size, content, xattrs, where its inode was met first
    std::optional<std::int64_t> mtime;  // nothing when the model does not know
  };
  std::map<std::string, Line> lines;  // by path
};
// The first difference; empty when there is none. `expected` may not know some times.
std::string difference(const FsPicture& expected, const FsPicture& found);
// A line of a picture, the same for the model and for what was read back.
std::string picture_text(const Attributes& about, ByteView data, const std::map<std::string, Bytes>& xattrs,
                         const std::string& first_path);

class FsModel {
 public:
  static constexpr ModelId kRoot = 1;
  FsModel();

  // Empty: the operation succeeds and is done now. Otherwise nothing changed, and one of these is the answer.
  using Errors = std::set<FsErrorKind>;
  Errors apply(const FsOperation& operation);

  // Nodes without a name go when nothing holds them open.
  void remove_if_nameless(ModelId id);
  void drop_nameless();

  const ModelNodes& nodes() const { return nodes_; }
  const ModelNode& node(ModelId id) const { return *nodes_.at(id); }
  bool contains(ModelId id) const { return nodes_.contains(id); }
  const std::map<std::string, ModelNodes>& snapshots() const { return snapshots_; }
  static FsPicture picture(const ModelNodes& nodes);
  // Every name, the root's "" included.
  static std::map<std::string, ModelId> paths(const ModelNodes& nodes);

 private:
  ModelNode& change(ModelId id);
  Errors make(const FsOperation& operation);
  Errors remove(const FsOperation& operation);
  Errors rename(const FsOperation& operation);
  Errors set_attributes(const FsOperation& operation);
  Errors set_xattr(const FsOperation& operation);
  Errors allocate(const FsOperation& operation);
  Errors copy(const FsOperation& operation);
  Errors turn_back(const FsOperation& operation);
  void put(ModelId id, std::uint64_t offset, ByteView data);
  void drop_link(ModelId id);
  bool is_below(ModelId id, ModelId above) const;
  static void clear_set_ids(ModelNode& node, const Caller& caller);

  ModelNodes nodes_;
  std::map<std::string, ModelNodes> snapshots_;
};

}  // namespace cumulus
