// The body of a Transaction: operations in the order given. Asserts and appends are decided at commit,
// against the state that the commit sees; everything else is a Change already.
#pragma once

#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "objectstore/log/change.h"
#include "objectstore/object_store.h"

namespace cumulus {

struct Transaction::Body {
  struct AssertExists {
    ObjectRef object;
  };
  struct AssertAbsent {
    ObjectRef object;
  };
  struct AssertOmap {
    ObjectRef object;
    Bytes key;
    std::optional<Bytes> expected;
  };
  struct AssertXattr {
    ObjectRef object;
    Bytes name;
    std::optional<Bytes> expected;
  };
  struct AssertSize {
    ObjectRef object;
    std::uint64_t at_least = 0;
  };
  struct Compare {
    ObjectRef object;
    std::uint64_t offset = 0;
    Bytes expected;
  };
  struct WriteData {
    ObjectRef object;
    std::uint64_t offset = 0;
    bool append = false;  // at the object's size then; `offset` is ignored
    ByteView data;
    std::shared_ptr<const void> owner;
  };
  using Operation = std::variant<AssertExists, AssertAbsent, AssertOmap, AssertXattr, AssertSize, Compare,
                                 WriteData, Change>;

  std::vector<Operation> operations;
  std::uint64_t data_bytes = 0;
};

// Limits of one transaction's parts; beyond them commit() says `invalid`.
inline constexpr std::size_t kHeaderSizeMax = 64 * 1024;
inline constexpr std::size_t kXattrNameMax = 255;
inline constexpr std::size_t kXattrValueMax = 64 * 1024;
inline constexpr std::size_t kOmapKeyMax = 1024;
inline constexpr std::size_t kOmapValueMax = 64 * 1024;
inline constexpr std::size_t kRecordsMax = 1u << 20;
inline constexpr std::uint64_t kObjectSizeMax = (std::uint64_t{1} << 63) - 1;

// An upper bound of the bytes that the change's record takes in a group.
std::size_t record_size_bound(const Change& change);

}  // namespace cumulus
