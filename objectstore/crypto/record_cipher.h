// AES-GCM (NIST SP 800-38D) as a stream of parts, with 128- or 256-bit keys, for transports that bring their
// own keys and nonces. What we store is sealed by aead.h. One thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "objectstore/base/bytes.h"

namespace cumulus {

class RecordCipher {
 public:
  static constexpr std::size_t kNonceSize = 12;
  static constexpr std::size_t kTagSize = 16;
  using Tag = std::array<std::uint8_t, kTagSize>;

  // 16 or 32 bytes. What is made of them is wiped with this object.
  explicit RecordCipher(ByteView key);
  RecordCipher(const RecordCipher&) = delete;
  RecordCipher& operator=(const RecordCipher&) = delete;
  ~RecordCipher();

  // A new message; what was begun before is forgotten. A nonce comes once under a key: the caller sees to it.
  void begin(ByteView nonce, ByteView aad);
  // The message's next bytes; `out` has their size and is either the same memory or apart.
  void encrypt(ByteView plain, MutableByteView out);
  void decrypt(ByteView sealed, MutableByteView out);
  // Ends the message. After decrypt(): nothing of it is true before matches() says so.
  Tag finish(bool encrypting);
  // In constant time.
  static bool matches(const Tag& tag, const Tag& wanted);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cumulus
