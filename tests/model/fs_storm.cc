#include "tests/model/fs_storm.h"

#include "fs/modes.h"
#include "objectstore/base/format.h"
#include "objectstore/io/sync.h"
#include "tests/fakes/seeded_random.h"

namespace cumulus {
namespace {

constexpr std::uint64_t kNames = 12;
constexpr std::size_t kKnownMost = 60;
const Caller kCaller;

}  // namespace

struct FsStorm::Draw {
  SeededRandom random;
  FsStorm& storm;

  std::uint64_t below(std::uint64_t most) { return random.below(most); }
  NodeId directory() { return storm.directories[below(storm.directories.size())]; }
  NodeId node() { return storm.nodes[below(storm.nodes.size())]; }
  std::string name() { return format("n{}", below(kNames)); }
  void know(std::vector<NodeId>& list, NodeId made) {
    if (list.size() < kKnownMost)
      list.push_back(made);
    else
      list[1 + below(list.size() - 1)] = made;  // the root stays
  }
};

// What others do meanwhile explains every answer but these.
template <class T>
bool FsStorm::fine(const FsResult<T>& result, const char* what) {
  ++calls;
  if (result) return true;
  ++refused;
  const FsErrorKind kind = result.error().kind;
  const bool broken = kind == FsErrorKind::io || kind == FsErrorKind::read_only ||
                      kind == FsErrorKind::no_space || kind == FsErrorKind::too_many_links;
  if (broken && failure.empty()) failure = format("{} beside others: {}", what, result.error().message);
  return false;
}

void FsStorm::removed(Draw& draw, const FsResult<NodeId>& lost_name, const char* what) {
  if (fine(lost_name, what) && draw.random.once_in(2)) files.forget(*lost_name);
}

Task<void> FsStorm::blow(std::size_t callers, std::uint64_t calls_each) {
  TaskGroup all(runtime);
  for (std::size_t i = 0; i < callers; ++i) all.spawn(caller(runtime.random().u64(), calls_each));
  co_await all.join();
}

Task<void> FsStorm::caller(std::uint64_t seed, std::uint64_t most) {
  Draw draw{SeededRandom(seed), *this};
  for (std::uint64_t i = 0; i < most && failure.empty(); ++i) {
    const std::uint64_t what = draw.below(10);
    if (what < 5)
      co_await change_names(draw);
    else if (what < 8)
      co_await change_data(draw);
    else
      co_await look(draw);
    if (draw.random.once_in(3)) co_await runtime.yield();
  }
}

Task<void> FsStorm::change_names(Draw& draw) {
  const NodeId parent = draw.directory();
  std::string name = draw.name();
  switch (draw.below(8)) {
    case 0:
    case 1: {
      OpenFlags flags;
      flags.write = true;
      const auto made = co_await files.create(kCaller, parent, std::move(name), 0644, flags);
      if (!fine(made, "create")) break;
      draw.know(nodes, made->entry.node);
      fine(co_await files.release(made->handle), "release");
      break;
    }
    case 2: {
      NewNode what;
      what.mode = kDirectoryKind | 0755;
      const auto made = co_await files.make_node(kCaller, parent, std::move(name), std::move(what));
      if (fine(made, "mkdir")) draw.know(directories, made->node);
      break;
    }
    case 3:
      fine(co_await files.link(kCaller, draw.node(), parent, std::move(name)), "link");
      break;
    case 4:
      removed(draw, co_await files.unlink(kCaller, parent, std::move(name)), "unlink");
      break;
    case 5:
      removed(draw, co_await files.rmdir(kCaller, parent, std::move(name)), "rmdir");
      break;
    default: {
      RenameFlags flags;
      flags.exchange = draw.random.once_in(4);
      const NodeId to = draw.directory();
      std::string new_name = draw.name();
      removed(draw, co_await files.rename(kCaller, parent, std::move(name), to, std::move(new_name), flags),
              "rename");
    }
  }
}

Task<void> FsStorm::change_data(Draw& draw) {
  const NodeId node = draw.node();
  if (draw.random.once_in(4)) {
    AttributeChange change;
    change.mode = static_cast<std::uint32_t>(draw.below(kModeMask + 1));
    if (draw.random.once_in(2)) change.size = draw.below(100'000);
    const bool is_root = node == kRootNode;
    if (!is_root) fine(co_await files.setattr(kCaller, node, std::move(change)), "setattr");
    co_return;
  }
  OpenFlags flags;
  flags.read = flags.write = true;
  const auto handle = co_await files.open(node, flags);
  if (!fine(handle, "open")) co_return;
  const std::uint64_t offset = draw.below(90'000);
  const std::uint64_t what = draw.below(4);
  if (what < 2) {
    const auto data = std::make_shared<const Bytes>(1 + draw.below(8'000), std::uint8_t{7});
    fine(co_await files.write(kCaller, *handle, offset, *data, data, false), "write");
  } else if (what == 2) {
    AllocateMode mode;
    mode.punch_hole = mode.keep_size = draw.random.once_in(2);
    fine(co_await files.allocate(kCaller, *handle, mode, offset, 1 + draw.below(20'000)), "allocate");
  } else {
    const auto source = co_await files.open(draw.node(), flags);
    if (fine(source, "open")) {
      fine(co_await files.copy_range(kCaller, *source, draw.below(50'000), *handle, 100'000 + offset, 20'000),
           "copy_range");
      fine(co_await files.release(*source), "release");
    }
  }
  fine(co_await files.release(*handle), "release");
}

Task<void> FsStorm::look(Draw& draw) {
  const NodeId parent = draw.directory();
  std::string name = draw.name();
  switch (draw.below(4)) {
    case 0:
      fine(co_await files.lookup(kCaller, parent, std::move(name)), "lookup");
      break;
    case 1:
      fine(co_await files.list(parent, 0, 1000, true), "list");
      break;
    case 2:
      fine(co_await files.fsync(draw.node()), "fsync");
      break;
    default:
      fine(co_await files.getattr(draw.node()), "getattr");
  }
}

}  // namespace cumulus
