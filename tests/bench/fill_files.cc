// Makes many empty files in the file system `main` of a real volume, below FUSE and without its daemon, in
// folders of a thousand: what a measurement over millions of files starts from.
//
//   fill_files HOME VOLUME FIRST COUNT     FIRST and COUNT are multiples of 1000; file N is
//   folder-(N/1000)/file-N
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "fs/file_system.h"
#include "objectstore/base/format.h"
#include "tools/cumulus/assemble.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kFolder = 1000;

template <class T>
Status status_of(const FsResult<T>& result) {
  return result ? Status() : fail(ErrorKind::io, result.error().message);
}

Task<Status> fill_folder(PosixFileSystem& fs, std::uint64_t first) {
  const Caller caller;
  NewNode folder;
  folder.mode = 0040755;
  std::string name = format("folder-{}", first / kFolder);
  const auto made = co_await fs.make_node(caller, kRootNode, std::move(name), std::move(folder));
  CO_TRY_OK(status_of(made));
  for (std::uint64_t index = first; index < first + kFolder; ++index) {
    NewNode file;
    file.mode = 0100644;
    std::string of_file = format("file-{}", index);
    const auto entry = co_await fs.make_node(caller, made->node, std::move(of_file), std::move(file));
    CO_TRY_OK(status_of(entry));
  }
  co_return Status();
}

Task<Status> fill(Reactor& reactor, Home home, std::string name, std::uint64_t first, std::uint64_t count) {
  const Progress progress = [](std::uint64_t, std::uint64_t) { return true; };
  const OpenRequest request;
  CO_TRY(const auto stack, co_await Stack::assemble(reactor, home, name, request, progress));
  const DatasetInfo* info = stack->volume().find_dataset("main");
  if (info == nullptr) co_return fail(ErrorKind::not_found, "the volume has no file system 'main'");
  const FileSystemOptions options;
  std::string head;
  CO_TRY(auto fs,
         co_await PosixFileSystem::open(reactor, stack->volume(), info->id, std::move(head), options));
  for (std::uint64_t at = first; at < first + count; at += kFolder) CO_TRY_OK(co_await fill_folder(*fs, at));
  const FsStatus closed = co_await fs->close();
  CO_TRY_OK(status_of(closed));
  fs.reset();
  co_return co_await stack->close();
}

int run(char** words) {
  const Home home = Home::locate(words[1]);
  const std::string lock = home.volume(words[2]) + "/lock";
  const int held = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (held < 0 || ::flock(held, LOCK_EX | LOCK_NB) != 0) {
    std::fprintf(stderr, "fill_files: %s: the volume's daemon runs: cumulus volume stop %s\n", lock.c_str(),
                 words[2]);
    return 1;
  }
  Status done;
  Reactor reactor(2);
  const auto all = [&]() -> Task<void> {
    done = co_await fill(reactor, home, words[2], std::strtoull(words[3], nullptr, 10),
                         std::strtoull(words[4], nullptr, 10));
  };
  reactor.run(all());
  ::close(held);
  if (!done) std::fprintf(stderr, "fill_files: %s\n", done.error().message().c_str());
  return done ? 0 : 1;
}

}  // namespace
}  // namespace cumulus

int main(int count, char** words) {
  if (count == 5) return cumulus::run(words);
  std::fprintf(stderr, "usage: fill_files HOME VOLUME FIRST COUNT\n");
  return 2;
}
