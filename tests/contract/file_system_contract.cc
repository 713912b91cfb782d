#include "tests/contract/file_system_contract.h"

#include <algorithm>
#include <bit>

#include "objectstore/io/sync.h"

namespace cumulus {
namespace {

using Opened = Result<std::unique_ptr<File>>;

Bytes pattern(std::size_t size, unsigned salt) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::uint8_t>((i * 131 + salt * 17) >> 3);
  return bytes;
}

Opened make_file(FileSystem& files, const std::string& path) {
  auto file = files.open(path, {.write = true, .create = true});
  EXPECT_TRUE(file.has_value()) << path;
  return file;
}

Task<Bytes> read_all(File& file, std::uint64_t offset, std::size_t length) {
  Bytes bytes(length, 0xEE);
  const auto got = co_await file.read_at(offset, bytes);
  EXPECT_TRUE(got.has_value());
  bytes.resize(got.value_or(0));
  co_return bytes;
}

#define EXPECT_DONE(status)                                               \
  do {                                                                    \
    auto&& outcome = (status);                                            \
    EXPECT_TRUE(outcome) << #status << ": " << outcome.error().message(); \
  } while (false)
#define EXPECT_KIND(status, expected)                                                      \
  do {                                                                                     \
    auto&& outcome = (status);                                                             \
    EXPECT_FALSE(outcome.has_value()) << #status;                                          \
    if (!outcome) {                                                                        \
      EXPECT_EQ(outcome.error().kind(), expected) << #status << outcome.error().message(); \
      EXPECT_FALSE(outcome.error().message().empty());                                     \
    }                                                                                      \
  } while (false)

}  // namespace

void FileSystemContract::run(std::function<Task<void>(FileSystem&, std::string)> body) {
  harness_->run(body(harness_->files(), harness_->root()));
}

