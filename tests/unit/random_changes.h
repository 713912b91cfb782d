// Random, well-formed changes for property tests and fuzz seeds.
#pragma once

#include <random>

#include "objectstore/log/change.h"

namespace cumulus {

// `type` is the alternative's index in Change.
inline Change random_change(std::mt19937_64& random, std::size_t type) {
  const auto below = [&](std::uint64_t bound) { return random() % bound; };
  const auto bytes = [&](std::size_t most) {
    Bytes value(below(most + 1));
    for (auto& byte : value) byte = static_cast<std::uint8_t>(random());
    return value;
  };
  const auto text = [&] {
    std::string value(below(40), 'a');
    for (auto& c : value) c = static_cast<char>('a' + below(26));
    return value;
  };
  const auto object = [&] { return ObjectRef{static_cast<DatasetId>(random()), 1 + below(kObjectIdMax)}; };
  const auto segment = [&] {
    return SegmentId{static_cast<SegmentKind>(1 + below(4)), random() >> below(64), 1 + below(1u << 30)};
  };
  const auto run = [&](std::uint32_t length) {
    return Run{.segment = segment(),
               .base = static_cast<std::uint32_t>(below(1u << 30)),
               .plain_length = length,
               .cell_log2 = static_cast<std::uint8_t>(9 + below(12)),
               .nonce = random()};
  };
  const std::uint64_t offset = below(1ull << 62);
  const std::uint64_t length = below(1ull << 62);
  const auto id = static_cast<DatasetId>(random());
  switch (type) {
    case 0: {
      const auto whole = static_cast<std::uint32_t>(2 + below(1u << 24));
      const auto skip = static_cast<std::uint32_t>(below(whole - 1));
      return change::Write{object(), offset, static_cast<std::uint32_t>(1 + below(whole - skip)), skip,
                           run(whole)};
    }
    case 1:
      return change::Zero{object(), offset, length, below(2) == 0, below(2) == 0};
    case 2:
      return change::Truncate{object(), offset};
    case 3:
      return change::Create{object(), bytes(300)};
    case 4:
      return change::Remove{object()};
    case 5:
      return change::SetHeader{object(), bytes(300)};
    case 6:
      return change::SetXattr{object(), bytes(255), bytes(300)};
    case 7:
      return change::RemoveXattr{object(), bytes(255)};
    case 8:
      return change::SetOmap{object(), bytes(300), bytes(300)};
    case 9:
      return change::RemoveOmap{object(), bytes(300)};
    case 10:
      return change::CloneRange{object(), object(), offset, below(1ull << 62), length};
    case 11: {
      change::CreateDataset create{.id = id,
                                   .type = static_cast<DatasetType>(1 + below(3)),
                                   .chunk_log2 = static_cast<std::uint8_t>(20 + below(5)),
                                   .cell_log2 = static_cast<std::uint8_t>(9 + below(10)),
                                   .name = text(),
                                   .next_object = 1 + below(kObjectIdMax),
                                   .parent = text(),
                                   .created_at = random()};
      for (auto spans = below(5); spans > 0; --spans)
        create.inherited.push_back({static_cast<DatasetId>(random()), random(), random()});
      return create;
    }
    case 12:
      return change::RemoveDataset{id};
    case 13:
      return change::RenameDataset{id, text()};
    case 14:
      return change::SetQuota{id, static_cast<std::uint32_t>(random()), random(), random()};
    case 15:
      return change::CreateSnapshot{id, text(), random()};
    case 16:
      return change::RemoveSnapshot{id, text()};
    case 17:
      return change::Rollback{id, text()};
    case 18:
      return change::AddUsage{id, static_cast<std::uint32_t>(random()),
                              static_cast<std::int64_t>(random() << below(64)),
                              static_cast<std::int64_t>(random())};
    case 19:
      return change::Detach{id};
    case 20: {
      change::Placed placed{
          .segment = segment(), .length = static_cast<std::uint32_t>(random()), .k = 4, .m = 2};
      for (auto& byte : placed.salt) byte = static_cast<std::uint8_t>(random());
      placed.miners.resize(below(7));
      for (auto& miner : placed.miners)
        for (auto& byte : miner.bytes) byte = static_cast<std::uint8_t>(random());
      return placed;
    }
    default: {
      const auto whole = static_cast<std::uint32_t>(1 + below(1u << 24));
      return change::Relocate{object(), offset, run(whole), run(whole)};
    }
  }
}

}  // namespace cumulus
