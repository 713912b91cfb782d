#include "fs/difference.h"

#include <algorithm>
#include <tuple>

#include "fs/modes.h"
#include "fs/names.h"
#include "fs/object_files.h"
#include "objectstore/base/format.h"

namespace cumulus {
namespace {

constexpr std::size_t kIdsAtOnce = 16384;
constexpr std::size_t kPage = 256;
constexpr std::uint64_t kWindow = 64u << 20;  // of a file, looked at in one step

// Object numbers, put in ascending.
class ObjectSet {
 public:
  explicit ObjectSet(std::size_t bytes_max) : most_(bytes_max / sizeof(Word)) {}

  void add(ObjectId object) {
    const std::uint64_t place = object / 64;
    if (words_.empty() || words_.back().place != place) {
      if (words_.size() >= most_) everything_ = true;
      if (everything_) return;
      words_.push_back({place, 0});
    }
    words_.back().bits |= std::uint64_t{1} << (object % 64);
  }
  bool has(ObjectId object) const {
    if (everything_) return true;
    const auto word = std::ranges::lower_bound(words_, object / 64, {}, &Word::place);
    return word != words_.end() && word->place == object / 64 && (word->bits >> (object % 64) & 1) != 0;
  }
  bool is_everything() const { return everything_; }

 private:
  struct Word {
    std::uint64_t place = 0;
    std::uint64_t bits = 0;
  };
  std::size_t most_;
  bool everything_ = false;
  std::vector<Word> words_;
};

class Comparison {
 public:
  Comparison(Runtime& runtime, Volume& volume, View older, View newer, DifferenceLimits limits,
             PathChangeSink sink)
      : runtime_(runtime),
        volume_(volume),
        older_(std::move(older)),
        newer_(std::move(newer)),
        rename_bytes_left_(limits.rename_bytes),
        differing_(limits.object_bytes),
        sink_(std::move(sink)) {}

  Task<Status> run();

 private:
  struct Node {
    Inode inode;
    std::uint64_t size = 0;
  };
  // A directory that is being listed.
  struct Level {
    ObjectId directory = 0;
    std::size_t path_length = 0;
    std::vector<OmapEntry> page;
    std::vector<OmapEntry>
        others;  // the same stretch of keys in the other instant, when the directory differs
    std::size_t at = 0;
    bool ends = false;
  };
  // A name of the older instant that shows nothing, or something else, while its node lives on.
  struct Moved {
    ObjectId object = 0;
    bool told = false;
    std::uint32_t mode = 0;
    std::string path;
  };
  using Kind = PathChange::Kind;

  Task<Status> collect();
  Task<Status> walk(bool old_tree);
  Task<Status> turn_page(Level& level, const View& view, const View& other);
  Task<Status> see_old(std::string path, ObjectId directory, EntryRecord entry);
  Task<Status> see_new(std::string path, ObjectId directory, EntryRecord entry, bool same);
  Task<Status> compare(ObjectId object, std::string path);
  Task<Result<std::optional<Node>>> load(const View& view, ObjectId object);
  Task<Result<std::optional<EntryRecord>>> entry_at(const View& view, ObjectId directory, std::string name);
  Task<Result<bool>> lives_in_both(ObjectId object);
  Task<Result<bool>> is_replaced(const EntryRecord& entry, const std::optional<EntryRecord>& other);
  Task<Result<bool>> bytes_differ(ObjectId object, std::uint64_t size);
  Task<Status> say(Kind kind, std::uint8_t type, std::string path);
  Task<Status> say_renamed(std::uint8_t type, std::string path, std::string from);
  Moved* take_moved(ObjectId object);

