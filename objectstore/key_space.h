// The key space of the index, whole: every row's key is made here, and nowhere else.
//
//   dataset u32 | object u64 | kind u8 | subkey | ~version u64          integers big-endian, so that keys
//   sort
//
//   kind     subkey                        row
//   header   -                             object: size, header blob, or "removed"
//   xattr    escaped name, 00 00           value, or "removed"
//   omap     escaped key, 00 00            value, or "removed"
//   chunk    chunk number u64              pieces of one chunk
//
// A key without its version is the row's prefix; the versions of one row stand together, newest first.
// Escaping writes 00 as 00 FF, so that the terminator 00 00 sorts before every longer subkey and no subkey is
// another's prefix.
//
// Dataset 0 is the catalogue; its rows have no versions (the field is zero):
//   object 1: dataset u32                  name, type, spans, snapshots, quotas
//   object 2: dataset u32                  counters: next object id, usage of each quota tree
//   object 3: kind u8, sequence u64, epoch u64   a stored segment and its miners
// The engine's replay position stands at the key 00, before all others. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "objectstore/base/bytes.h"
#include "objectstore/base/ids.h"

namespace cumulus {

enum class RowKind : std::uint8_t { header = 1, xattr = 2, omap = 3, chunk = 4 };

inline constexpr std::size_t kKeyFixed = 4 + 8 + 1;  // dataset, object, kind
inline constexpr std::size_t kKeyVersion = 8;

std::string header_prefix(DatasetId dataset, ObjectId object);
std::string xattr_prefix(DatasetId dataset, ObjectId object, ByteView name);
std::string omap_prefix(DatasetId dataset, ObjectId object, ByteView key);
std::string chunk_prefix(DatasetId dataset, ObjectId object, std::uint64_t chunk);
// Everything of one kind of one object: the common beginning of its prefixes.
std::string kind_prefix(DatasetId dataset, ObjectId object, RowKind kind);
// Everything of an object, of a dataset.
std::string object_prefix(DatasetId dataset, ObjectId object);
std::string dataset_prefix(DatasetId dataset);

std::string with_version(std::string_view prefix, Version version);
// The first key after all keys that begin with `prefix` (which is not all FF).
std::string after_prefix(std::string_view prefix);

// Taking a versioned key apart. The views point into `key`.
struct ParsedKey {
  DatasetId dataset = 0;
  ObjectId object = 0;
  RowKind kind = RowKind::header;
  std::string_view prefix;
  std::string_view subkey;  // escaped and terminated; chunk: 8 bytes
  Version version = 0;
};
// False for anything that is not a key of a dataset other than the catalogue.
bool parse_key(std::string_view key, ParsedKey& parsed);
Bytes unescape_subkey(std::string_view escaped);
std::uint64_t chunk_of_subkey(std::string_view subkey);

std::string catalogue_dataset_key(DatasetId dataset);
std::string catalogue_counters_key(DatasetId dataset);
std::string placed_key(const SegmentId& segment);
inline const std::string kPositionKey(1, '\0');

}  // namespace cumulus
