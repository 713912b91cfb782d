#include "objectstore/key_space.h"

#include <bit>
#include <cstring>

namespace cumulus {
namespace {

template <class T>
void put(std::string& key, T value) {
  if constexpr (sizeof(T) > 1) {
    value = sizeof(T) == 4 ? static_cast<T>(__builtin_bswap32(static_cast<std::uint32_t>(value)))
                           : static_cast<T>(__builtin_bswap64(value));
  }
  key.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <class T>
T get(std::string_view key, std::size_t at) {
  T value;
  std::memcpy(&value, key.data() + at, sizeof value);
  return sizeof(T) == 4 ? static_cast<T>(__builtin_bswap32(static_cast<std::uint32_t>(value)))
                        : static_cast<T>(__builtin_bswap64(value));
}

void put_escaped(std::string& key, ByteView subkey) {
  for (const std::uint8_t byte : subkey) {
    key.push_back(static_cast<char>(byte));
    if (byte == 0) key.push_back(static_cast<char>(0xFF));
  }
  key.append(2, '\0');
}

std::string catalogue_key(ObjectId object) {
  std::string key;
  put(key, DatasetId{0});
  put(key, object);
  return key;
}

}  // namespace

std::string dataset_prefix(DatasetId dataset) {
  std::string key;
  put(key, dataset);
  return key;
}

std::string object_prefix(DatasetId dataset, ObjectId object) {
  std::string key;
  key.reserve(kKeyFixed + 8 + kKeyVersion);
  put(key, dataset);
  put(key, object);
  return key;
}

std::string kind_prefix(DatasetId dataset, ObjectId object, RowKind kind) {
  std::string key = object_prefix(dataset, object);
  put(key, static_cast<std::uint8_t>(kind));
  return key;
}

std::string header_prefix(DatasetId dataset, ObjectId object) {
  return kind_prefix(dataset, object, RowKind::header);
}

std::string xattr_prefix(DatasetId dataset, ObjectId object, ByteView name) {
  std::string key = kind_prefix(dataset, object, RowKind::xattr);
  put_escaped(key, name);
  return key;
}

std::string omap_prefix(DatasetId dataset, ObjectId object, ByteView subkey) {
  std::string key = kind_prefix(dataset, object, RowKind::omap);
  put_escaped(key, subkey);
  return key;
}

std::string chunk_prefix(DatasetId dataset, ObjectId object, std::uint64_t chunk) {
  std::string key = kind_prefix(dataset, object, RowKind::chunk);
  put(key, chunk);
  return key;
}

std::string with_version(std::string_view prefix, Version version) {
  std::string key(prefix);
  put(key, ~version);
  return key;
}

std::string after_prefix(std::string_view prefix) {
  std::string key(prefix);
  while (!key.empty() && key.back() == static_cast<char>(0xFF)) key.pop_back();
  if (!key.empty()) key.back() = static_cast<char>(key.back() + 1);
  return key;
}

bool parse_key(std::string_view key, ParsedKey& parsed) {
  if (key.size() < kKeyFixed + kKeyVersion) return false;
  parsed.dataset = get<DatasetId>(key, 0);
  parsed.object = get<ObjectId>(key, 4);
  const auto kind = static_cast<std::uint8_t>(key[12]);
  if (parsed.dataset == 0 || kind < 1 || kind > 4) return false;
  parsed.kind = static_cast<RowKind>(kind);
  parsed.prefix = key.substr(0, key.size() - kKeyVersion);
  parsed.subkey = parsed.prefix.substr(kKeyFixed);
  parsed.version = ~get<Version>(key, parsed.prefix.size());
  if (parsed.kind == RowKind::header) return parsed.subkey.empty();
  if (parsed.kind == RowKind::chunk) return parsed.subkey.size() == 8;
  return parsed.subkey.size() >= 2 && parsed.subkey.ends_with(std::string_view("\0\0", 2));
}

Bytes unescape_subkey(std::string_view escaped) {
  Bytes subkey;
  for (std::size_t i = 0; i + 2 < escaped.size(); ++i) {
    subkey.push_back(static_cast<std::uint8_t>(escaped[i]));
    if (escaped[i] == '\0') ++i;  // the FF after it
  }
  return subkey;
}

std::uint64_t chunk_of_subkey(std::string_view subkey) { return get<std::uint64_t>(subkey, 0); }

std::string catalogue_dataset_key(DatasetId dataset) {
  std::string key = catalogue_key(1);
  put(key, dataset);
  return key;
}

std::string catalogue_counters_key(DatasetId dataset) {
  std::string key = catalogue_key(2);
  put(key, dataset);
  return key;
}

std::string placed_key(const SegmentId& segment) {
  std::string key = catalogue_key(3);
  put(key, static_cast<std::uint8_t>(segment.kind));
  put(key, segment.sequence);
  put(key, segment.epoch);
  return key;
}

}  // namespace cumulus
