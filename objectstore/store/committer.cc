#include "objectstore/store/committer.h"

#include <algorithm>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"
#include "objectstore/log/coalesce.h"
#include "objectstore/memory_shares.h"

namespace cumulus {
namespace {

constexpr Duration kRoomInterval = std::chrono::milliseconds(20);  // how often room is looked for
constexpr std::uint32_t kGroupsInFlightForSync = 2;  // a third waits and gathers more callers: group commit

std::string describe(ObjectRef object) {
  return format("object {} of dataset {}", object.object, object.dataset);
}

}  // namespace

Committer::Committer(Runtime& runtime, Index& index, LogWriter& log, VolumeOptions options, HasRoom has_room,
                     CompareBytes compare)
    : runtime_(runtime),
      index_(index),
      log_(log),
      options_(options),
      has_room_(std::move(has_room)),
      compare_(std::move(compare)),
      written_(log.written()),
      accepted_data_(written_),
      turnstile_(runtime, 1),
      door_(runtime, 1),
      staged_bytes_(runtime, MemoryShares(options_.memory_bytes).staged),
      opened_(runtime),
      progress_(runtime),
      tasks_(runtime) {
  open_.number = written_ + 1;
}

Committer::~Committer() = default;

void Committer::start() { tasks_.spawn(close_by_interval()); }

// A log that failed while it synced says so here: whoever waits for room would wait for ever.
Status Committer::check_open() {
  if (!failure_ && log_.failure()) fail_with(*log_.failure());
  if (failure_) return fail(*failure_);
  if (closing_) return fail(ErrorKind::closed, "the volume is being closed");
  return {};
}

std::size_t Committer::group_limit() const {
  // A small segment must hold at least two groups, or half of it would be waste.
  return std::min<std::size_t>(options_.group_bytes, log_.group_room() / 2);
}

bool Committer::fits(std::size_t record_bytes, std::size_t cell_bytes) const {
  return open_.record_bytes + record_bytes + open_.cell_bytes + cell_bytes <= log_.group_room() &&
         open_.record_bytes + record_bytes <= kRecordsMax;
}

Task<Result<Commit>> Committer::commit(Transaction transaction) {
  CO_TRY_OK(check_open());
  Transaction::Body& body = transaction.body();
  Semaphore::Hold memory = co_await staged_bytes_.acquire(body.data_bytes);

  // Bytes beyond one group go ahead of the transaction into groups of their own; its last group names them.
  const bool ahead = body.data_bytes > group_limit();
  std::vector<std::vector<Run>> runs;
  if (ahead) CO_TRY_OK(co_await stage_ahead(body, runs));

  CO_TRY(const Semaphore::Hold turn, co_await turn_with_room(ahead ? 0 : body.data_bytes));
  Draft draft;
  CO_TRY_OK(co_await decide(body, draft));
  if (ahead) draft.name_runs(runs);
  co_return co_await stage(std::move(draft), false, std::move(memory));
}

// The turnstile, once there is a place on the local disk for what is staged next.
Task<Result<Semaphore::Hold>> Committer::turn_with_room(std::uint64_t bytes) {
  Semaphore::Hold door;
  const TimePoint give_up = options_.outage_wait ? runtime_.now() + *options_.outage_wait : TimePoint::max();
  for (bool first = false;;) {
    CO_TRY_OK(co_await index_.room_for_group(give_up));
    Semaphore::Hold turn = co_await turnstile_.acquire();
    CO_TRY_OK(check_open());
    if (first || door_.in_use() == 0) {
      const Status room = has_room_(bytes_in_flight_ + open_.bytes() + bytes);
      if (room) co_return std::move(turn);
      if (room.error().kind() != ErrorKind::unavailable && runtime_.now() >= give_up)
        co_return fail(room.error().within("the local log takes no more until there is room on its disk"));
    }
    turn.release();
    if (!first) {
      door = co_await door_.acquire();
      first = true;
      continue;
    }
    co_await progress_.wait_until(runtime_.now() + kRoomInterval);
  }
}

Task<Result<Commit>> Committer::commit_changes(BuildChanges build, bool bookkeeping) {
  CO_TRY_OK(check_open());
  CO_TRY_OK(co_await index_.room_for_group(TimePoint::max()));
  const Semaphore::Hold turn = co_await turnstile_.acquire();
  CO_TRY_OK(check_open());
  CO_TRY(std::vector<Change> changes, build());
  Draft draft;
  for (Change& change : changes) draft.add(std::move(change));
  Semaphore::Hold none;
  co_return co_await stage(std::move(draft), bookkeeping, std::move(none));
}

Task<Status> Committer::stage_ahead(Transaction::Body& body, std::vector<std::vector<Run>>& runs) {
  std::vector<std::vector<std::shared_ptr<Run>>> pending;
  LogPosition last = 0;
  for (auto& operation : body.operations) {
    const auto* write = std::get_if<Transaction::Body::WriteData>(&operation);
    if (write == nullptr || write->data.empty()) continue;
    const DatasetInfo* info = index_.dataset(write->object.dataset);
    if (info == nullptr)
      co_return fail(ErrorKind::not_found, format("dataset {} does not exist", write->object.dataset));
    const std::uint8_t cell_log2 = info->cell_log2;
    auto& pieces = pending.emplace_back();
    for (ByteView rest = write->data; !rest.empty();) {
      const std::size_t length = std::min(rest.size(), group_limit());
      CO_TRY(const Semaphore::Hold turn, co_await turn_with_room(length));
      if (!fits(0, sealed_length_of(static_cast<std::uint32_t>(length), cell_log2))) close_group();
      pieces.push_back(std::make_shared<Run>());
      note_opened(false);
      add_run(rest.first(length), write->owner, cell_log2, pieces.back());
      last = open_.number;
      if (open_.cell_bytes >= group_limit()) close_group();
      rest = rest.subspan(length);
    }
  }
  CO_TRY_OK(co_await written(last));
  for (const auto& pieces : pending) {
    auto& named = runs.emplace_back();
    for (const auto& piece : pieces) named.push_back(*piece);
  }
  co_return Status();
}

// Replaces each Write by the Writes of the runs that were staged ahead for it.
void Committer::Draft::name_runs(const std::vector<std::vector<Run>>& runs) {
  std::vector<Change> old = std::exchange(changes, {});
  record_bytes = 0;
  std::size_t next = 0;
  for (std::size_t i = 0; i < old.size(); ++i) {
    if (next == data.size() || data[next].change != i) {
      add(std::move(old[i]));
      continue;
    }
    auto write = std::get<change::Write>(old[i]);
    for (const Run& run : runs[next]) {
      write.run = run;
      write.length = run.plain_length;
      add(write);
      write.offset += run.plain_length;
    }
    ++next;
  }
  CHECK(next == runs.size());
  data.clear();
  cell_bytes = 0;
}

Task<Status> Committer::decide(Transaction::Body& body, Draft& draft) {
  using Body = Transaction::Body;
  for (auto& operation : body.operations) {
    if (const auto* exists = std::get_if<Body::AssertExists>(&operation)) {
      CO_TRY(const auto known, co_await known_object(exists->object, draft));
      if (!known->exists) co_return fail(ErrorKind::not_found, describe(exists->object) + " does not exist");
    } else if (const auto* absent = std::get_if<Body::AssertAbsent>(&operation)) {
      CO_TRY(const auto known, co_await known_object(absent->object, draft));
      if (known->exists) co_return fail(ErrorKind::exists, describe(absent->object) + " exists already");
    } else if (const auto* entry = std::get_if<Body::AssertOmap>(&operation)) {
      const DatasetInfo* info = index_.dataset(entry->object.dataset);
      if (info == nullptr)
        co_return fail(ErrorKind::not_found, format("dataset {} does not exist", entry->object.dataset));
      CO_TRY(const auto value, co_await index_.omap(info->head, entry->object.object, entry->key));
      if (value != entry->expected) {
        const ErrorKind kind = value ? ErrorKind::exists : ErrorKind::not_found;
        co_return fail(kind,
                       "an entry of " + describe(entry->object) + " is not what the transaction expects");
      }
    } else if (const auto* attribute = std::get_if<Body::AssertXattr>(&operation)) {
      const DatasetInfo* info = index_.dataset(attribute->object.dataset);
      if (info == nullptr)
        co_return fail(ErrorKind::not_found, format("dataset {} does not exist", attribute->object.dataset));
      CO_TRY(const auto value, co_await index_.xattr(info->head, attribute->object.object, attribute->name));
      if (value != attribute->expected) {
        const ErrorKind kind = value ? ErrorKind::exists : ErrorKind::not_found;
        co_return fail(
            kind, "an attribute of " + describe(attribute->object) + " is not what the transaction expects");
      }
    } else if (const auto* size = std::get_if<Body::AssertSize>(&operation)) {
      CO_TRY(const auto known, co_await known_object(size->object, draft));
      if (!known->exists || known->size < size->at_least)
        co_return fail(ErrorKind::not_found,
                       describe(size->object) + " is shorter than the transaction expects");
    } else if (const auto* compare = std::get_if<Body::Compare>(&operation)) {
      CO_TRY(const bool same, co_await compare_(*compare));
      if (!same)
        co_return fail(ErrorKind::exists,
                       "bytes of " + describe(compare->object) + " are not what the transaction expects");
    } else if (auto* write = std::get_if<Body::WriteData>(&operation)) {
      CO_TRY(const auto known, co_await known_object(write->object, draft));
      if (!known->exists) co_return fail(ErrorKind::not_found, describe(write->object) + " does not exist");
      const std::uint64_t offset = write->append ? known->size : write->offset;
      const std::uint64_t length = write->data.size();
      if (length > kObjectSizeMax || offset > kObjectSizeMax - length)
        co_return fail(ErrorKind::invalid,
                       format("a write of {} bytes at {} passes the largest object size", length, offset));
      if (length == 0) continue;
      known->size = std::max(known->size, offset + length);
      const std::uint8_t cell_log2 = index_.dataset(write->object.dataset)->cell_log2;
      draft.data.push_back({draft.changes.size(), write->data, write->owner, cell_log2});
      draft.cell_bytes += sealed_length_of(
          static_cast<std::uint32_t>(std::min<std::uint64_t>(length, ~std::uint32_t{0})), cell_log2);
      draft.add(change::Write{
          .object = write->object, .offset = offset, .length = static_cast<std::uint32_t>(length)});
    } else {
      auto& change = std::get<Change>(operation);
      CO_TRY_OK(co_await decide_change(change, draft));
      draft.add(std::move(change));
    }
  }
  if (draft.record_bytes > std::min<std::size_t>(kRecordsMax, log_.group_room() / 2))
    co_return fail(
        ErrorKind::invalid,
        format("a transaction of {} bytes of metadata is too large for one group", draft.record_bytes));
  co_return check_quotas(draft);
}

// What the transaction adds to a tree in all: what it takes away makes room for what it adds.
Status Committer::check_quotas(const Draft& draft) const {
  const auto above = [](std::int64_t used, std::int64_t more, std::uint64_t most) {
    if (most == 0 || more <= 0 || used + more <= 0) return false;
    return static_cast<std::uint64_t>(used + more) > most;
  };
  for (const auto& [place, sum] : draft.usage) {
    const DatasetInfo* info = index_.dataset(place.first);
    if (info == nullptr) return fail(ErrorKind::not_found, format("dataset {} does not exist", place.first));
    const auto tree = info->trees.find(place.second);
    if (tree == info->trees.end()) continue;
    const QuotaState& quota = tree->second;
    if (above(quota.bytes, sum.bytes, quota.bytes_max) ||
        above(quota.objects, sum.objects, quota.objects_max))
      return fail(ErrorKind::no_space,
                  place.second == 0 ? format("the quota of '{}' is used up", info->name)
                                    : format("the quota of a directory tree of '{}' is used up", info->name));
  }
  return {};
}

Task<Result<Committer::Draft::Known*>> Committer::known_object(ObjectRef object, Draft& draft) {
  const auto found = draft.objects.find(object);
  if (found != draft.objects.end()) co_return &found->second;
  const DatasetInfo* info = index_.dataset(object.dataset);
  if (info == nullptr || object.dataset == 0)
    co_return fail(ErrorKind::not_found, format("dataset {} does not exist", object.dataset));
  if (object.object == 0 || object.object > kObjectIdMax)
    co_return fail(ErrorKind::invalid, format("{} is not an object id", object.object));
  CO_TRY(const auto stat, co_await index_.stat(info->head, object.object));
  co_return &draft.objects.emplace(object, Draft::Known{stat.has_value(), stat ? stat->size : 0})
      .first->second;
}

Task<Status> Committer::decide_change(const Change& change, Draft& draft) {
  ObjectRef object;
  std::uint64_t end = 0;
  if (const auto* create = std::get_if<change::Create>(&change)) {
    if (create->header.size() > kHeaderSizeMax)
      co_return fail(ErrorKind::invalid, "an object's header is too large");
    CO_TRY(const auto known, co_await known_object(create->object, draft));
    if (known->exists) co_return fail(ErrorKind::exists, describe(create->object) + " exists already");
    known->exists = true;
    known->size = 0;
    co_return Status();
  }
  if (const auto* usage = std::get_if<change::AddUsage>(&change)) {
    if (index_.dataset(usage->id) == nullptr)
      co_return fail(ErrorKind::not_found, format("dataset {} does not exist", usage->id));
    Draft::Usage& sum = draft.usage[{usage->id, usage->tree}];
    sum.bytes += usage->bytes;
    sum.objects += usage->objects;
    co_return Status();
  }
  if (const auto* quota = std::get_if<change::SetQuota>(&change)) {
    if (index_.dataset(quota->id) == nullptr)
      co_return fail(ErrorKind::not_found, format("dataset {} does not exist", quota->id));
    co_return Status();
  }
  if (const auto* remove = std::get_if<change::Remove>(&change)) object = remove->object;
  if (const auto* zero = std::get_if<change::Zero>(&change)) {
    object = zero->object;
    if (zero->length > kObjectSizeMax || zero->offset > kObjectSizeMax - zero->length)
      co_return fail(ErrorKind::invalid, "a range passes the largest object size");
    if (zero->grow) end = zero->offset + zero->length;
  }
  if (const auto* truncate = std::get_if<change::Truncate>(&change)) {
    object = truncate->object;
    if (truncate->size > kObjectSizeMax)
      co_return fail(ErrorKind::invalid, "a size passes the largest object size");
  }
  if (const auto* header = std::get_if<change::SetHeader>(&change)) {
    object = header->object;
    if (header->header.size() > kHeaderSizeMax)
      co_return fail(ErrorKind::invalid, "an object's header is too large");
  }
  if (const auto* xattr = std::get_if<change::SetXattr>(&change)) {
    object = xattr->object;
    if (xattr->name.empty() || xattr->name.size() > kXattrNameMax || xattr->value.size() > kXattrValueMax)
      co_return fail(ErrorKind::invalid, "an extended attribute's name or value is too large");
  }
  if (const auto* xattr = std::get_if<change::RemoveXattr>(&change)) object = xattr->object;
  if (const auto* omap = std::get_if<change::SetOmap>(&change)) {
    object = omap->object;
    if (omap->key.size() > kOmapKeyMax || omap->value.size() > kOmapValueMax)
      co_return fail(ErrorKind::invalid, "an omap key or value is too large");
  }
  if (const auto* omap = std::get_if<change::RemoveOmap>(&change)) object = omap->object;
  if (const auto* clone = std::get_if<change::CloneRange>(&change)) {
    object = clone->target;
    if (clone->length > kObjectSizeMax || clone->source_offset > kObjectSizeMax - clone->length ||
        clone->target_offset > kObjectSizeMax - clone->length)
      co_return fail(ErrorKind::invalid, "a range passes the largest object size");
    CO_TRY(const auto source, co_await known_object(clone->source, draft));
    if (!source->exists) co_return fail(ErrorKind::not_found, describe(clone->source) + " does not exist");
    end = clone->target_offset + clone->length;
  }
  CO_TRY(const auto known, co_await known_object(object, draft));
  if (!known->exists) co_return fail(ErrorKind::not_found, describe(object) + " does not exist");
  known->size = std::max(known->size, end);
  if (const auto* truncate = std::get_if<change::Truncate>(&change)) known->size = truncate->size;
  if (std::holds_alternative<change::Remove>(change)) known->exists = false;
  co_return Status();
}

Task<Result<Commit>> Committer::stage(Draft draft, bool bookkeeping, Semaphore::Hold memory) {
  if (draft.changes.empty()) co_return Commit{accepted()};
  if (!fits(draft.record_bytes, draft.cell_bytes)) close_group();
  // From here to the last stage() nothing may suspend with part of the transaction staged, unless a row was
  // evicted meanwhile; then the rest is loaded again before any reader or the group's closing can come
  // between (the turnstile).
  CO_TRY_OK(co_await index_.prepare(draft.changes));
  CO_TRY_OK(check_open());
  note_opened(bookkeeping);
  for (const auto& data : draft.data)
    std::get<change::Write>(draft.changes[data.change]).run =
        add_run(data.plain, data.owner, data.cell_log2, nullptr);
  for (std::size_t i = 0; i < draft.changes.size();) {
    if (index_.stage(draft.changes[i])) {
      ++i;
      continue;
    }
    const std::vector<Change> rest(draft.changes.begin() + static_cast<std::ptrdiff_t>(i),
                                   draft.changes.end());
    if (Status loaded = co_await index_.prepare(rest); !loaded) {
      // The engine cannot be read: half a transaction is staged and its group must never be written.
      fail_with(loaded.error());
      co_return fail(loaded.error());
    }
  }
  for (Change& change : draft.changes) open_.changes.push_back(std::move(change));
  open_.record_bytes += draft.record_bytes;
  open_.holds.push_back(std::move(memory));
  const Commit done{open_.number};
  if (open_.record_bytes + open_.cell_bytes >= group_limit()) close_group();
  co_return done;
}

void Committer::note_opened(bool bookkeeping) {
  if (!open_.opened) {
    open_.opened = runtime_.now();
    opened_.notify_all();
  }
  if (bookkeeping) return;
  open_.bookkeeping = false;
  accepted_data_ = open_.number;
}

Run Committer::add_run(ByteView plain, std::shared_ptr<const void> owner, std::uint8_t cell_log2,
                       std::shared_ptr<Run> resolved) {
  StagedRun staged{next_staged_++, plain, std::move(owner), cell_log2, std::move(resolved)};
  const Run run = staged.run();
  open_.cell_bytes += run.sealed_length();
  staged_.emplace(staged.number, staged);
  open_.runs.push_back(std::move(staged));
  return run;
}

std::optional<Committer::Staged> Committer::staged(const Run& run) const {
  const auto found = staged_.find(run.segment.sequence);
  if (found == staged_.end()) return std::nullopt;
  return Staged{found->second.plain, found->second.owner};
}

// Under the turnstile (or with nobody in it): what is open becomes a draft on its way to the log.
void Committer::close_group() {
  if (open_.empty() || failure_) return;
  OpenGroup closed = std::exchange(open_, {});
  open_.number = closed.number + 1;
  index_.close_group(closed.number);
  ++groups_in_flight_;
  bytes_in_flight_ += closed.bytes();
  tasks_.spawn(write_group(std::move(closed)));
}

Task<void> Committer::write_group(OpenGroup group) {
  GroupDraft draft;
  draft.bookkeeping = group.bookkeeping;
  draft.awaited = group.number <= awaited_;
  std::unordered_map<std::uint64_t, std::uint32_t> offsets;
  std::uint32_t cells = 0;
  for (const StagedRun& run : group.runs) {
    offsets.emplace(run.number, cells);
    cells += run.run().sealed_length();
    draft.runs.push_back({run.plain, run.cell_log2, run.owner});
  }
  const StagedOffset offset_of = [&offsets](const Run& run) { return offsets.at(run.segment.sequence); };
  coalesce(group.changes);
  for (const Change& change : group.changes) encode_change(change, offset_of, draft.records);
  const std::uint64_t bytes = draft.records.size() + cells;

  const LogPosition number = group.number;
  Result<WrittenGroup> written = co_await log_.append(std::move(draft));
  while (!failure_ && written_ + 1 != number) co_await progress_.wait();
  --groups_in_flight_;
  bytes_in_flight_ -= group.bytes();
  if (failure_ || !written) {
    if (!failure_) fail_with(written.error());
    progress_.notify_all();
    co_return;
  }
  CHECK(written->number == number);
  const auto resolve = [&](const Run& staged) {
    const auto offset = offsets.find(staged.segment.sequence);
    if (offset == offsets.end()) return staged;  // another group's
    Run run = staged;
    run.segment = written->segment;
    run.base = written->cells_base + offset->second;
    run.nonce = written->nonce;
    return run;
  };
  for (const StagedRun& run : group.runs)
    if (run.resolved) *run.resolved = resolve(run.run());
  index_.group_written(number, bytes, resolve);
  for (const StagedRun& run : group.runs) staged_.erase(run.number);
  written_ = number;
  progress_.notify_all();
}

void Committer::fail_with(const Error& error) {
  if (failure_) return;
  failure_ = error;
  log_error("nothing more can be written to this volume: {}", error.message());
  opened_.notify_all();
  progress_.notify_all();
  tasks_.spawn(take_back());
}

// What was accepted and never written is taken back: readers see the log's own state again, and the memory is
// given to those who wait for it, to be told of the failure.
Task<void> Committer::take_back() {
  const Semaphore::Hold turn = co_await turnstile_.acquire();
  // What is lost was accepted all the same: who asks for "everything" is told.
  const LogPosition number = accepted() + 1;
  open_ = {};
  open_.number = number;
  staged_.clear();
  if (Status taken = co_await index_.abandon_unwritten(); !taken)
    log_error("what was not written cannot be taken out of view: {}", taken.error().message());
}

void Committer::refuse(const Error& reason) { fail_with(reason); }

Task<Status> Committer::written(LogPosition position) {
  while (written_ < position) {
    if (failure_) co_return fail(*failure_);
    if (open_.number == position && !open_.empty() && groups_in_flight_ < kGroupsInFlightForSync) {
      const Semaphore::Hold turn = co_await turnstile_.acquire();
      if (open_.number == position) close_group();
      continue;
    }
    co_await progress_.wait();
  }
  co_return Status();
}

Task<Status> Committer::durable(LogPosition position) {
  awaited_ = std::max(awaited_, position);
  CO_TRY_OK(co_await written(position));
  co_return co_await log_.make_durable(position);
}

void Committer::hasten() {
  Semaphore::Hold turn;
  if (closing_ || groups_in_flight_ != 0 || !turnstile_.try_acquire(turn)) return;
  awaited_ = std::max(awaited_, accepted());
  close_group();
}

Task<void> Committer::close_by_interval() {
  while (!failure_) {
    if (!open_.opened) {
      if (closing_) co_return;
      co_await opened_.wait();
      continue;
    }
    const TimePoint due = *open_.opened + options_.group_interval;
    if (!closing_ && runtime_.now() < due) {
      const LogPosition number = open_.number;
      co_await opened_.wait_until(due);
      if (open_.number != number) continue;
      if (!closing_ && runtime_.now() < due) continue;
    }
    const Semaphore::Hold turn = co_await turnstile_.acquire();
    if (closing_ || (open_.opened && runtime_.now() >= *open_.opened + options_.group_interval))
      close_group();
  }
}

Task<Status> Committer::close() {
  closing_ = true;
  opened_.notify_all();
  progress_.notify_all();
  co_await tasks_.join();
  if (failure_) co_return fail(*failure_);
  co_return Status();
}

}  // namespace cumulus
