#include "tools/cumulus/bucket.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>

#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/io/sync.h"

namespace cumulus {
namespace {

constexpr ObjectId kDirectory = 1;
constexpr std::size_t kPiece = 1u << 20;
constexpr std::size_t kPutWorkers = 4;
// Pieces wait for their group to be written; fresh memory for each would cost more than its cipher.
constexpr std::size_t kPutBuffersKept = 40;
constexpr std::string_view kUnfinished = "unfinished.";  // xattrs of the directory, with the object's number
constexpr Duration kTellEvery = std::chrono::seconds(1);
constexpr std::size_t kGetWorkers = 12;  // enough to have the next two segments on their way
// Of all gets together; those beyond go piece by piece, for nobody knows when their readers will read.
constexpr std::size_t kGetWorkersAll = 4 * kGetWorkers;
std::size_t get_workers = 0;  // reactor thread

// A get's workers and the size of its pieces, while it goes on.
class GetShare {
 public:
  GetShare() : alone_(get_workers + kGetWorkers > kGetWorkersAll) {
    if (!alone_) get_workers += kGetWorkers;
  }
  GetShare(const GetShare&) = delete;
  GetShare& operator=(const GetShare&) = delete;
  ~GetShare() {
    if (!alone_) get_workers -= kGetWorkers;
  }
  std::size_t workers() const { return alone_ ? 1 : kGetWorkers; }
  std::size_t piece() const { return alone_ ? kPiece / 4 : kPiece; }

