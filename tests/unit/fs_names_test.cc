// Names of which many have one hash, and directories that change while they are listed: against plain models.
#include <cstdlib>
#include <map>
#include <random>
#include <set>

#include "fs/names.h"
#include "fs/object_files.h"
#include "objectstore/base/format.h"
#include "tests/unit/fs_world.h"

namespace cumulus {
namespace {

const Caller kCaller;

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* const text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// Four places for all names, three of them side by side; the last has none before the end of the keys.
std::uint64_t crowded(const NameSalt&, std::string_view name) {
  constexpr std::uint64_t kPlaces[] = {1000, 1001, 1003, ~std::uint64_t{0} >> 1};
  return kPlaces[static_cast<unsigned char>(name.back()) % 4];
}
std::uint64_t in_one_place(const NameSalt&, std::string_view) { return 1000; }

Task<FsStatus> make(PosixFileSystem& fs, NodeId directory, std::string name) {
  NewNode what;
  what.mode = 0100644;
  const auto made = co_await fs.make_node(kCaller, directory, std::move(name), std::move(what));
  if (!made) co_return std::unexpected(made.error());
  co_return FsStatus();
}

// What the directory holds, page by page.
Task<std::map<std::string, NodeId>> listing(PosixFileSystem& fs, NodeId directory, std::size_t page_size) {
  std::map<std::string, NodeId> all;
  for (std::uint64_t cookie = 0;;) {
    const auto page = co_await fs.list(directory, cookie, page_size, false);
    EXPECT_TRUE(page);
    if (!page || page->empty()) co_return all;
    for (const DirectoryEntry& entry : *page) {
      EXPECT_GT(entry.cookie, cookie);
      cookie = entry.cookie;
      EXPECT_TRUE(all.emplace(entry.name, entry.node).second) << entry.name;
    }
  }
}

TEST(FsNames, of_one_hash_are_told_apart) {
  const std::uint64_t seed = number_from("CUMULUS_SEED", std::random_device{}());
  SCOPED_TRACE(format("CUMULUS_SEED={}", seed));
  with_file_system([seed](StoreWorld& world, Volume& volume, DatasetId dataset) -> Task<void> {
    std::mt19937_64 random(seed);
    FileSystemOptions options;
    options.name_hash = crowded;
    std::string head;
    auto opened = co_await PosixFileSystem::open(world.reactor, volume, dataset, std::move(head), options);
    CO_ASSERT(opened);
    PosixFileSystem& fs = **opened;
    std::map<std::string, NodeId> model;
    for (int step = 0; step < 4000; ++step) {
      const std::uint64_t names = step % 2000 < 1000 ? 8 : 60;
      const std::string name = format("n{}", random() % names);
      const auto found = co_await fs.lookup(kCaller, kRootNode, name);
      const auto known = model.find(name);
      CO_ASSERT(found.has_value() == (known != model.end()));
      if (found) {
        EXPECT_EQ(found->node, known->second);
      }
      const unsigned what = static_cast<unsigned>(random() % 4);
      if (what < 2) {
        const FsStatus made = co_await make(fs, kRootNode, name);
        EXPECT_EQ(made.has_value(), known == model.end());
        if (made) {
          const auto now = co_await fs.lookup(kCaller, kRootNode, name);
          CO_ASSERT(now);
          model[name] = now->node;
        }
      } else if (what == 2) {
        const auto gone = co_await fs.unlink(kCaller, kRootNode, name);
        EXPECT_EQ(gone.has_value(), known != model.end());
        model.erase(name);
      } else if (known != model.end()) {
        const std::string other = format("n{}", random() % names);
        const RenameFlags flags;
        const auto moved = co_await fs.rename(kCaller, kRootNode, name, kRootNode, other, flags);
        EXPECT_TRUE(moved) << moved.error().message;
        const NodeId node = known->second;
        model.erase(name);
        model[other] = node;
      }
      if (step % 100 == 0) {
        const auto all = co_await listing(fs, kRootNode, 1 + random() % 7);
        CO_ASSERT(all == model);
      }
    }
    CO_ASSERT(co_await fs.close());
  });
}

TEST(FsNames, too_many_of_one_hash_are_refused_and_harm_nothing) {
  with_file_system([](StoreWorld& world, Volume& volume, DatasetId dataset) -> Task<void> {
    FileSystemOptions options;
    options.name_hash = in_one_place;
    std::string head;
    auto opened = co_await PosixFileSystem::open(world.reactor, volume, dataset, std::move(head), options);
    CO_ASSERT(opened);
    PosixFileSystem& fs = **opened;
    std::size_t made = 0;
    for (;; ++made) {
      CO_ASSERT(made < 1000);
      std::string fresh = format("n{}", made);
      const FsStatus done = co_await make(fs, kRootNode, std::move(fresh));
      if (done) continue;
      EXPECT_EQ(done.error().kind, FsErrorKind::no_space);
      break;
    }
    EXPECT_EQ(made, 64u);
    const auto all = co_await listing(fs, kRootNode, 10);
    EXPECT_EQ(all.size(), made);
    std::string name = "n5";
    CO_ASSERT(co_await fs.unlink(kCaller, kRootNode, std::move(name)));
    name = "another";
    CO_ASSERT(co_await make(fs, kRootNode, std::move(name)));
    CO_ASSERT(co_await fs.close());
  });
}

TEST(FsNames, nothing_comes_under_the_name_of_the_snapshots) {
  with_file_system([](StoreWorld& world, Volume& volume, DatasetId dataset) -> Task<void> {
    const FileSystemOptions options;
    std::string head;
    auto opened = co_await PosixFileSystem::open(world.reactor, volume, dataset, std::move(head), options);
    CO_ASSERT(opened);
    PosixFileSystem& fs = **opened;
    const std::string file = "file";
    const std::string snapshots = ".snapshots";
    CO_ASSERT(co_await make(fs, kRootNode, file));
    const auto found = co_await fs.lookup(kCaller, kRootNode, file);
    CO_ASSERT(found);
    for (const bool exchange : {false, true}) {
      RenameFlags flags;
      flags.exchange = exchange;
      const auto over = co_await fs.rename(kCaller, kRootNode, file, kRootNode, snapshots, flags);
      CO_ASSERT(!over);
      EXPECT_EQ(over.error().kind, FsErrorKind::busy);
      const auto away = co_await fs.rename(kCaller, kRootNode, snapshots, kRootNode, file, flags);
      CO_ASSERT(!away);
      EXPECT_EQ(away.error().kind, FsErrorKind::busy);
    }
    const auto linked = co_await fs.link(kCaller, found->node, kRootNode, snapshots);
    CO_ASSERT(!linked);
    EXPECT_EQ(linked.error().kind, FsErrorKind::exists);
    const auto all = co_await listing(fs, kRootNode, 10);
    EXPECT_EQ(all.size(), 1u);
    NewNode folder;
    folder.mode = 040755;
    std::string name = "folder";
    const auto below = co_await fs.make_node(kCaller, kRootNode, std::move(name), std::move(folder));
    CO_ASSERT(below);
    const RenameFlags plain;
    CO_ASSERT(co_await fs.rename(kCaller, kRootNode, file, below->node, snapshots, plain));
    CO_ASSERT(co_await fs.close());
  });
}

// Every name that was there from the first page to the last is listed once; no name is listed twice; and a
// cookie is enough to go on from in another opening. CUMULUS_TEST_ENTRIES: how many names.
TEST(FsNames, listed_while_they_come_and_go) {
  const std::uint64_t seed = number_from("CUMULUS_SEED", std::random_device{}());
  SCOPED_TRACE(format("CUMULUS_SEED={}", seed));
  with_file_system([seed](StoreWorld& world, Volume& volume, DatasetId dataset) -> Task<void> {
    const std::uint64_t entries = number_from("CUMULUS_TEST_ENTRIES", 5000);
    std::mt19937_64 random(seed);
    const FileSystemOptions options;
    std::string head;
    auto fs = co_await PosixFileSystem::open(world.reactor, volume, dataset, std::move(head), options);
    CO_ASSERT(fs);
    for (std::uint64_t index = 0; index < entries; ++index) {
      std::string name = format("n{}", index);
      CO_ASSERT(co_await make(**fs, kRootNode, std::move(name)));
    }
    std::set<std::string> gone;
    std::set<std::string> seen;
    std::uint64_t come = entries;
    std::uint64_t pages = 0;
    for (std::uint64_t cookie = 0;; ++pages) {
      const auto page = co_await (*fs)->list(kRootNode, cookie, 500, false);
      CO_ASSERT(page);
      if (page->empty()) break;
      for (const DirectoryEntry& entry : *page) {
        CO_ASSERT(entry.cookie > cookie);
        cookie = entry.cookie;
        CO_ASSERT(seen.insert(entry.name).second);
        CO_ASSERT(!gone.contains(entry.name));
      }
      for (int change = 0; change < 20; ++change) {
        std::string fresh = format("n{}", come++);
        CO_ASSERT(co_await make(**fs, kRootNode, std::move(fresh)));
        const std::string name = format("n{}", random() % come);
        const auto removed = co_await (*fs)->unlink(kCaller, kRootNode, name);
        CO_ASSERT(removed.has_value() == !gone.contains(name));
        gone.insert(name);
      }
      if (pages % 5 != 4) continue;
      CO_ASSERT(co_await (*fs)->close());
      fs->reset();
      head.clear();
      fs = co_await PosixFileSystem::open(world.reactor, volume, dataset, std::move(head), options);
      CO_ASSERT(fs);
    }
    EXPECT_GE(pages, entries / 500);
    for (std::uint64_t index = 0; index < entries; ++index) {
      const std::string name = format("n{}", index);
      CO_ASSERT(seen.contains(name) || gone.contains(name));
    }
    CO_ASSERT(co_await (*fs)->close());
  });
}

// A directory that was removed while somebody stands in it answers for as long as the kernel knows it,
// however many others are removed and forgotten meanwhile; and so does a file whose last descriptor was
// closed: whoever found it before may open it still.
TEST(FsNames, removed_ones_answer_until_they_are_forgotten) {
  with_file_system([](StoreWorld& world, Volume& volume, DatasetId dataset) -> Task<void> {
    const FileSystemOptions options;
    auto fs = co_await PosixFileSystem::open(world.reactor, volume, dataset, "", options);
    CO_ASSERT(fs);
    NewNode directory;
    directory.mode = 0040755;
    const auto stood_in = co_await (*fs)->make_node(kCaller, kRootNode, "d", std::move(directory));
    CO_ASSERT(stood_in);
    CO_ASSERT(co_await (*fs)->rmdir(kCaller, kRootNode, "d"));
    OpenFlags flags;
    flags.read = flags.write = true;
    const auto open = co_await (*fs)->create(kCaller, kRootNode, "f", 0100644, flags);
    CO_ASSERT(open);
    CO_ASSERT(co_await (*fs)->unlink(kCaller, kRootNode, "f"));
    const auto text = std::make_shared<Bytes>(100, std::uint8_t{'x'});
    CO_ASSERT(co_await (*fs)->write(kCaller, open->handle, 0, *text, text, false));
    CO_ASSERT(co_await (*fs)->release(open->handle));
    const auto reopened = co_await (*fs)->open(open->entry.node, flags);
    CO_ASSERT(reopened);
    Bytes read(100);
    EXPECT_EQ((co_await (*fs)->read(*reopened, 0, read)).value_or(0), 100u);
    EXPECT_EQ(read, *text);
    CO_ASSERT(co_await (*fs)->release(*reopened));
    for (int other = 0; other < 4200; ++other) {
      NewNode file;
      file.mode = 0100644;
      const auto made = co_await (*fs)->make_node(kCaller, kRootNode, "x", std::move(file));
      CO_ASSERT(made);
      CO_ASSERT(co_await (*fs)->unlink(kCaller, kRootNode, "x"));
      if (other < 4199) (*fs)->forget(made->node);
    }
    // Their list has not become longer: its places are used again.
    const View head = volume.find_dataset(dataset)->head;
    const auto listed = co_await volume.omap_list(head, ObjectFiles::kOrphans, std::nullopt, 1000);
    CO_ASSERT(listed && listed->size() >= 3);
    for (const OmapEntry& row : *listed) EXPECT_LT(cookie_of_key(row.key).value_or(1000), 100u);
    for (const NodeId node : {stood_in->node, open->entry.node}) {
      const auto attributes = co_await (*fs)->getattr(node);
      CO_ASSERT(attributes);
      EXPECT_EQ(attributes->nlink, 0u);
      (*fs)->forget(node);
      const auto gone = co_await (*fs)->getattr(node);
      EXPECT_FALSE(gone);
    }
    CO_ASSERT(co_await (*fs)->close());
  });
}

// What an earlier version left without a name is removed too: its row has the object as the key.
TEST(FsNames, orphans_in_the_first_form_are_removed) {
  with_file_system([](StoreWorld& world, Volume& volume, DatasetId dataset) -> Task<void> {
    const FileSystemOptions options;
    auto fs = co_await PosixFileSystem::open(world.reactor, volume, dataset, "", options);
    CO_ASSERT(fs);
    const OpenFlags flags;
    const auto kept = co_await (*fs)->create_nameless(kCaller, kRootNode, 0100644, flags);
    CO_ASSERT(kept);
    const auto orphan = co_await volume.stat(volume.find_dataset(dataset)->head, kept->entry.node);
    CO_ASSERT(orphan && *orphan);
    const auto object = volume.allocate_object(dataset);
    CO_ASSERT(object);
    Transaction old;
    old.create({dataset, *object}, Bytes((*orphan)->header));
    old.set_omap({dataset, ObjectFiles::kOrphans}, cookie_key(*object), {});
    old.add_usage(dataset, 0, 0, 1);
    CO_ASSERT(co_await volume.commit(std::move(old)));
    CO_ASSERT(co_await (*fs)->close());
    fs = co_await PosixFileSystem::open(world.reactor, volume, dataset, "", options);
    CO_ASSERT(fs);
    CO_ASSERT(co_await (*fs)->close());
    const View head = volume.find_dataset(dataset)->head;
    const auto left = co_await volume.omap_list(head, ObjectFiles::kOrphans, std::nullopt, 1000);
    CO_ASSERT(left);
    EXPECT_TRUE(left->empty());
    const auto gone = co_await volume.stat(head, *object);
    CO_ASSERT(gone);
    EXPECT_FALSE(gone->has_value());
    EXPECT_EQ(volume.find_dataset(dataset)->trees.at(0).objects, 1);
  });
}

}  // namespace
}  // namespace cumulus
