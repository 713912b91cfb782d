#include "objectstore/crypto/key_tree.h"

#include <string_view>

#include "objectstore/base/codec.h"
#include "objectstore/crypto/kdf.h"

namespace cumulus {
namespace {

SecretKey branch(const SecretKey& master, std::string_view label) {
  return hkdf(view_of("cumulus key tree v1"), master.view(), view_of(label));
}

}  // namespace

KeyTree::KeyTree(SecretKey master)
    : master_(std::move(master)),
      read_key_(branch(master_, "read")),
      tls_seed_(branch(master_, "tls")),
      index_key_(branch(master_, "index")),
      label_key_(branch(master_, "label")),
      signing_key_(branch(master_, "sign").array()),
      volume_id_(volume_id_of(signing_key_.public_key())) {}

SecretKey KeyTree::segment_key(const SegmentId& segment, const std::array<std::uint8_t, 16>& salt) const {
  Bytes info;
  Encoder out(info);
  out.bytes(view_of("cumulus segment v1"));
  out.bytes(salt);
  out.bytes(volume_id_.view());
  out.u8(static_cast<std::uint8_t>(segment.kind));
  out.u64(segment.epoch);
  out.u64(segment.sequence);
  return hkdf_expand(read_key_, info);
}

}  // namespace cumulus
