// Inode headers, directory entries, cookies' keys and access control lists from bytes: never a crash; what is
// accepted is written again as it was.
#include <vector>

#include "fs/acl.h"
#include "fs/records.h"
#include "objectstore/base/check.h"

namespace {
template <class Record>
void same_bytes(cumulus::ByteView bytes) {
  const auto record = Record::decode(bytes);
  if (record) CHECK(cumulus::equal(record->encode(), bytes));
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cumulus;
  if (size == 0) return 0;
  const ByteView bytes(data + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      same_bytes<Inode>(bytes);
      break;
    case 1:
      same_bytes<EntryRecord>(bytes);
      break;
    case 2: {
      const auto cookie = cookie_of_key(bytes);
      if (cookie) CHECK(equal(cookie_key(*cookie), bytes));
      break;
    }
    default: {
      auto acl = Acl::decode(bytes);
      if (!acl) break;
      const Bytes once = acl->encode();
      const auto again = Acl::decode(once);
      CHECK(again && again->encode() == once);
      const std::uint32_t allowed = acl->restrict_to(0640);
      CHECK((allowed & ~0640u) == 0);
      acl->set_mode(0751);
      CHECK((acl->mode_with(0) & 0777) == 0751);
      break;
    }
  }
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  using namespace cumulus;
  Inode inode;
  inode.mode = 0100644;
  inode.nlink = 1;
  inode.uid = 1000;
  inode.holes = true;
  inode.mtime = 1'700'000'000'123'456'789;
  EntryRecord entry;
  entry.object = 300;
  entry.type = 8;
  entry.name = "a";
  // user::rw- user:1000:r-- group::r-- mask::r-- other::---
  const Bytes acl = {2, 0,   0,   0,   1,   0,   6,  0, 255, 255, 255, 255, 2,   0,  4,
                     0, 232, 3,   0,   0,   4,   0,  4, 0,   255, 255, 255, 255, 16, 0,
                     4, 0,   255, 255, 255, 255, 32, 0, 0,   0,   255, 255, 255, 255};
  std::vector<std::vector<std::uint8_t>> seeds;
  const auto add = [&seeds](std::uint8_t kind, const Bytes& bytes) {
    seeds.push_back({kind});
    seeds.back().insert(seeds.back().end(), bytes.begin(), bytes.end());
  };
  add(0, inode.encode());
  add(1, entry.encode());
  add(2, cookie_key(12345));
  add(3, acl);
  CHECK(Acl::decode(acl));
  return seeds;
}
