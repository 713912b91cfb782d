// What the requests of a step come to, and in which orders they can have been accepted.
#include <algorithm>

#include "blockdev/flatten.h"
#include "blockdev/images.h"
#include "objectstore/base/format.h"
#include "objectstore/io/sync.h"
#include "tests/model/block_history.h"

namespace cumulus {
namespace {

Status fault(BlockFault fault) {
  return fail(ErrorKind::io, format("block fault {}", static_cast<int>(fault)));
}

template <class Range, class Value>
bool has(const Range& range, const Value& value) {
  return std::ranges::find(range, value) != range.end();
}

bool is_zero(ByteView bytes) {
  return std::ranges::all_of(bytes, [](std::uint8_t byte) { return byte == 0; });
}

}  // namespace

// All at once, each on a connection of its own.
void BlockHistory::send(std::vector<BlockRequest> requests) {
  if (requests.empty()) return;
  for (BlockRequest& request : requests) {
    tell(request.text());
    sent_.push_back(std::make_shared<Sent>(std::move(request)));
  }
  const auto body = [](BlockHistory& self) -> Task<void> {
    TaskGroup all(*self.machine_->process);
    for (const SentPtr& one : self.sent_) all.spawn(self.carry_out(one));
    co_await all.join();
  };
  if (run(body(*this), "requests")) take_answers();
}

Task<void> BlockHistory::carry_out(SentPtr sent) {
  using Kind = BlockRequest::Kind;
  const BlockRequest& request = sent->request;
  if (request.kind == Kind::change) co_return co_await change(std::move(sent));
  if (request.kind == Kind::flush) {
    const auto opened = co_await device(request.images.front());
    if (!opened) {
      sent->trouble = opened.error().message();
      co_return;
    }
    BlockStatus done;
    if (canary_ != BlockCanary::flush_forgotten) done = co_await (*opened)->flush();
    if (!done) sent->trouble = fault(done.error()).error().message();
    sent->durable = done.has_value();
    co_return;
  }
  const Status done = co_await care_for(request);
  const bool removal = request.kind == Kind::remove_snapshot || request.kind == Kind::remove_image;
  sent->refused = !done && removal && done.error().kind() == ErrorKind::exists;
  if (!done && !sent->refused) sent->trouble = done.error().message();
}

Task<void> BlockHistory::change(SentPtr sent) {
  const BlockRequest& request = sent->request;
  const auto opened = co_await device(request.images.front());
  if (!opened) {
    sent->trouble = opened.error().message();
    co_return;
  }
  BlockDevice& disk = **opened;
  BlockBatch batch;
  for (const BlockRequest::Part& part : request.parts) {
    BlockStatus added;
    if (part.data)
      added = disk.add_write(batch, part.offset, *part.data, part.data);
    else
      added = disk.add_zero(batch, part.offset, part.length, part.allocated);
    if (!added) sent->trouble = fault(added.error()).error().message();
  }
  const auto done = co_await disk.commit(std::move(batch));
  if (!done) sent->trouble = fault(done.error()).error().message();
  if (!done || !request.durable) co_return;
  BlockStatus kept;
  if (canary_ != BlockCanary::fua_forgotten) kept = co_await disk.make_durable(*done);
  if (!kept) sent->trouble = fault(kept.error()).error().message();
  sent->durable = kept.has_value();
}

Task<Status> BlockHistory::care_for(const BlockRequest& request) {
  using Kind = BlockRequest::Kind;
  Volume& volume = *machine_->volume;
  const std::string& image = request.images.front();
  if (request.kind == Kind::snapshot) {
    std::vector<Volume::SnapshotTarget> targets;
    for (const std::string& one : request.images) targets.push_back({id_of(one), request.name});
    co_return co_await volume.create_snapshots(std::move(targets));
  }
  if (request.kind == Kind::clone) {
    std::vector<std::string> names{request.clone};
    CO_TRY_OK(co_await volume.clone(id_of(image), request.name, std::move(names)));
    co_return Status();
  }
  if (request.kind == Kind::resize) co_return co_await resize(request);
  if (request.kind == Kind::flatten) co_return co_await flatten(image);
  if (request.kind == Kind::remove_snapshot)
    co_return co_await volume.remove_snapshot(id_of(image), request.name);
  devices().erase(image);  // never while attached
  if (request.kind == Kind::roll_back) co_return co_await volume.rollback(id_of(image), request.name);
  co_return co_await volume.remove_dataset(id_of(image));
}

// Interrupted now and then; it goes on where it was.
Task<Status> BlockHistory::flatten(const std::string& image) {
  for (;;) {
    std::uint64_t steps = below(4);
    Progress progress = [&steps](std::uint64_t, std::uint64_t) { return steps-- != 0; };
    Status done = co_await flatten_image(*machine_->volume, id_of(image), std::move(progress));
    if (!done && done.error().kind() == ErrorKind::closed) continue;
    CO_TRY_OK(std::move(done));
    const std::string parent = image_parent(*machine_->volume, id_of(image));
    if (!parent.empty()) co_return fail(ErrorKind::io, image + " still stands on " + parent);
    co_return Status();
  }
}

Task<Status> BlockHistory::resize(const BlockRequest& request) {
  const std::string& image = request.images.front();
  const bool shrink = request.size < now().head(image).size();
  if (shrink) devices().erase(image);  // never while attached
  CO_TRY_OK(co_await resize_image(*machine_->volume, id_of(image), request.size, shrink));
  const auto [first, last] = devices().equal_range(image);
  for (auto one = first; one != last; ++one) CO_TRY_OK(co_await one->second->refresh());
  co_return Status();
}

// One of those that are open, or now and then another.
Task<Result<std::shared_ptr<BlockDevice>>> BlockHistory::device(std::string image) {
  Devices& all = devices();
  const auto open = all.count(image);
  if (open < 3 && below(open + 1) == open) {
    CO_TRY(auto made, co_await BlockDevice::open(*machine_->volume, image, "", false));
    all.emplace(std::move(image), made);
    co_return made;
  }
  co_return std::next(all.find(image), static_cast<std::ptrdiff_t>(below(open)))->second;
}

void BlockHistory::take_answers() {
  for (const SentPtr& one : sent_)
    if (!one->trouble.empty()) return fail_story(one->request.text() + ": " + one->trouble);
  std::erase_if(sent_, [this](const SentPtr& one) {
    if (one->refused) count(BlockCount::refused);
    return one->refused;
  });
  const std::size_t base = steps_.size() - 1;
  const unsigned all_before = steps_.back().all;
  std::vector<Order> possible = orders(true);
  // Every later read, on every connection, sees what was answered: in one order for all.
  if (possible.size() > 1) {
    std::vector<Probe> probes;
    if (!probe(probes)) return;
    std::erase_if(possible, [&](const Order& order) {
      const BlockModel model = after(order);
      return !std::ranges::all_of(probes, [&](const Probe& one) {
        return equal(model.bytes(one.image, one.snapshot, one.offset, one.bytes.size()), one.bytes);
      });
    });
    if (possible.empty()) return fail_story("what was answered is read back in no order of the requests");
  }
  unsigned all = 0;
  for (std::size_t i = 0; i < sent_.size(); ++i) {
    all |= 1u << i;
    count_request(*sent_[i]);
    if (!sent_[i]->durable) continue;
    if (sent_[i]->request.kind == BlockRequest::Kind::flush)
      floor_.raise({base, all_before});
    else
      floor_.raise({base + 1, 1u << i});
    if (volume_options_.flush_means == Durability::remote) remote_floor_ = floor_;
  }
  add_states(possible);
  states_.back().includes = all;  // requests that change nothing too
  steps_.push_back({world_->now(), all});
  sent_.clear();
}

void BlockHistory::count_request(const Sent& sent) {
  using enum BlockRequest::Kind;
  count(BlockCount::requests);
  const auto kind = sent.request.kind;
  if (kind == change && sent.durable) count(BlockCount::fua);
  if (kind == flush) count(BlockCount::flushes);
  if (kind == snapshot) count(BlockCount::snapshots);
  if (kind == clone) count(BlockCount::clones);
  if (kind == resize) count(BlockCount::resizes);
  if (kind == roll_back) count(BlockCount::rollbacks);
  if (kind == flatten) count(BlockCount::flattened);
  if (kind == remove_snapshot || kind == remove_image) count(BlockCount::removed);
}

// False: killed meanwhile.
bool BlockHistory::probe(std::vector<Probe>& probes) {
  for (const SentPtr& one : sent_)
    for (const BlockRequest::Part& part : one->request.parts) {
      const std::string& image = one->request.images.front();
      probes.push_back({image, "", part.offset, Bytes(part.length)});
      for (const SentPtr& other : sent_)
        if (other->request.kind == BlockRequest::Kind::snapshot && has(other->request.images, image))
          probes.push_back({image, other->request.name, part.offset, Bytes(part.length)});
    }
  const auto body = [](BlockHistory& self, std::vector<Probe>& all) -> Task<Status> {
    for (Probe& one : all) {
      std::shared_ptr<BlockDevice> disk;
      if (one.snapshot.empty()) {
        CO_TRY(disk, co_await self.device(one.image));
      } else {
        CO_TRY(disk, co_await BlockDevice::open(*self.machine_->volume, one.image, one.snapshot, true));
      }
      if (disk->try_read(one.offset, one.bytes)) continue;
      const BlockStatus done = co_await disk->read(one.offset, one.bytes);
      if (!done) co_return fault(done.error());
    }
    co_return Status();
  };
  return run_status(body(*this, probes), "read back");
}

// All orders of the requests that change something; when not `whole`, of some of them too, fewest first.
std::vector<BlockHistory::Order> BlockHistory::orders(bool whole) const {
  Order changing;
  for (std::size_t i = 0; i < sent_.size(); ++i)
    if (sent_[i]->request.changes_model()) changing.push_back(i);
  std::vector<Order> all{{}};
  for (std::size_t from = 0, length = 1; length <= changing.size(); ++length)
    for (const std::size_t end = all.size(); from < end; ++from)
      for (const std::size_t next : changing)
        if (!has(all[from], next)) {
          Order longer = all[from];
          longer.push_back(next);
          all.push_back(std::move(longer));
        }
  if (whole) std::erase_if(all, [&](const Order& order) { return order.size() != changing.size(); });
  return all;
}

// Of each order what it comes to, and before that what it comes to half-way.
void BlockHistory::add_states(const std::vector<Order>& orders) {
  std::vector<Order> seen;
  const BlockModel base = now();
  for (std::size_t length = 0; length <= sent_.size(); ++length)
    for (const Order& order : orders) {
      if (order.size() < length) continue;
      Order part(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(length));
      if (has(seen, part)) continue;
      State state{base, steps_.size(), 0};
      for (const std::size_t at : part) {
        sent_[at]->request.apply(state.model);
        state.includes |= 1u << at;
      }
      seen.push_back(std::move(part));
      states_.push_back(std::move(state));
    }
}

BlockModel BlockHistory::after(const Order& order) const {
  BlockModel model = now();
  for (const std::size_t at : order) sent_[at]->request.apply(model);
  return model;
}

Task<Status> BlockHistory::read_all(std::shared_ptr<BlockModel> into) {
  const std::vector<DatasetInfo> datasets = machine_->volume->datasets();
  for (const DatasetInfo& info : datasets) {
    std::vector<std::string> names{""};
    for (const SnapshotInfo& one : info.snapshots) names.push_back(one.name);
    if (info.type != DatasetType::image) continue;
    for (const std::string& snapshot : names) {
      CO_TRY(const auto disk, co_await BlockDevice::open(*machine_->volume, info.name, snapshot, true));
      const auto bytes = std::make_shared<Bytes>(disk->size());
      const BlockStatus done = co_await disk->read(0, *bytes);
      if (!done) co_return fault(done.error());
      auto& image = into->images[info.name];
      (snapshot.empty() ? image.head : image.snapshots[snapshot]) = bytes;
    }
  }
  co_return Status();
}

// What is called a hole or zero is zero; what is called unchanged since the snapshot is.
Task<Status> BlockHistory::look_at(std::string image, std::string snapshot,
                                   std::shared_ptr<const Bytes> bytes) {
  CO_TRY(const auto disk, co_await BlockDevice::open(*machine_->volume, image, "", false));
  const Bytes& head = now().head(image);
  if (snapshot.empty()) {
    const auto extents = co_await disk->extents(0, head.size());
    if (!extents) co_return fault(extents.error());
    std::uint64_t at = 0;
    for (const BlockDevice::Extent& one : *extents) {
      if (one.kind != BlockDevice::Allocation::data && !is_zero(ByteView(head).subspan(at, one.length)))
        co_return fail(ErrorKind::io, format("{} is called empty at {}+{}", image, at, one.length));
      at += one.length;
    }
    if (at != head.size()) co_return fail(ErrorKind::io, "extents end at " + std::to_string(at));
    co_return Status();
  }
  const auto changes = co_await disk->changed_since(snapshot, 0, head.size());
  if (!changes) co_return fault(changes.error());
  std::uint64_t at = 0;
  for (const BlockDevice::Changed& one : *changes) {
    for (std::uint64_t i = at; i < at + one.length && !one.changed; ++i)
      if (head[i] != (i < bytes->size() ? (*bytes)[i] : 0))
        co_return fail(ErrorKind::io, format("byte {} of {} changed since {}", i, image, snapshot));
    at += one.length;
  }
  if (at != head.size()) co_return fail(ErrorKind::io, "changes end at " + std::to_string(at));
  co_return Status();
}

}  // namespace cumulus