TEST_P(FileSystemContract, ReadsWhatWasWrittenAndLessAtTheEnd) {
  run([](FileSystem& files, std::string root) -> Task<void> {
    const auto file = make_file(files, root + "/f");
    const Bytes content = pattern(100'001, 1);
    EXPECT_DONE(co_await (*file)->write_at(0, content));
    EXPECT_EQ((*file)->size().value_or(0), content.size());
    EXPECT_EQ(co_await read_all(**file, 0, content.size()), content);
    EXPECT_EQ(co_await read_all(**file, 0, 200'000), content);
    const Bytes tail(content.end() - 777, content.end());
    EXPECT_EQ(co_await read_all(**file, content.size() - 777, 5000), tail);
    EXPECT_TRUE((co_await read_all(**file, content.size(), 10)).empty());
    EXPECT_TRUE((co_await read_all(**file, 1 << 30, 10)).empty());
    EXPECT_TRUE((co_await read_all(**file, 0, 0)).empty());
    EXPECT_DONE(co_await (*file)->write_at(50, ByteView()));
    const auto again = files.open(root + "/f", {});
    EXPECT_EQ(co_await read_all(**again, 0, content.size()), content);
  });
}

TEST_P(FileSystemContract, OverwritesAndHoles) {
  run([](FileSystem& files, std::string root) -> Task<void> {
    const auto file = make_file(files, root + "/f");
    Bytes model(600'000);
    for (unsigned i = 0; i < 40; ++i) {
      const Bytes piece = pattern(1 + i * 997 % 9000, i);
      const std::size_t at = i * 14'983 % (model.size() - piece.size());
      EXPECT_DONE(co_await (*file)->write_at(at, piece));
      std::ranges::copy(piece, model.begin() + static_cast<std::ptrdiff_t>(at));
    }
    EXPECT_DONE(co_await (*file)->write_at(model.size() - 1, ByteView(model).last(1)));
    EXPECT_TRUE(co_await read_all(**file, 0, model.size()) == model) << "holes must read as zeros";
  });
}

TEST_P(FileSystemContract, AllocateGrowsKeepsBytesAndNeverShrinks) {
  run([](FileSystem& files, std::string root) -> Task<void> {
    const auto file = make_file(files, root + "/f");
    Bytes content = pattern(5000, 2);
    EXPECT_DONE(co_await (*file)->write_at(0, content));
    EXPECT_DONE(co_await (*file)->allocate(65536));
    content.resize(65536);
    EXPECT_TRUE(co_await read_all(**file, 0, 100'000) == content) << "bytes stay, the rest is zero";
    EXPECT_DONE(co_await (*file)->allocate(4096));
    EXPECT_EQ((*file)->size().value_or(0), 65536u);
    EXPECT_DONE(files.rename(root + "/f", root + "/recycled"));
    const auto recycled = files.open(root + "/recycled", {.write = true});
    EXPECT_DONE(co_await (*recycled)->allocate(65536));
    EXPECT_TRUE(co_await read_all(**recycled, 0, 65536) == content);
  });
}

TEST_P(FileSystemContract, ADurableWriteWritesWhatAnotherDoes) {
  run([](FileSystem& files, std::string root) -> Task<void> {
    const auto file = make_file(files, root + "/f");
    Bytes model = pattern(30'000, 5);
    EXPECT_DONE(co_await (*file)->write_at(0, model));
    const Bytes over = pattern(9'000, 6);
    EXPECT_DONE(co_await (*file)->write_durable_at(4'000, over));
    std::copy(over.begin(), over.end(), model.begin() + 4'000);
    EXPECT_DONE(co_await (*file)->write_durable_at(29'999, over));
    model.resize(29'999);
    model.insert(model.end(), over.begin(), over.end());
    EXPECT_TRUE(co_await read_all(**file, 0, 50'000) == model);
    const auto reader = files.open(root + "/f", {});
    EXPECT_KIND(co_await (*reader)->write_durable_at(0, over), ErrorKind::io);
  });
}

TEST_P(FileSystemContract, TruncateForgetsWhatItCutsOff) {
  run([](FileSystem& files, std::string root) -> Task<void> {
    const auto file = make_file(files, root + "/f");
    Bytes content = pattern(20'000, 3);
    EXPECT_DONE(co_await (*file)->write_at(0, content));
    EXPECT_DONE(co_await (*file)->datasync());
    EXPECT_DONE(co_await (*file)->truncate(7'001));
    EXPECT_EQ((*file)->size().value_or(0), 7'001u);
    EXPECT_DONE(co_await (*file)->truncate(15'000));
    content.resize(7'001);
    content.resize(15'000);
    EXPECT_TRUE(co_await read_all(**file, 0, 20'000) == content);
  });
}

TEST_P(FileSystemContract, AHoleReadsAsZerosAndTheSizeStays) {
  run([](FileSystem& files, std::string root) -> Task<void> {
    const auto file = make_file(files, root + "/f");
    Bytes content = pattern(65536, 4);
    EXPECT_DONE(co_await (*file)->write_at(0, content));
    EXPECT_DONE(co_await (*file)->punch_hole(5000, 30'000));
    std::fill_n(content.begin() + 5000, 30'000, std::uint8_t{0});
    EXPECT_DONE(co_await (*file)->punch_hole(60'000, 100'000));
    std::fill(content.begin() + 60'000, content.end(), std::uint8_t{0});
    EXPECT_TRUE(co_await read_all(**file, 0, 65536) == content);
    EXPECT_EQ((*file)->size().value_or(0), 65536u);
    EXPECT_DONE(co_await (*file)->punch_hole(1 << 20, 4096));
    EXPECT_EQ((*file)->size().value_or(0), 65536u);
  });
}

TEST_P(FileSystemContract, OpeningFailsAsItShould) {
  run([](FileSystem& files, std::string root) -> Task<void> {
    EXPECT_KIND(files.open(root + "/missing", {}), ErrorKind::not_found);
    EXPECT_KIND(files.open(root + "/missing", {.write = true}), ErrorKind::not_found);
    const Bytes one{1};
    {
      const auto file = files.open(root + "/f", {.write = true, .create = true, .exclusive = true});
      EXPECT_DONE(file);
      EXPECT_DONE(co_await (*file)->write_at(0, one));
    }
    EXPECT_KIND(files.open(root + "/f", {.write = true, .create = true, .exclusive = true}),
                ErrorKind::exists);
    EXPECT_KIND(files.open(root + "/f/below", {.write = true, .create = true}), ErrorKind::io);
    EXPECT_KIND(files.create_directories(root + "/f/below"), ErrorKind::io);
    EXPECT_DONE(files.create_directories(root + "/d/e"));
    EXPECT_DONE(make_file(files, root + "/d/e/f"));
    EXPECT_KIND(files.open(root + "/d/e", {.write = true, .create = true}), ErrorKind::io);
    EXPECT_KIND(files.open(root + "/d/e", {}), ErrorKind::io);
    const auto reader = files.open(root + "/f", {});
    EXPECT_KIND(co_await (*reader)->write_at(0, one), ErrorKind::io);
    EXPECT_EQ(co_await read_all(**reader, 0, 2), one);
  });
}

TEST_P(FileSystemContract, RenameReplacesAndOpenFilesStayTheSame) {
  run([](FileSystem& files, std::string root) -> Task<void> {
    const Bytes old_content = pattern(100, 5);
    const Bytes new_content = pattern(200, 6);
    const auto old_file = make_file(files, root + "/f");
    const auto new_file = make_file(files, root + "/f.new");
    EXPECT_DONE(co_await (*old_file)->write_at(0, old_content));
    EXPECT_DONE(co_await (*new_file)->write_at(0, new_content));
    EXPECT_DONE(files.rename(root + "/f.new", root + "/f"));
    EXPECT_EQ(co_await read_all(**old_file, 0, 500), old_content);
    const auto now = files.open(root + "/f", {});
    EXPECT_EQ(co_await read_all(**now, 0, 500), new_content);
    EXPECT_KIND(files.rename(root + "/f.new", root + "/g"), ErrorKind::not_found);
    EXPECT_DONE(files.rename(root + "/f", root + "/f"));
    EXPECT_TRUE(files.exists(root + "/f").value_or(false));
    EXPECT_DONE(files.remove(root + "/f"));
    EXPECT_KIND(files.remove(root + "/f"), ErrorKind::not_found);
    EXPECT_EQ(co_await read_all(**now, 0, 500), new_content) << "an open file outlives its name";
    EXPECT_FALSE(files.exists(root + "/f").value_or(true));
  });
}

TEST_P(FileSystemContract, ListsNamesSorted) {
  run([this](FileSystem& files, std::string root) -> Task<void> {
    EXPECT_DONE(files.create_directories(root + "/d/sub"));
    for (const char* name : {"b", "a", "sub/x", "c.new"}) EXPECT_DONE(make_file(files, root + "/d/" + name));
    const std::vector<std::string> expected{"a", "b", "c.new", "sub"};
    EXPECT_EQ(files.list(root + "/d").value_or(std::vector<std::string>{}), expected);
    EXPECT_TRUE(files.exists(root + "/d/sub").value_or(false));
    EXPECT_FALSE(files.exists(root + "/d/a/x").value_or(true));
    EXPECT_DONE(files.rename(root + "/d/sub", root + "/d/moved"));
    EXPECT_TRUE(files.exists(root + "/d/moved/x").value_or(false));
    EXPECT_DONE(co_await files.sync_directory(root + "/d"));
    if (!real()) co_return;
    EXPECT_KIND(files.list(root + "/none"), ErrorKind::not_found);
    EXPECT_KIND(files.open(root + "/none/f", {.write = true, .create = true}), ErrorKind::not_found);
    EXPECT_KIND(co_await files.sync_directory(root + "/none"), ErrorKind::not_found);
  });
}

TEST_P(FileSystemContract, ReplacesSmallFilesWhole) {
  run([](FileSystem& files, std::string root) -> Task<void> {
    const std::string path = root + "/state";
    const Bytes first = pattern(5000, 7);
    const Bytes second = pattern(100, 8);
    for (const Bytes& content : {first, second, Bytes()}) {
      EXPECT_DONE(co_await files.replace_file(path, content));
      const auto read = co_await files.read_file(path, 5000);
      EXPECT_DONE(read);
      EXPECT_EQ(*read, content);
    }
    EXPECT_EQ(files.list(root).value_or(std::vector<std::string>{}), std::vector<std::string>{"state"});
    EXPECT_DONE(co_await files.replace_file(path, first));
    EXPECT_KIND(co_await files.read_file(path, 4999), ErrorKind::invalid);
    EXPECT_KIND(co_await files.read_file(root + "/none", 10), ErrorKind::not_found);
  });
}

TEST_P(FileSystemContract, SyncsFromTheReactorAndFromWorkers) {
  run([this](FileSystem& files, std::string root) -> Task<void> {
    const auto file = make_file(files, root + "/f");
    const Bytes content = pattern(10'000, 9);
    EXPECT_DONE(co_await (*file)->write_at(0, content));
    EXPECT_DONE(co_await (*file)->datasync());
    File* const same = file->get();
    const Status synced = co_await runtime().offload([same] { return same->datasync_blocking(); });
    EXPECT_DONE(synced);
    const auto space = files.space(root);
    EXPECT_DONE(space);
    EXPECT_GE(space->total, space->free);
    EXPECT_GT(space->free, 0u);
  });
}

// Once read that way the bytes are near, also in a direct file; what is written later is seen; what lies
// behind the end is not.
TEST_P(FileSystemContract, WarmReadsOfDirectFiles) {
  run([](FileSystem& files, std::string root) -> Task<void> {
    OpenOptions how{.write = true, .create = true};
    how.direct = true;
    const auto file = files.open(root + "/f", how);
    EXPECT_DONE(file);
    Buffer content(256u << 10);
    for (const unsigned round : {1u, 2u}) {
      std::ranges::copy(pattern(content.size(), round), content.data());
      EXPECT_DONE(co_await (*file)->write_at(0, content.view()));
      for (const std::size_t size : {8192u, 192u << 10}) {
        Buffer got(size);
        const auto count = co_await (*file)->read_warm(4096, got.view());
        EXPECT_EQ(count.value_or(0), got.size());
        EXPECT_TRUE(std::ranges::equal(got.view(), content.view(4096, size)));
      }
      Bytes odd(5001);
      if ((*file)->try_read_warm(4099, odd)) {
        EXPECT_TRUE(std::ranges::equal(odd, content.view(4099, odd.size())));
      }
    }
    Bytes behind(4096);
    EXPECT_FALSE((*file)->try_read_warm((256u << 10) - 100, behind));
    EXPECT_FALSE((*file)->try_read_warm(1u << 20, behind));
  });
}

TEST_P(FileSystemContract, DirectFilesEndWhereTheyEnd) {
  run([](FileSystem& files, std::string root) -> Task<void> {
    const std::uint32_t alignment = files.direct_alignment(root);
    EXPECT_TRUE(alignment >= 512 && alignment <= 4096 && std::has_single_bit(alignment)) << alignment;
    EXPECT_TRUE(files.list(root).value_or(std::vector<std::string>{"left behind"}).empty());
    const auto file = files.open(root + "/f", {.write = true, .create = true, .direct = true});
    EXPECT_DONE(file);
    Buffer out(1 << 20);
    std::ranges::copy(pattern(out.size(), 10), out.view().begin());
    EXPECT_DONE(co_await (*file)->write_at(0, out.view()));
    const std::uint64_t part = alignment;
    EXPECT_DONE(co_await (*file)->write_at(part, out.view(0, part)));
    std::ranges::copy_n(out.data(), static_cast<std::ptrdiff_t>(part), out.data() + part);
    Buffer in(out.size());
    const auto whole = co_await (*file)->read_at(0, in.view());
    EXPECT_EQ(whole.value_or(0), in.size());
    EXPECT_TRUE(equal(in.view(), out.view()));
    // A length that direct I/O could not have written: the read ends there, without an error.
    EXPECT_DONE(co_await (*file)->truncate(5000));
    const auto rest = co_await (*file)->read_at(0, in.view());
    EXPECT_DONE(rest);
    EXPECT_EQ(rest.value_or(0), 5000u);
    EXPECT_TRUE(equal(in.view(0, 5000), out.view(0, 5000)));
  });
}

TEST_P(FileSystemContract, ManyOperationsAtOnceAllEnd) {
  run([this](FileSystem& files, std::string root) -> Task<void> {
    const auto file = make_file(files, root + "/f");
    TaskGroup group(runtime());
    constexpr unsigned kCount = 500;
    Bytes expected;
    for (unsigned i = 0; i < kCount; ++i) {
      const Bytes piece = pattern(700, i);
      expected.insert(expected.end(), piece.begin(), piece.end());
    }
    for (unsigned i = 0; i < kCount; ++i) {
      group.spawn([&, i]() -> Task<void> {
        EXPECT_DONE(co_await (*file)->write_at(i * 700, ByteView(expected).subspan(i * 700, 700)));
        if (i % 50 == 0) EXPECT_DONE(co_await (*file)->datasync());
      });
    }
    co_await group.join();
    EXPECT_TRUE(co_await read_all(**file, 0, expected.size()) == expected);
  });
}

}  // namespace cumulus
