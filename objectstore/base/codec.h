// Encoder and Decoder: the canonical little-endian layout of everything stored, hashed, signed or sent.
//
// Every parser goes through Decoder: it never reads past its input, and its first failure sticks, so a parser
// may read a whole record and ask ok() once before it uses any value. Variable-length integers are LEB128,
// minimal form only. Pure; any thread.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "objectstore/base/bytes.h"

namespace cumulus {

static_assert(std::endian::native == std::endian::little,
              "the layouts are written for little-endian machines");

class Encoder {
 public:
  explicit Encoder(Bytes& into) : out_(into) {}

  void u8(std::uint8_t value) { out_.push_back(value); }
  void u16(std::uint16_t value) { raw(value); }
  void u32(std::uint32_t value) { raw(value); }
  void u64(std::uint64_t value) { raw(value); }
  void varint(std::uint64_t value) {
    while (value >= 0x80) {
      out_.push_back(static_cast<std::uint8_t>(value | 0x80));
      value >>= 7;
    }
    out_.push_back(static_cast<std::uint8_t>(value));
  }
  void bytes(ByteView data) { out_.insert(out_.end(), data.begin(), data.end()); }
  // varint length, then the bytes.
  void block(ByteView data) {
    varint(data.size());
    bytes(data);
  }
  void text(std::string_view data) { block(view_of(data)); }
  void zeros(std::size_t count) { out_.resize(out_.size() + count); }

  std::size_t size() const { return out_.size(); }

 private:
  template <class T>
  void raw(T value) {
    const auto at = out_.size();
    out_.resize(at + sizeof value);
    std::memcpy(out_.data() + at, &value, sizeof value);
  }
  Bytes& out_;
};

class Decoder {
 public:
  explicit Decoder(ByteView input) : in_(input) {}

  bool ok() const { return ok_; }
  // True when all input was read without failure: what a strict parser asks last.
  bool done() const { return ok_ && in_.empty(); }
  std::size_t remaining() const { return in_.size(); }
  void mark_bad() {
    ok_ = false;
    in_ = {};
  }

  std::uint8_t u8() { return raw<std::uint8_t>(); }
  std::uint16_t u16() { return raw<std::uint16_t>(); }
  std::uint32_t u32() { return raw<std::uint32_t>(); }
  std::uint64_t u64() { return raw<std::uint64_t>(); }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const std::uint8_t byte = u8();
      if (!ok_) return 0;
      if (shift == 63 && byte > 1) break;
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if ((byte & 0x80) == 0) {
        if (byte == 0 && shift > 0) break;  // not the minimal form
        return value;
      }
    }
    mark_bad();
    return 0;
  }
  // A varint that must not exceed `most`.
  std::uint64_t varint_max(std::uint64_t most) {
    const std::uint64_t value = varint();
    if (value > most) mark_bad();
    return ok_ ? value : 0;
  }
  // A view into the input: valid while the input is.
  ByteView bytes(std::size_t count) {
    if (count > in_.size()) {
      mark_bad();
      return {};
    }
    const ByteView taken = in_.first(count);
    in_ = in_.subspan(count);
    return taken;
  }
  ByteView block(std::size_t most) { return bytes(varint_max(most)); }
  std::string_view text(std::size_t most) { return text_of(block(most)); }
  template <std::size_t N>
  std::array<std::uint8_t, N> array() {
    std::array<std::uint8_t, N> value{};
    const ByteView taken = bytes(N);
    if (ok_) std::memcpy(value.data(), taken.data(), N);
    return value;
  }

 private:
  template <class T>
  T raw() {
    T value{};
    const ByteView taken = bytes(sizeof value);
    if (ok_) std::memcpy(&value, taken.data(), sizeof value);
    return value;
  }
  ByteView in_;
  bool ok_ = true;
};

}  // namespace cumulus