 private:
  bool alone_;
};

Bytes bytes_of(std::string_view text) { return {text.begin(), text.end()}; }

// Somebody else set the name meanwhile. Any other refusal was waited for as long as the volume's options say.
bool raced(const Error& error) {
  return error.kind() == ErrorKind::exists || error.kind() == ErrorKind::not_found;
}

Bytes unfinished_mark(ObjectId object) { return bytes_of(format("{}{}", kUnfinished, object)); }

bool nothing_but_zeros(ByteView bytes) {
  return bytes.empty() ||
         (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace

Bytes BucketEntry::encode() const {
  Bytes bytes;
  Encoder out(bytes);
  out.u8(1);
  out.varint(object);
  out.varint(size);
  out.u64(modified_at);
  return bytes;
}

Result<BucketEntry> BucketEntry::decode(std::string name, ByteView bytes) {
  Decoder in(bytes);
  BucketEntry entry;
  const std::uint8_t version = in.u8();
  entry.name = std::move(name);
  entry.object = in.varint();
  entry.size = in.varint();
  entry.modified_at = in.u64();
  if (!in.done() || version != 1)
    return fail(ErrorKind::corrupt, format("the entry of '{}' does not parse", entry.name));
  return entry;
}

Task<Result<Bucket>> Bucket::open(Volume& volume, std::string name, bool make) {
  const DatasetInfo* info = volume.find_dataset(name);
  if (info == nullptr && !make) co_return fail(ErrorKind::not_found, format("there is no bucket '{}'", name));
  if (info == nullptr) {
    DatasetOptions options;
    auto made = co_await volume.create_dataset(name, options);
    if (!made && made.error().kind() != ErrorKind::exists) co_return fail(made.error());
    info = volume.find_dataset(name);
    if (info == nullptr) co_return fail(ErrorKind::io, format("bucket '{}' was not made", name));
  }
  if (info->type != DatasetType::bucket)
    co_return fail(ErrorKind::invalid, format("'{}' is not a bucket", name));
  Bucket bucket(volume, name, info->id, info->head);
  CO_TRY(const auto directory, co_await volume.stat(bucket.view_, kDirectory));
  if (!directory && make) {
    Transaction first;
    first.create({bucket.dataset_, kDirectory}, {});
    auto done = co_await volume.commit(std::move(first));
    if (!done && done.error().kind() != ErrorKind::exists) co_return fail(done.error());
  }
  co_return bucket;
}

Result<Bucket> Bucket::at_snapshot(Volume& volume, std::string name, std::string snapshot) {
  const DatasetInfo* info = volume.find_dataset(name);
  if (info == nullptr) return fail(ErrorKind::not_found, format("there is no bucket '{}'", name));
  for (const SnapshotInfo& candidate : info->snapshots) {
    if (candidate.name != snapshot) continue;
    Bucket bucket(volume, name, info->id, candidate.view);
    bucket.snapshot_ = snapshot;
    return bucket;
  }
  return fail(ErrorKind::not_found, format("'{}' has no snapshot '{}'", name, snapshot));
}

Status Bucket::check_head() const {
  if (snapshot_.empty()) return {};
  return fail(ErrorKind::invalid, format("'{0}@{1}' is a snapshot, which nothing changes: give '{0}' for the "
                                         "bucket itself",
                                         name_, snapshot_));
}

// Where there is no room for a put there is none for its removal, and nobody should wait for it a second
// time: the next daemon drops it.
Task<void> Bucket::give_up(ObjectId object, const Error& why) {
  if (why.kind() == ErrorKind::no_space) co_return;
  std::vector<ObjectRef> one{{dataset_, object}};
  const Status dropped = co_await drop_unfinished(volume_, std::move(one));
  if (!dropped)
    log_info("a put that failed leaves an object until the next start: {}", dropped.error().message());
}

Task<Result<std::vector<ObjectRef>>> Bucket::unfinished(Volume& volume) {
  std::vector<ObjectRef> found;
  for (const DatasetInfo& info : volume.datasets()) {
    if (info.type != DatasetType::bucket) continue;
    CO_TRY(const auto directory, co_await volume.stat(info.head, kDirectory));
    if (!directory) continue;
    CO_TRY(const auto marks, co_await volume.xattrs(info.head, kDirectory));
    for (const OmapEntry& mark : marks) {
      const std::string_view name = text_of(mark.key);
      ObjectId id = 0;
      if (!name.starts_with(kUnfinished)) continue;
      const auto number = name.substr(kUnfinished.size());
      if (std::from_chars(number.data(), number.data() + number.size(), id).ec == std::errc())
        found.push_back({info.id, id});
    }
  }
  co_return found;
}

Task<Status> Bucket::drop_unfinished(Volume& volume, std::vector<ObjectRef> objects) {
  for (const ObjectRef& object : objects) {
    Transaction drop;
    drop.remove(object);
    drop.remove_xattr({object.dataset, kDirectory}, unfinished_mark(object.object));
    auto done = co_await volume.commit(std::move(drop));
    if (!done) co_return fail(done.error());
  }
  co_return Status();
}

Task<Result<Bucket::Put>> Bucket::put(Runtime& runtime, std::string name, std::optional<std::uint64_t> size,
                                      Source source, Progress progress) {
  CO_TRY_OK(check_head());
  if (name.empty() || name.size() > kObjectNameMax)
    co_return fail(ErrorKind::invalid, format("an object's name has 1 to {} bytes", kObjectNameMax));
  ObjectId id = 0;
  do {
    CO_TRY(id, volume_.allocate_object(dataset_));
  } while (id <= kDirectory);
  const ObjectRef object{dataset_, id};
  // What is one piece is made and named in one step. Anything else has a mark until it has a name.
  const bool at_once = size && *size <= kPiece;
  if (!at_once) {
    Transaction create;
    create.create(object, {});
    create.set_xattr({dataset_, kDirectory}, unfinished_mark(id), {});
    CO_TRY_OK(co_await volume_.commit(std::move(create)));
  }

  // Workers take the next piece, read it and commit it; the order of pieces does not matter before the name
  // is set.
  struct State {
    std::uint64_t next = 0;
    std::uint64_t done = 0;
    std::uint64_t end = 0;
    Status status;
    bool ended = false;
    bool holes = false;  // something was left out: the size must be said
    std::shared_ptr<Buffer> whole;
  };
  State state;
  BufferPool pool(kPiece, kPutBuffersKept);
  Semaphore reading(runtime, size ? kPutWorkers : 1);
  const auto worker = [&]() -> Task<void> {
    for (;;) {
      auto buffer = pool.acquire();
      std::uint64_t at = 0;
      std::size_t got = 0;
      {
        const Semaphore::Hold turn = co_await reading.acquire();
        if (state.ended || !state.status) co_return;
        at = state.next;
        const std::size_t wanted =
            size ? static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, *size - at)) : kPiece;
        state.next += wanted;
        if (wanted == 0 || (size && state.next >= *size)) state.ended = true;
        if (wanted == 0) co_return;
        const auto read = co_await source(at, buffer->view(0, wanted));
        if (!read) {
          state.status = fail(read.error());
          co_return;
        }
        got = *read;
        if (got < wanted) {
          state.ended = true;
          if (size)
            state.status =
                fail(ErrorKind::io,
                     format("the file ended at {} while it was read: it was changed meanwhile", at + got));
        }
        state.end = std::max(state.end, at + got);
      }
      if (!state.status || got == 0) co_return;
      if (nothing_but_zeros(buffer->view(0, got))) {
        state.holes = true;  // of a sparse file, say: they cost nothing
      } else if (at_once) {
        state.whole = buffer;
      } else {
        Transaction write;
        write.write_shared(object, at, buffer->view(0, got), buffer);
        const auto committed = co_await volume_.commit(std::move(write));
        if (!committed) {
          state.status = fail(committed.error());
          co_return;
        }
      }
      state.done += got;
      if (progress && !progress(state.done, size.value_or(state.done))) {
        state.status = fail(ErrorKind::closed, "interrupted");
        co_return;
      }
    }
  };
  // Told while nothing moves, too: whoever waits wants to know for what.
  bool through = false;
  Signal ended(runtime);
  const auto tell = [&]() -> Task<void> {
    while (!through) {
      co_await ended.wait_until(runtime.now() + kTellEvery);
      if (!through && progress && !progress(state.done, size.value_or(state.done)))
        state.status = fail(ErrorKind::closed, "interrupted");
    }
  };
  TaskGroup workers(runtime);
  TaskGroup telling(runtime);
  telling.spawn(tell);
  for (std::size_t i = 0; i < kPutWorkers; ++i) workers.spawn(worker);
  co_await workers.join();
  Result<Commit> named = fail(ErrorKind::closed, "interrupted");
  const BucketEntry entry{name, id, state.end, runtime.wall_now()};
  if (state.status) {
    const std::function<void(Transaction&)> finish = [&](Transaction& set) {
      if (at_once)
        set.create(object, {});
      else
        set.remove_xattr({dataset_, kDirectory}, unfinished_mark(id));
      if (state.whole) set.write_shared(object, 0, state.whole->view(0, state.end), state.whole);
      if (state.holes) set.truncate(object, state.end);
    };
    named = co_await set_name(entry, finish);
  } else {
    named = fail(state.status.error());
  }
  through = true;
  ended.notify_all();
  co_await telling.join();
  if (!named && !at_once) co_await give_up(id, named.error());
  if (!named) co_return fail(named.error());
  co_return Put{*named, entry};
}

// The name, and what it named before, in one step; again when somebody else set it meanwhile.
Task<Result<Commit>> Bucket::set_name(const BucketEntry& entry,
                                      const std::function<void(Transaction&)>& finish) {
  for (int attempt = 0;; ++attempt) {
    CO_TRY(const auto before, co_await volume_.omap(view_, kDirectory, bytes_of(entry.name)));
    Transaction set;
    set.assert_omap({dataset_, kDirectory}, bytes_of(entry.name), before);
    finish(set);
    set.set_omap({dataset_, kDirectory}, bytes_of(entry.name), entry.encode());
    std::int64_t bytes = static_cast<std::int64_t>(entry.size);
    std::int64_t objects = 1;
    if (before) {
      CO_TRY(const BucketEntry old, BucketEntry::decode(entry.name, *before));
      set.remove({dataset_, old.object});
      bytes -= static_cast<std::int64_t>(old.size);
      objects = 0;
    }
    set.add_usage(dataset_, 0, bytes, objects);
    auto done = co_await volume_.commit(std::move(set));
    if (done || attempt == 8 || !raced(done.error())) co_return done;
  }
}

Task<Result<std::uint64_t>> Bucket::get(Runtime& runtime, std::string name, bool in_order, Sink sink,
                                        Progress progress) {
  CO_TRY(const BucketEntry entry, co_await stat(name));
  struct State {
    std::uint64_t next = 0;
    std::uint64_t written = 0;  // in order: up to here
    std::uint64_t done = 0;
    Status status;
  };
  State state;
  const GetShare share;
  BufferPool pool(share.piece(), share.workers());
  Signal turn(runtime);
  const auto worker = [&]() -> Task<void> {
    while (state.status && state.next < entry.size) {
      const std::uint64_t at = state.next;
      const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(share.piece(), entry.size - at));
      state.next += wanted;
      const auto buffer = pool.acquire();
      const auto got = co_await volume_.read(view_, entry.object, at, buffer->view(0, wanted));
      Status status;
      // Whoever puts or removes takes the bytes that had the name with him.
      if (!got && got.error().kind() == ErrorKind::not_found)
        status = fail(ErrorKind::exists,
                      format("'{}' was replaced or removed while it was read: run it again", name));
      else if (!got)
        status = fail(got.error());
      if (got && *got != wanted)
        status = fail(ErrorKind::corrupt, format("'{}' ends at {} of {} bytes", name, at + *got, entry.size));
      while (in_order && state.written != at && state.status) co_await turn.wait();
      if (status && state.status) status = co_await sink(at, buffer->view(0, wanted));
      if (!status && state.status) state.status = status;
      state.written = at + wanted;
      state.done += wanted;
      if (progress && state.status && !progress(state.done, entry.size))
        state.status = fail(ErrorKind::closed, "interrupted");
      turn.notify_all();
    }
  };
  TaskGroup workers(runtime);
  for (std::size_t i = 0; i < share.workers(); ++i) workers.spawn(worker);
  co_await workers.join();
  if (!state.status) co_return fail(state.status.error());
  co_return entry.size;
}

Task<Result<BucketEntry>> Bucket::stat(std::string name) {
  CO_TRY(const auto value, co_await volume_.omap(view_, kDirectory, bytes_of(name)));
  if (!value)
    co_return fail(ErrorKind::not_found, format("there is no object '{}' in bucket '{}'", name, name_));
  co_return BucketEntry::decode(name, *value);
}

Task<Result<std::vector<BucketEntry>>> Bucket::list(std::string prefix, std::string after,
                                                    std::size_t limit) {
  std::vector<BucketEntry> entries;
  CO_TRY(const auto directory, co_await volume_.stat(view_, kDirectory));
  if (!directory) co_return entries;
  std::optional<Bytes> cursor;
  if (!after.empty() || !prefix.empty()) cursor = bytes_of(std::max(after, prefix));
  // The prefix itself may be a name, and the listing begins after its cursor.
  if (!prefix.empty() && after < prefix) {
    CO_TRY(const auto exact, co_await volume_.omap(view_, kDirectory, bytes_of(prefix)));
    if (exact) {
      CO_TRY(auto entry, BucketEntry::decode(prefix, *exact));
      entries.push_back(std::move(entry));
    }
  }
  while (entries.size() < limit) {
    CO_TRY(const auto page, co_await volume_.omap_list(view_, kDirectory, cursor,
                                                       std::min<std::size_t>(limit - entries.size(), 1024)));
    for (const OmapEntry& row : page) {
      const std::string name(text_of(row.key));
      if (!name.starts_with(prefix)) co_return entries;
      CO_TRY(auto entry, BucketEntry::decode(name, row.value));
      entries.push_back(std::move(entry));
    }
    if (page.empty()) break;
    cursor = page.back().key;
  }
  co_return entries;
}

Task<Status> Bucket::remove(std::string name) {
  CO_TRY_OK(check_head());
  for (int attempt = 0;; ++attempt) {
    CO_TRY(const auto value, co_await volume_.omap(view_, kDirectory, bytes_of(name)));
    if (!value)
      co_return fail(ErrorKind::not_found, format("there is no object '{}' in bucket '{}'", name, name_));
    CO_TRY(const BucketEntry entry, BucketEntry::decode(name, *value));
    Transaction remove;
    remove.assert_omap({dataset_, kDirectory}, bytes_of(name), value);
    remove.remove_omap({dataset_, kDirectory}, bytes_of(name));
    remove.remove({dataset_, entry.object});
    remove.add_usage(dataset_, 0, -static_cast<std::int64_t>(entry.size), -1);
    auto done = co_await volume_.commit(std::move(remove));
    if (done) co_return Status();
    if (attempt == 8 || !raced(done.error())) co_return fail(done.error());
  }
}

}  // namespace cumulus
