// Random histories against the plain model, over both engines: changes, snapshots, clones of clones,
// rollbacks, crashes with replay from the durable position, and an index rebuilt from nothing. The seed is
// printed on failure; INDEX_MODEL_SEED runs one.
#include "tests/model/index_model.h"

#include <cstdlib>
#include <filesystem>
#include <gtest/gtest.h>
#include <random>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/index/rocksdb_engine.h"
#include "objectstore/io/reactor.h"
#include "objectstore/log/coalesce.h"
#include "tests/fakes/map_engine.h"

namespace cumulus {
namespace {

constexpr std::uint8_t kChunkLog2[] = {12, 13};
constexpr std::uint64_t kObjectMax = 40000;

// One run of the program: a log that is a list of groups, an index over some engine, and the model beside it.
class History {
 public:
  History(Runtime& runtime, std::uint64_t seed, bool real)
      : runtime_(runtime), random_(seed), real_(real), disk_(std::make_shared<MapEngineDisk>()) {
    directory_ = std::filesystem::temp_directory_path() / format("cumulus-index-{}-{}", ::getpid(), seed);
  }
  ~History() {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  Task<void> run(int steps) {
    co_await open(true);
    Change first = *new_dataset();
    co_await stage(std::move(first), 0);
    for (int step = 0; step < steps && !::testing::Test::HasFailure(); ++step) {
      co_await one_step();
      if (below(40) == 0) co_await compare("on the way");
      if (below(60) == 0) co_await crash(below(3) == 0);
    }
    co_await compare("at the end");
    co_await crash(false);
    co_await compare("after a crash and replay");
    co_await crash(true);
    co_await compare("rebuilt from nothing");
    Status sound = co_await index_->check({});
    EXPECT_TRUE(sound) << sound.error().message();
    Status closed = co_await index_->close();
    EXPECT_TRUE(closed) << closed.error().message();
  }

 private:
  struct LoggedGroup {
    LogPosition number = 0;
    std::vector<Change> changes;
    IndexModel after;  // the model as of this group
    bool written = false;
  };

  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
  Bytes random_bytes(std::size_t most) {
    Bytes bytes(below(most + 1));
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(below(3) == 0 ? 0 : below(256));
    return bytes;
  }

  // --- the index ---
  Task<std::unique_ptr<Engine>> make_engine(bool fresh) {
    if (!real_) {
      if (fresh) *disk_ = {};
      MapEngineOptions options;
      options.seed = random_();
      co_return std::make_unique<MapEngine>(runtime_, disk_, options);
    }
    RocksDbOptions options;
    options.block_cache_bytes = 1u << 20;
    options.write_buffer_bytes = 64u << 10;
    const auto barrier = [] { return Status(); };
    const std::string directory = directory_.string();
    const std::array<std::uint8_t, 32> bytes{7};
    SecretKey key(bytes);
    const std::function<Status()> no_wait = barrier;
    auto engine = co_await open_rocksdb_engine(runtime_, directory, std::move(key), no_wait, fresh, options);
    EXPECT_TRUE(engine) << engine.error().message();
    co_return std::move(*engine);
  }

  Task<void> open(bool fresh) {
    auto engine = co_await make_engine(fresh);
    IndexOptions options;
    options.row_cache_bytes = below(2) == 0 ? 1024 : 1 << 20;
    options.operands_max = 4;
    options.unapplied_groups_max = 3;
    auto index = co_await Index::open(runtime_, std::move(engine), options, metrics_);
    CHECK(index.has_value());
    index_ = std::move(*index);
    for (const LoggedGroup& group : log_) {
      if (group.number <= index_->applied()) continue;
      Status replayed = co_await index_->replay(group.number, group.changes);
      EXPECT_TRUE(replayed) << replayed.error().message();
      if (!replayed) co_return;
    }
  }

  // The process dies: what was not written is gone, from the log and from the model.
  Task<void> crash(bool lose_index) {
    co_await write_groups(0);
    if (below(2) == 0) {
      while (!log_.empty() && !log_.back().written) log_.pop_back();
      open_.clear();
      Status abandoned = co_await index_->abandon_unwritten();
      EXPECT_TRUE(abandoned);
      model_ = log_.empty() ? IndexModel() : log_.back().after;
      co_await compare("after unwritten groups were abandoned");
    } else {
      co_await close_group();
      co_await write_groups(~std::size_t{0});
    }
    // Half of the deaths are sudden: closing flushes, and what it wrote is taken away again.
    const bool sudden = below(2) == 0;
    const MapEngineDisk disk = *disk_;
    const std::filesystem::path image = directory_.string() + "-image";
    if (sudden && real_) std::filesystem::copy(directory_, image);
    Status closed = co_await index_->close();
    EXPECT_TRUE(closed);
    index_.reset();
    if (sudden && !real_) *disk_ = disk;
    if (sudden && real_) {
      std::filesystem::remove_all(directory_);
      std::filesystem::rename(image, directory_);
    }
    co_await open(lose_index);
    co_await compare("after a restart");
  }

  Task<void> stage(Change change, std::uint64_t run) {
    const std::vector<Change> one{change};
    for (int attempt = 0;; ++attempt) {
      CHECK(attempt < 100);
      Status prepared = co_await index_->prepare(one);
      CHECK(prepared.has_value());
      if (index_->stage(change)) break;
    }
    model_.apply(change, run);
    open_.push_back(std::move(change));
  }

  Task<void> close_group() {
    if (open_.empty()) co_return;
    Status room = co_await index_->room_for_group(TimePoint::max());
    CHECK(room.has_value());
    const LogPosition number = log_.empty() ? 1 : log_.back().number + 1;
    index_->close_group(number);
    log_.push_back({number, std::exchange(open_, {}), model_, false});
  }

  // A staged run lies in segment `group number`, at its own number; the nonce keeps the number for the model.
  static Run place(const Run& run, LogPosition number) {
    Run placed = run;
    placed.segment = {SegmentKind::log, 1, number};
    placed.base = static_cast<std::uint32_t>(run.segment.sequence % 1000000);
    placed.nonce = run.segment.sequence;
    return placed;
  }

  Task<void> write_groups(std::size_t count) {
    for (LoggedGroup& group : log_) {
      if (group.written || count == 0) continue;
      --count;
      std::set<std::uint64_t> own;
      for (Change& change : group.changes)
        if (auto* write = std::get_if<change::Write>(&change)) own.insert(write->run.segment.sequence);
      const LogPosition number = group.number;
      index_->group_written(number, 1000, [own, number](const Run& run) {
        return own.contains(run.segment.sequence) ? place(run, number) : run;
      });
      for (Change& change : group.changes)
        if (auto* write = std::get_if<change::Write>(&change)) write->run = place(write->run, number);
      coalesce(group.changes);  // as the committer writes it: what is replayed is not what was staged
      group.written = true;
      if (below(2) == 0) co_await runtime_.offload([] {});
    }
  }

  // --- random steps ---
  Task<void> one_step() {
    const std::uint64_t kind = below(100);
    std::optional<Change> next;
    if (kind < 3) next = new_dataset();
    if (kind >= 3 && kind < 8) next = change_dataset();
    if (kind >= 26) next = change_object();
    if (next) co_await stage(std::move(*next), runs_);
    if (kind >= 8 && kind < 16) co_await close_group();
    if (kind >= 16 && kind < 26) co_await write_groups(1 + below(2));
    if (below(8) == 0) co_await close_group();
    if (std::ranges::count(log_, false, &LoggedGroup::written) > 3) co_await write_groups(2);
  }

  std::optional<Change> new_dataset() {
    if (model_.datasets.size() > 6) return std::nullopt;
    change::CreateDataset create;
    create.id = index_->next_dataset();
    create.chunk_log2 = kChunkLog2[below(2)];
    create.cell_log2 = 9;
    create.name = format("d{}", ++names_);
    if (below(3) != 0) {  // a clone of some snapshot, when there is one
      for (const DatasetInfo* info : index_->datasets()) {
        if (info->snapshots.empty() || below(2) == 0) continue;
        const SnapshotInfo& snapshot = info->snapshots[below(info->snapshots.size())];
        create.inherited = snapshot.view;
        create.chunk_log2 = info->chunk_log2;
        create.next_object = info->next_object;
        create.parent = info->name + "@" + snapshot.name;
        break;
      }
    }
    return create;
  }

  std::optional<Change> change_dataset() {
    if (model_.datasets.empty()) return std::nullopt;
    const auto& [id, dataset] = *std::next(model_.datasets.begin(), below(model_.datasets.size()));
    const std::uint64_t kind = below(10);
    std::string name;
    if (!dataset.snapshots.empty())
      name = std::next(dataset.snapshots.begin(), below(dataset.snapshots.size()))->first;
    if (kind < 4) {
      return change::CreateSnapshot{id, format("s{}", ++names_), 5};
    } else if (kind < 7 && !name.empty()) {
      return change::Rollback{id, name};
    } else if (kind < 8 && !name.empty()) {
      return change::RemoveSnapshot{id, name};
    } else if (kind < 9) {
      return change::RenameDataset{id, format("r{}", ++names_)};
    } else if (model_.datasets.size() > 4 && is_leaf(id)) {
      return change::RemoveDataset{id};
    }
    return std::nullopt;
  }
  bool is_leaf(DatasetId id) const {
    for (const DatasetInfo* info : index_->datasets())
      for (const ViewSpan& span : info->head)
        if (info->id != id && span.dataset == id) return false;
    return true;
  }

  std::optional<Change> change_object() {
    if (model_.datasets.empty()) return std::nullopt;
    const auto& [id, dataset] = *std::next(model_.datasets.begin(), below(model_.datasets.size()));
    if (dataset.head.size() < 2 || below(12) == 0) {
      if (dataset.head.size() < 6)
        return change::Create{{id, index_->dataset(id)->next_object}, random_bytes(20)};
      return std::nullopt;
    }
    const auto& [object, state] = *std::next(dataset.head.begin(), below(dataset.head.size()));
    const ObjectRef ref{id, object};
    const std::uint64_t offset = below(4) == 0 ? below(10) * 4096 : below(kObjectMax);
    const std::uint64_t length = 1 + below(below(3) == 0 ? 12000 : 700);
    const Bytes name = below(2) == 0 ? Bytes{0, static_cast<std::uint8_t>(below(3))}
                                     : Bytes{static_cast<std::uint8_t>(below(4)), 0, 0};
    switch (below(12)) {
      case 0:
      case 1:
      case 2:
      case 3: {
        const std::uint64_t number = ++runs_;
        change::Write write{ref, offset, static_cast<std::uint32_t>(length), 0, {}};
        write.skip = static_cast<std::uint32_t>(below(50));
        write.run.segment = {kStagedKind, 0, number};
        write.run.plain_length = write.length + write.skip + static_cast<std::uint32_t>(below(50));
        write.run.cell_log2 = 9;
        return write;
      }
      case 4:
        return change::Zero{ref, offset, length, below(2) == 0, below(2) == 0};
      case 5:
        return change::Truncate{ref, below(2) == 0 ? below(state.size + 1) : offset};
      case 6: {
        const auto& [other_id, other] = *std::next(model_.datasets.begin(), below(model_.datasets.size()));
        if (other.head.empty()) break;
        const ObjectId source = std::next(other.head.begin(), below(other.head.size()))->first;
        return change::CloneRange{{other_id, source}, ref, below(kObjectMax), offset, length};
      }
      case 7:
        return change::SetHeader{ref, random_bytes(30)};
      case 8:
        return change::SetXattr{ref, name, random_bytes(20)};
      case 9:
        if (below(2) == 0)
          return change::RemoveXattr{ref, name};
        else
          return change::RemoveOmap{ref, name};
      case 10:
        return change::SetOmap{ref, name, random_bytes(20)};
      default:
        if (below(6) == 0) return change::Remove{ref};
    }
    return std::nullopt;
  }

  // --- comparing ---
  Task<void> compare(const char* when) {
    EXPECT_EQ(index_->datasets().size(), model_.datasets.size()) << when;
    for (const auto& [id, dataset] : model_.datasets) {
      const DatasetInfo* info = index_->dataset(id);
      CHECK(info != nullptr);
      EXPECT_EQ(info->name, dataset.name) << when;
      EXPECT_EQ(info->next_object, dataset.next_object) << when;
      EXPECT_EQ(info->snapshots.size(), dataset.snapshots.size()) << when;
      const DatasetInfo copy = *info;
      const std::string what = format("{}: {}", when, dataset.name);
      co_await compare_view(copy.head, dataset.head, what);
      for (const SnapshotInfo& snapshot : copy.snapshots) {
        const std::string which = what + "@" + snapshot.name;
        co_await compare_view(snapshot.view, dataset.snapshots.at(snapshot.name), which);
        co_await compare_diff(snapshot.view, dataset.snapshots.at(snapshot.name), copy.head, dataset.head,
                              when);
      }
      if (::testing::Test::HasFailure()) co_return;
    }
  }

  Task<std::vector<std::uint64_t>> bytes_of(View view, ObjectId object, std::uint64_t size) {
    std::vector<std::uint64_t> bytes(size, 0);
    std::vector<Extent> extents;
    if (below(2) == 0 || !index_->try_extents(view, object, 0, size, extents)) {
      auto answer = co_await index_->extents(view, object, 0, size);
      CHECK(answer.has_value());
      extents = std::move(*answer);
    }
    std::uint64_t at = 0;
    for (const Extent& extent : extents) {
      EXPECT_EQ(extent.offset, at);
      at += extent.length;
      if (extent.kind != Extent::Kind::data) continue;
      EXPECT_LE(extent.skip + extent.length, extent.run.plain_length);
      const std::uint64_t number = is_staged(extent.run) ? extent.run.segment.sequence : extent.run.nonce;
      for (std::uint64_t i = 0; i < extent.length; ++i)
        bytes[extent.offset + i] = IndexModel::symbol(number, extent.skip + i);
    }
    EXPECT_EQ(at, size);
    co_return bytes;
  }

  static std::map<Bytes, Bytes> as_map(const std::vector<OmapEntry>& entries) {
    std::map<Bytes, Bytes> map;
    for (const OmapEntry& entry : entries) {
      EXPECT_TRUE(map.empty() || map.rbegin()->first < entry.key);
      map[entry.key] = entry.value;
    }
    return map;
  }

  Task<void> compare_view(const View& view, const ModelObjects& expected, const std::string& what) {
    auto ids = co_await index_->objects(view, 0, 1000);
    CHECK(ids.has_value());
    std::vector<ObjectId> expected_ids;
    for (const auto& [id, object] : expected) expected_ids.push_back(id);
    EXPECT_EQ(*ids, expected_ids) << what;
    if (*ids != expected_ids) co_return;
    for (const auto& [id, object] : expected) {
      auto stat = co_await index_->stat(view, id);
      CHECK(stat.has_value() && stat->has_value());
      EXPECT_EQ((*stat)->size, object.size) << what << " object " << id;
      EXPECT_EQ((*stat)->header, object.header) << what << " object " << id;
      if ((*stat)->size != object.size) co_return;
      const auto bytes = co_await bytes_of(view, id, object.size);
      EXPECT_TRUE(bytes == object.bytes) << what << " object " << id << ": bytes differ from "
                                         << std::ranges::mismatch(bytes, object.bytes).in1 - bytes.begin();
      auto xattrs = co_await index_->xattrs(view, id);
      CHECK(xattrs.has_value());
      EXPECT_EQ(as_map(*xattrs), object.xattrs) << what;
      std::vector<OmapEntry> entries;  // in small pages
      for (std::optional<Bytes> after;;) {
        auto page = co_await index_->omap_list(view, id, after, 2);
        CHECK(page.has_value());
        entries.insert(entries.end(), page->begin(), page->end());
        if (page->size() < 2) break;
        after = page->back().key;
      }
      EXPECT_EQ(as_map(entries), object.omap) << what << " object " << id;
      for (const auto& [key, value] : object.omap) {
        const auto found = co_await index_->omap(view, id, key);
        EXPECT_TRUE(found && *found && **found == value) << what;
      }
    }
    // What was removed has nothing left to find.
    for (ObjectId id = 1; id < 12; ++id) {
      if (expected.contains(id)) continue;
      const auto entries = co_await index_->omap_list(view, id, std::nullopt, 10);
      EXPECT_TRUE(entries && entries->empty()) << what << " object " << id;
    }
  }

  // A diff may report what was rewritten with the same bytes; it must not miss a byte that differs.
  Task<void> compare_diff(const View& older, const ModelObjects& old_objects, const View& newer,
                          const ModelObjects& new_objects, const std::string& when) {
    auto changed = co_await index_->diff_objects(older, newer, 0, 1000);
    CHECK(changed.has_value());
    std::set<ObjectId> ids;
    for (const auto& [id, object] : old_objects) ids.insert(id);
    for (const auto& [id, object] : new_objects) ids.insert(id);
    for (const ObjectId id : ids) {
      const ModelObject a = old_objects.contains(id) ? old_objects.at(id) : ModelObject{};
      const ModelObject b = new_objects.contains(id) ? new_objects.at(id) : ModelObject{};
      const bool listed = std::ranges::count(*changed, id) == 1;
      EXPECT_TRUE(listed || a == b) << when << " object " << id;
      const std::uint64_t size = std::max<std::uint64_t>({a.size, b.size, 1});
      auto ranges = co_await index_->diff_ranges(older, newer, id, 0, size);
      CHECK(ranges.has_value());
      for (std::uint64_t at = 0; at < size; ++at) {
        const std::uint64_t was = at < a.size ? a.bytes[at] : 0;
        const std::uint64_t is = at < b.size ? b.bytes[at] : 0;
        const bool reported = std::ranges::any_of(
            *ranges, [at](const Index::ByteRange& r) { return at >= r.offset && at < r.offset + r.length; });
        if (reported == (was != is)) continue;
        ADD_FAILURE() << when << " object " << id << " byte " << at
                      << (reported ? " over-reported" : " missed");
        co_return;
      }
    }
  }

  Runtime& runtime_;
  std::mt19937_64 random_;
  bool real_;
  std::shared_ptr<MapEngineDisk> disk_;
  std::filesystem::path directory_;
  Metrics metrics_;
  std::unique_ptr<Index> index_;
  IndexModel model_;
  std::vector<Change> open_;
  std::vector<LoggedGroup> log_;
  std::uint64_t names_ = 0;
  std::uint64_t runs_ = 0;
};

void run_history(std::uint64_t seed, bool real, int steps) {
  SCOPED_TRACE(format("seed {}", seed));
  Reactor reactor(2);
  History history(reactor, seed, real);
  reactor.run(history.run(steps));
}

TEST(IndexModel, OrderedMap) {
  if (const char* seed = std::getenv("INDEX_MODEL_SEED"))
    return run_history(std::strtoull(seed, nullptr, 10), false, 600);
  for (std::uint64_t seed = 1; seed <= 60 && !HasFailure(); ++seed) run_history(seed, false, 300);
}

TEST(IndexModel, RocksDb) {
  for (std::uint64_t seed = 1001; seed <= 1008 && !HasFailure(); ++seed) run_history(seed, true, 300);
}

}  // namespace
}  // namespace cumulus
