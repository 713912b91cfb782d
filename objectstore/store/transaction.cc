#include "objectstore/store/transaction.h"

namespace cumulus {

Transaction::Transaction() : body_(std::make_unique<Body>()) {}
Transaction::~Transaction() = default;
Transaction::Transaction(Transaction&&) noexcept = default;
Transaction& Transaction::operator=(Transaction&&) noexcept = default;

void Transaction::assert_exists(ObjectRef object) {
  body_->operations.emplace_back(Body::AssertExists{object});
}
void Transaction::assert_absent(ObjectRef object) {
  body_->operations.emplace_back(Body::AssertAbsent{object});
}
void Transaction::assert_omap(ObjectRef object, Bytes key, std::optional<Bytes> expected) {
  body_->operations.emplace_back(Body::AssertOmap{object, std::move(key), std::move(expected)});
}
void Transaction::assert_xattr(ObjectRef object, Bytes name, std::optional<Bytes> expected) {
  body_->operations.emplace_back(Body::AssertXattr{object, std::move(name), std::move(expected)});
}
void Transaction::assert_size(ObjectRef object, std::uint64_t at_least) {
  body_->operations.emplace_back(Body::AssertSize{object, at_least});
}
void Transaction::compare(ObjectRef object, std::uint64_t offset, Bytes expected) {
  body_->operations.emplace_back(Body::Compare{object, offset, std::move(expected)});
}

void Transaction::create(ObjectRef object, Bytes header) {
  body_->operations.emplace_back(Change(change::Create{object, std::move(header)}));
}
void Transaction::remove(ObjectRef object) { body_->operations.emplace_back(Change(change::Remove{object})); }

void Transaction::write(ObjectRef object, std::uint64_t offset, ByteView data) {
  auto copy = std::make_shared<Bytes>(data.begin(), data.end());
  const ByteView view = *copy;
  write_shared(object, offset, view, std::move(copy));
}
void Transaction::write_shared(ObjectRef object, std::uint64_t offset, ByteView data,
                               std::shared_ptr<const void> owner) {
  body_->data_bytes += data.size();
  body_->operations.emplace_back(Body::WriteData{object, offset, false, data, std::move(owner)});
}
void Transaction::append(ObjectRef object, ByteView data) {
  auto copy = std::make_shared<Bytes>(data.begin(), data.end());
  const ByteView view = *copy;
  body_->data_bytes += data.size();
  body_->operations.emplace_back(Body::WriteData{object, 0, true, view, std::move(copy)});
}

void Transaction::zero(ObjectRef object, std::uint64_t offset, std::uint64_t length, bool allocated,
                       bool grow) {
  body_->operations.emplace_back(Change(change::Zero{object, offset, length, allocated, grow}));
}
void Transaction::truncate(ObjectRef object, std::uint64_t size) {
  body_->operations.emplace_back(Change(change::Truncate{object, size}));
}
void Transaction::set_header(ObjectRef object, Bytes header) {
  body_->operations.emplace_back(Change(change::SetHeader{object, std::move(header)}));
}
void Transaction::set_xattr(ObjectRef object, Bytes name, Bytes value) {
  body_->operations.emplace_back(Change(change::SetXattr{object, std::move(name), std::move(value)}));
}
void Transaction::remove_xattr(ObjectRef object, Bytes name) {
  body_->operations.emplace_back(Change(change::RemoveXattr{object, std::move(name)}));
}
void Transaction::set_omap(ObjectRef object, Bytes key, Bytes value) {
  body_->operations.emplace_back(Change(change::SetOmap{object, std::move(key), std::move(value)}));
}
void Transaction::remove_omap(ObjectRef object, Bytes key) {
  body_->operations.emplace_back(Change(change::RemoveOmap{object, std::move(key)}));
}
void Transaction::clone_range(ObjectRef source, std::uint64_t source_offset, ObjectRef target,
                              std::uint64_t target_offset, std::uint64_t length) {
  body_->operations.emplace_back(
      Change(change::CloneRange{source, target, source_offset, target_offset, length}));
}
void Transaction::add_usage(DatasetId dataset, std::uint32_t tree, std::int64_t bytes, std::int64_t objects) {
  body_->operations.emplace_back(Change(change::AddUsage{dataset, tree, bytes, objects}));
}
void Transaction::set_quota(DatasetId dataset, std::uint32_t tree, std::uint64_t bytes,
                            std::uint64_t objects) {
  body_->operations.emplace_back(Change(change::SetQuota{dataset, tree, bytes, objects}));
}

namespace {

struct VariableBytes {
  std::size_t operator()(const change::Create& c) const { return c.header.size(); }
  std::size_t operator()(const change::SetHeader& c) const { return c.header.size(); }
  std::size_t operator()(const change::SetXattr& c) const { return c.name.size() + c.value.size(); }
  std::size_t operator()(const change::RemoveXattr& c) const { return c.name.size(); }
  std::size_t operator()(const change::SetOmap& c) const { return c.key.size() + c.value.size(); }
  std::size_t operator()(const change::RemoveOmap& c) const { return c.key.size(); }
  std::size_t operator()(const change::CreateDataset& c) const {
    return c.name.size() + c.parent.size() + c.inherited.size() * 24;
  }
  std::size_t operator()(const change::RenameDataset& c) const { return c.name.size(); }
  std::size_t operator()(const change::CreateSnapshot& c) const { return c.name.size(); }
  std::size_t operator()(const change::RemoveSnapshot& c) const { return c.name.size(); }
  std::size_t operator()(const change::Rollback& c) const { return c.snapshot.size(); }
  std::size_t operator()(const change::Placed& c) const { return c.miners.size() * 32; }
  template <class Fixed>
  std::size_t operator()(const Fixed&) const {
    return 0;
  }
};

}  // namespace

std::size_t record_size_bound(const Change& change) {
  // 128: type, flags, lengths and every fixed field at its longest.
  return 128 + std::visit(VariableBytes{}, change);
}

}  // namespace cumulus
