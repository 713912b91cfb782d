// What the crypto tests share: bytes from hex, and bytes of a fixed pattern.
#pragma once

#include <gtest/gtest.h>
#include <random>
#include <string_view>

#include "objectstore/base/bytes.h"
#include "objectstore/crypto/secret.h"

namespace cumulus {

inline Bytes hex(std::string_view digits) {
  Bytes bytes(digits.size() / 2);
  if (!from_hex(digits, bytes)) ADD_FAILURE() << "a test vector is not hex: " << digits;
  return bytes;
}

template <std::size_t N>
std::array<std::uint8_t, N> hex_array(std::string_view digits) {
  std::array<std::uint8_t, N> bytes{};
  if (!from_hex(digits, bytes)) ADD_FAILURE() << "a test vector is not " << N << " bytes of hex: " << digits;
  return bytes;
}

inline SecretKey key_of(std::string_view digits) { return SecretKey(hex_array<32>(digits)); }

// 00 01 02 ... 1f: the master key of README.md's worked example.
inline SecretKey example_master() {
  return key_of("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
}

// Byte i is 7 i mod 251: no two neighbouring leaves are alike.
inline Bytes pattern(std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::uint8_t>(i * 7 % 251);
  return bytes;
}

inline Bytes random_bytes(std::mt19937_64& random, std::size_t size) {
  Bytes bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

}  // namespace cumulus
