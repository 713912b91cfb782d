// The numbers and layouts of the NBD protocol (github.com/NetworkBlockDevice/nbd, doc/proto.md), big-endian.
// The only file of the tree in which they stand. Pure; any thread.
#pragma once

#include <concepts>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

#include "objectstore/base/bytes.h"

namespace cumulus::nbd {

inline constexpr std::uint64_t kGreeting = 0x4e42444d41474943;     // "NBDMAGIC"
inline constexpr std::uint64_t kOptionMagic = 0x49484156454F5054;  // "IHAVEOPT"
inline constexpr std::uint64_t kOptionReplyMagic = 0x0003e889045565a9;
inline constexpr std::uint32_t kRequestMagic = 0x25609513;
inline constexpr std::uint32_t kExtendedRequestMagic = 0x21e41c71;
inline constexpr std::uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr std::uint32_t kStructuredReplyMagic = 0x668e33ef;
inline constexpr std::uint32_t kExtendedReplyMagic = 0x6e8a278c;

// Handshake flags, the server's and the client's.
inline constexpr std::uint16_t kFixedNewstyle = 1;
inline constexpr std::uint16_t kNoZeroes = 2;

enum class Option : std::uint32_t {
  export_name = 1,
  abort = 2,
  list = 3,
  starttls = 5,
  info = 6,
  go = 7,
  structured_reply = 8,
  list_meta_context = 9,
  set_meta_context = 10,
  extended_headers = 11,
};
enum class OptionReply : std::uint32_t {
  ack = 1,
  server = 2,
  info = 3,
  meta_context = 4,
  unsupported = 0x80000001,
  policy = 0x80000002,
  invalid = 0x80000003,
  tls_required = 0x80000005,
  unknown = 0x80000006,
  too_big = 0x80000009,
  extended_headers_required = 0x8000000a,
};
enum class Info : std::uint16_t { export_ = 0, name = 1, description = 2, block_size = 3 };

// Transmission flags.
inline constexpr std::uint16_t kHasFlags = 1u << 0;
inline constexpr std::uint16_t kReadOnly = 1u << 1;
inline constexpr std::uint16_t kSendFlush = 1u << 2;
inline constexpr std::uint16_t kSendFua = 1u << 3;
inline constexpr std::uint16_t kSendTrim = 1u << 5;
inline constexpr std::uint16_t kSendWriteZeroes = 1u << 6;
inline constexpr std::uint16_t kSendDf = 1u << 7;
inline constexpr std::uint16_t kCanMultiConn = 1u << 8;
inline constexpr std::uint16_t kSendCache = 1u << 10;
inline constexpr std::uint16_t kSendFastZero = 1u << 11;

enum class Command : std::uint16_t {
  read = 0,
  write = 1,
  disconnect = 2,
  flush = 3,
  trim = 4,
  cache = 5,
  write_zeroes = 6,
  block_status = 7,
};
inline constexpr std::uint16_t kFua = 1u << 0;
inline constexpr std::uint16_t kNoHole = 1u << 1;
inline constexpr std::uint16_t kDf = 1u << 2;
inline constexpr std::uint16_t kReqOne = 1u << 3;
inline constexpr std::uint16_t kFastZero = 1u << 4;
inline constexpr std::uint16_t kPayloadLength = 1u << 5;

enum class Chunk : std::uint16_t {
  none = 0,
  offset_data = 1,
  offset_hole = 2,
  block_status = 5,
  block_status_extended = 6,
  error = 0x8001,
};
inline constexpr std::uint16_t kDone = 1;

enum class Code : std::uint32_t {
  ok = 0,
  eperm = 1,
  eio = 5,
  enomem = 12,
  einval = 22,
  enospc = 28,
  eoverflow = 75,
  enotsup = 95,
  eshutdown = 108,
};

// base:allocation
inline constexpr std::uint32_t kStateHole = 1;
inline constexpr std::uint32_t kStateZero = 2;

inline constexpr std::uint32_t kBlockMin = 1;
inline constexpr std::uint32_t kPayloadMax = 32u << 20;
inline constexpr std::size_t kNameMax = 4096;

template <class T>
T big_endian(T value) {
  if constexpr (sizeof(T) == 1) {
    return value;
  } else if constexpr (sizeof(T) == 2) {
    return static_cast<T>(__builtin_bswap16(value));
  } else if constexpr (sizeof(T) == 4) {
    return static_cast<T>(__builtin_bswap32(value));
  } else {
    return static_cast<T>(__builtin_bswap64(value));
  }
}
template <class T>
T load(const std::uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return big_endian(value);
}
template <class T>
std::uint8_t* store(std::uint8_t* to, T value) {
  value = big_endian(value);
  std::memcpy(to, &value, sizeof value);
  return to + sizeof value;
}
template <std::integral T>
void append(Bytes& to, T value) {
  to.resize(to.size() + sizeof value);
  store(to.data() + to.size() - sizeof value, value);
}
inline void append(Bytes& to, std::string_view text) { to.insert(to.end(), text.begin(), text.end()); }

}  // namespace cumulus::nbd