  Runtime& runtime_;
  Volume& volume_;
  View older_;
  View newer_;
  NameSalt salt_{};
  std::size_t rename_bytes_left_;
  ObjectSet differing_;
  std::vector<Moved> moved_;  // by object once the older tree was walked
  PathChangeSink sink_;
};

Task<Status> Comparison::run() {
  for (const View* view : {&older_, &newer_}) {
    CO_TRY(const auto stat, co_await volume_.stat(*view, ObjectFiles::kOrphans));
    if (!stat || stat->header.size() != salt_.size())
      co_return fail(ErrorKind::corrupt, "one of the two holds no file system");
    NameSalt salt;
    copy_bytes(stat->header, salt.data());
    if (view == &newer_ && salt != salt_)
      co_return fail(ErrorKind::invalid,
                     "they are two file systems with nothing in common: give two instants of one, or of a "
                     "clone and what it was cloned from");
    salt_ = salt;
  }
  CO_TRY_OK(co_await collect());
  CO_TRY_OK(co_await walk(true));
  std::ranges::sort(moved_, {}, [](const Moved& one) { return std::tie(one.object, one.path); });
  if (differing_.has(ObjectFiles::kRoot)) {
    std::string top = "/";
    CO_TRY_OK(co_await compare(ObjectFiles::kRoot, std::move(top)));
  }
  CO_TRY_OK(co_await walk(false));
  for (Moved& one : moved_) {
    if (one.told) continue;
    CO_TRY_OK(co_await say(Kind::removed, static_cast<std::uint8_t>(one.mode >> 12), std::move(one.path)));
  }
  co_return Status();
}

Task<Status> Comparison::collect() {
  for (ObjectId after = 0;;) {
    CO_TRY(const auto page, co_await volume_.diff_objects(older_, newer_, after, kIdsAtOnce));
    for (const ObjectId object : page) differing_.add(object);
    if (page.size() < kIdsAtOnce || differing_.is_everything()) co_return Status();
    after = page.back();
    co_await runtime_.yield();
  }
}

Task<Status> Comparison::turn_page(Level& level, const View& view, const View& other) {
  co_await runtime_.yield();
  std::optional<Bytes> after;
  if (!level.page.empty()) after = level.page.back().key;
  CO_TRY(level.page, co_await volume_.omap_list(view, level.directory, after, kPage));
  level.at = 0;
  level.ends = level.page.size() < kPage;
  level.others.clear();
  if (level.page.empty() || !differing_.has(level.directory)) co_return Status();
  // Where the other has more names in this stretch of keys, the rest of them is looked up one by one.
  CO_TRY(level.others, co_await volume_.omap_list(other, level.directory, std::move(after), kPage));
  co_return Status();
}

Task<Status> Comparison::walk(bool old_tree) {
  const View& view = old_tree ? older_ : newer_;
  const View& other = old_tree ? newer_ : older_;
  std::string path;
  std::vector<Level> way(1);
  way.back().directory = ObjectFiles::kRoot;
  while (!way.empty()) {
    Level& level = way.back();
    path.resize(level.path_length);
    if (level.at == level.page.size()) {
      if (level.ends) {
        way.pop_back();
        continue;
      }
      CO_TRY_OK(co_await turn_page(level, view, other));
      continue;
    }
    const OmapEntry& row = level.page[level.at++];
    CO_TRY(const EntryRecord entry, EntryRecord::decode(row.value));
    if (entry.object == 0) continue;
    path += '/';
    path += entry.name;
    bool same = !differing_.has(level.directory);
    if (!same) {
      const auto twin = std::ranges::lower_bound(level.others, row.key, {}, &OmapEntry::key);
      same = twin != level.others.end() && twin->key == row.key && twin->value == row.value;
    }
    if (old_tree && !same) {
      CO_TRY_OK(co_await see_old(path, level.directory, entry));
    } else if (!old_tree && (!same || differing_.has(entry.object))) {
      CO_TRY_OK(co_await see_new(path, level.directory, entry, same));
    }
    if (!is_directory(std::uint32_t{entry.type} << 12)) continue;
    Level below;
    below.directory = entry.object;
    below.path_length = path.size();
    way.push_back(std::move(below));
  }
  co_return Status();
}

Task<Result<std::optional<Comparison::Node>>> Comparison::load(const View& view, ObjectId object) {
  CO_TRY(const auto stat, co_await volume_.stat(view, object));
  if (!stat) co_return std::nullopt;
  CO_TRY(const Inode inode, Inode::decode(stat->header));
  if (inode.nlink == 0) co_return std::nullopt;
  co_return Node{inode, stat->size};
}

Task<Result<std::optional<EntryRecord>>> Comparison::entry_at(const View& view, ObjectId directory,
                                                              std::string name) {
  CO_TRY(auto place, co_await find_name(volume_, view, directory, salt_, std::move(name)));
  if (!place) co_return std::nullopt;
  co_return std::move(place->entry);
}

Task<Result<bool>> Comparison::lives_in_both(ObjectId object) {
  CO_TRY(const auto before, co_await load(older_, object));
  if (!before) co_return false;
  CO_TRY(const auto now, co_await load(newer_, object));
  co_return now && now->inode.btime == before->inode.btime &&
      (now->inode.mode & kKindMask) == (before->inode.mode & kKindMask);
}

// Nodes of one kind, each in its instant only, under one name: a file that was replaced.
Task<Result<bool>> Comparison::is_replaced(const EntryRecord& entry,
                                           const std::optional<EntryRecord>& other) {
  if (!other || other->type != entry.type || is_directory(std::uint32_t{entry.type} << 12)) co_return false;
  CO_TRY(const bool lives_on, co_await lives_in_both(other->object));
  co_return !lives_on;
}

Task<Status> Comparison::see_old(std::string path, ObjectId directory, EntryRecord entry) {
  CO_TRY(const auto now, co_await entry_at(newer_, directory, entry.name));
  if (now && now->object == entry.object && now->type == entry.type) co_return Status();
  CO_TRY(const bool lives, co_await lives_in_both(entry.object));
  const std::size_t takes = sizeof(Moved) + path.capacity();
  if (lives && takes <= rename_bytes_left_) {
    rename_bytes_left_ -= takes;
    moved_.push_back({entry.object, false, std::uint32_t{entry.type} << 12, std::move(path)});
    co_return Status();
  }
  CO_TRY(const bool replaced, co_await is_replaced(entry, now));
  if (replaced && !lives) co_return Status();  // told as modified when the newer tree is walked
  co_return co_await say(Kind::removed, entry.type, std::move(path));
}

Comparison::Moved* Comparison::take_moved(ObjectId object) {
  for (auto one = std::ranges::lower_bound(moved_, object, {}, &Moved::object);
       one != moved_.end() && one->object == object; ++one) {
    if (one->told) continue;
    one->told = true;
    return &*one;
  }
  return nullptr;
}

Task<Status> Comparison::see_new(std::string path, ObjectId directory, EntryRecord entry, bool same) {
  std::optional<EntryRecord> before;
  if (!same) {
    CO_TRY(before, co_await entry_at(older_, directory, entry.name));
    same = before && before->object == entry.object && before->type == entry.type;
  }
  if (same) {
    if (differing_.has(entry.object)) co_return co_await compare(entry.object, std::move(path));
    co_return Status();
  }
  CO_TRY(const bool lived, co_await lives_in_both(entry.object));
  Moved* moved = lived ? take_moved(entry.object) : nullptr;
  if (moved != nullptr) {
    CO_TRY_OK(co_await say_renamed(entry.type, path, std::move(moved->path)));
    co_return co_await compare(entry.object, std::move(path));
  }
  CO_TRY(const bool replaced, co_await is_replaced(entry, before));
  co_return co_await say(replaced && !lived ? Kind::modified : Kind::added, entry.type, std::move(path));
}

Task<Status> Comparison::compare(ObjectId object, std::string path) {
  CO_TRY(const auto before, co_await load(older_, object));
  CO_TRY(const auto now, co_await load(newer_, object));
  if (!before || !now) co_return Status();  // a head that goes on changing
  const Inode& a = before->inode;
  const Inode& b = now->inode;
  const auto type = static_cast<std::uint8_t>((b.mode & kKindMask) >> 12);
  const bool directory = is_directory(b.mode);
  bool modified = !directory && (before->size != now->size || a.btime != b.btime);
  if (is_file(b.mode) && !modified) {
    CO_TRY(modified, co_await bytes_differ(object, now->size));
  }
  if (modified) co_return co_await say(Kind::modified, type, std::move(path));
  bool changed = a.mode != b.mode || a.uid != b.uid || a.gid != b.gid || a.rdev != b.rdev ||
                 (!directory && a.mtime != b.mtime);
  if (!changed) {
    CO_TRY(const auto old_xattrs, co_await volume_.xattrs(older_, object));
    CO_TRY(const auto new_xattrs, co_await volume_.xattrs(newer_, object));
    changed = !std::ranges::equal(old_xattrs, new_xattrs, [](const OmapEntry& one, const OmapEntry& other) {
      return one.key == other.key && one.value == other.value;
    });
  }
  if (!changed) co_return Status();
  co_return co_await say(Kind::metadata, type, std::move(path));
}

// Files may be 2^63-1 bytes of holes: only where one of the two was ever written is looked at.
Task<Result<bool>> Comparison::bytes_differ(ObjectId object, std::uint64_t size) {
  for (std::uint64_t at = 0; at < size;) {
    CO_TRY(const auto in_old, co_await volume_.next_written(older_, object, at));
    CO_TRY(const auto in_new, co_await volume_.next_written(newer_, object, at));
    at = std::min({in_old.value_or(size), in_new.value_or(size), size});
    if (at == size) break;
    const std::uint64_t length = std::min(kWindow, size - at);
    CO_TRY(const auto ranges, co_await volume_.diff_ranges(older_, newer_, object, at, length));
    if (!ranges.empty()) co_return true;
    at += length;
    co_await runtime_.yield();
  }
  co_return false;
}

Task<Status> Comparison::say(Kind kind, std::uint8_t type, std::string path) {
  PathChange change;
  change.kind = kind;
  change.mode = std::uint32_t{type} << 12;
  change.path = std::move(path);
  co_return co_await sink_(std::move(change));
}

Task<Status> Comparison::say_renamed(std::uint8_t type, std::string path, std::string from) {
  PathChange change;
  change.kind = Kind::renamed;
  change.mode = std::uint32_t{type} << 12;
  change.path = std::move(path);
  change.from = std::move(from);
  co_return co_await sink_(std::move(change));
}

}  // namespace

Task<Status> file_system_difference(Runtime& runtime, Volume& volume, View older, View newer,
                                    DifferenceLimits limits, PathChangeSink sink) {
  Comparison comparison(runtime, volume, std::move(older), std::move(newer), limits, std::move(sink));
  co_return co_await comparison.run();
}

}  // namespace cumulus
