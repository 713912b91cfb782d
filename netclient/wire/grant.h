// Grant: the volume's signed word that a TLS identity may act for it. The miner checks it against the public
// key that the TLS handshake proved; so a stolen grant is worth nothing without the TLS key, and the signing
// key itself never has to be on a connection. Layout in PROTOCOL.md. Pure; any thread.
#pragma once

#include <array>
#include <cstdint>

#include "objectstore/base/bytes.h"
#include "objectstore/base/clock.h"
#include "objectstore/base/ids.h"
#include "objectstore/base/result.h"

namespace cumulus {
class SigningKey;
}

namespace cumulus::wire {

struct Grant {
  static constexpr std::size_t kEncodedSize = 180;
  // What the bearer may ask for.
  static constexpr std::uint32_t kRead = 1;    // READ, LIST, HAVE, CHALLENGE, SUPERBLOCK
  static constexpr std::uint32_t kWrite = 2;   // PUT
  static constexpr std::uint32_t kDelete = 4;  // DELETE
  static constexpr std::uint32_t kHold = 8;    // PROMISE, ACCEPT
  static constexpr std::uint32_t kAll = 15;

  VolumeId volume;
  std::array<std::uint8_t, 32> sign_public_key{};  // volume is its hash
  std::array<std::uint8_t, 32> tls_public_key{};   // of the bearer
  std::uint32_t rights = kAll;
  WallTime not_after = 0;                    // 0: no end
  std::array<std::uint8_t, 64> signature{};  // Ed25519 over "cumulus grant v1" and everything before

  bool operator==(const Grant&) const = default;
  void encode(Bytes& into) const;  // appends exactly kEncodedSize bytes
  // Parses only: magic, version, known rights. corrupt / unsupported otherwise.
  static Result<Grant> decode(ByteView bytes);
  // The volume id, the signature, the bearer (`peer` = the public key that TLS proved) and the end date.
  // denied, with the reason, otherwise.
  Status verify(const std::array<std::uint8_t, 32>& peer, WallTime now) const;
};
void sign_grant(Grant& grant, const SigningKey& key);

}  // namespace cumulus::wire
