// `cumulus-miner corrupt DIR --slices N [--seed S]`: lets stored slices rot, for devnet and tests: one byte
// of each of N random slices is flipped on the disk, behind the store's back. The miner must be stopped: the
// directory's lock is held. It never touches an index row, a manifest or a batch's head, so what it did is
// what scrub, audits and readers must find.
#include <cstdio>

#include "objectstore/base/format.h"
#include "tools/error_line.h"
#include "tools/miner/commands.h"
#include "tools/miner/miner.h"

namespace cumulus::miner_commands {

namespace {

// The slices that have bytes and are not known to be rotten, where they lie.
Task<Result<std::vector<SliceLocation>>> whole_slices(Reactor& reactor, FileSystem& files,
                                                      MinerDirectory& directory) {
  constexpr std::size_t kPage = 4096;
  Metrics metrics;
  CO_TRY(const auto store, co_await open_miner_store(reactor, files, directory, metrics));
  std::vector<SliceLocation> slices;
  std::optional<SliceKey> after;
  cumulus::Status listed;
  for (;;) {
    const auto page = co_await store->page(after, kPage);
    if (!page) listed = fail(page.error());
    if (!page || page->empty()) break;
    for (const IndexedSlice& slice : *page) {
      if (slice.location.length != 0 && !slice.location.rotten) slices.push_back(slice.location);
    }
    after = page->back().key;
  }
  co_await store->close();
  if (!listed) co_return fail(listed.error());
  co_return slices;
}

// SplitMix64 (Steele, Lea, Flood 2014): the same seed chooses the same slices and bytes.
class SeededChoice {
 public:
  explicit SeededChoice(std::uint64_t seed) : state_(seed) {}
  std::uint64_t below(std::uint64_t bound) {
    std::uint64_t value = state_ += 0x9e3779b97f4a7c15;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return (value ^ (value >> 31)) % bound;
  }

 private:
  std::uint64_t state_;
};

Task<cumulus::Status> flip_byte(FileSystem& files, std::string path, std::uint64_t offset,
                                std::uint8_t bits) {
  OpenOptions options;
  options.write = true;
  CO_TRY(const auto file, files.open(path, options));
  std::uint8_t byte = 0;
  CO_TRY(const std::size_t got, co_await file->read_at(offset, {&byte, 1}));
  if (got != 1) co_return fail(ErrorKind::corrupt, cumulus::format("{} ends before {}", path, offset));
  byte ^= bits;
  CO_TRY_OK(co_await file->write_at(offset, {&byte, 1}));
  co_return co_await file->datasync();
}

Task<Result<std::pair<std::size_t, std::size_t>>> corrupt_slices(Reactor& reactor, FileSystem& files,
                                                                 Corrupt arguments) {
  MinerDirectory directory(files, arguments.directory);
  CO_TRY_OK(co_await directory.config());
  CO_TRY(const auto lock, DirectoryLock::take(arguments.directory));
  CO_TRY(auto slices, co_await whole_slices(reactor, files, directory));
  SeededChoice choice(arguments.seed ? *arguments.seed : reactor.random().u64());
  std::size_t count = slices.size();
  if (arguments.slices != 0 && arguments.slices < count) count = arguments.slices;
  for (std::size_t i = 0; i < count; ++i) {
    std::swap(slices[i], slices[i + choice.below(slices.size() - i)]);
    const BundlePosition at = slices[i].data;
    const std::uint64_t offset = at.offset + choice.below(slices[i].length);
    const auto bits = static_cast<std::uint8_t>(1 + choice.below(255));
    CO_TRY_OK(co_await flip_byte(
        files, cumulus::format("{}/bundles/{:08}.bundle", directory.path(), at.bundle), offset, bits));
  }
  co_return std::pair(count, slices.size());
}

}  // namespace

Task<int> corrupt(Reactor& reactor, FileSystem& files, Corrupt arguments) {
  const auto done = co_await corrupt_slices(reactor, files, arguments);
  if (!done) co_return print_error(kProgram, done.error());
  std::fputs(cumulus::format("corrupted {} of {} slices\n", done->first, done->second).c_str(), stdout);
  co_return kExitDone;
}

}  // namespace cumulus::miner_commands
