#include "objectstore/crypto/record_cipher.h"

#include <openssl/crypto.h>

#include "objectstore/base/check.h"
#include "objectstore/crypto/multi_buffer.h"
#include "objectstore/crypto/secret.h"

namespace cumulus {

struct RecordCipher::State {
  alignas(64) gcm_key_data key;
  alignas(64) gcm_context_data message;
  bool wide;  // 256-bit key
};

RecordCipher::RecordCipher(ByteView key) : state_(std::make_unique<State>()) {
  CHECK(key.size() == 16 || key.size() == 32);
  state_->wide = key.size() == 32;
  const IMB_MGR& lanes = cipher_lanes();
  (state_->wide ? lanes.gcm256_pre : lanes.gcm128_pre)(key.data(), &state_->key);
}

RecordCipher::~RecordCipher() { wipe({reinterpret_cast<std::uint8_t*>(state_.get()), sizeof(State)}); }

void RecordCipher::begin(ByteView nonce, ByteView aad) {
  CHECK(nonce.size() == kNonceSize);
  const IMB_MGR& lanes = cipher_lanes();
  const auto init = state_->wide ? lanes.gcm256_init : lanes.gcm128_init;
  init(&state_->key, &state_->message, nonce.data(), aad.data(), aad.size());
}

void RecordCipher::encrypt(ByteView plain, MutableByteView out) {
  CHECK(out.size() == plain.size());
  const IMB_MGR& lanes = cipher_lanes();
  const auto update = state_->wide ? lanes.gcm256_enc_update : lanes.gcm128_enc_update;
  update(&state_->key, &state_->message, out.data(), plain.data(), plain.size());
}

void RecordCipher::decrypt(ByteView sealed, MutableByteView out) {
  CHECK(out.size() == sealed.size());
  const IMB_MGR& lanes = cipher_lanes();
  const auto update = state_->wide ? lanes.gcm256_dec_update : lanes.gcm128_dec_update;
  update(&state_->key, &state_->message, out.data(), sealed.data(), sealed.size());
}

RecordCipher::Tag RecordCipher::finish(bool encrypting) {
  const IMB_MGR& lanes = cipher_lanes();
  const auto end = state_->wide ? (encrypting ? lanes.gcm256_enc_finalize : lanes.gcm256_dec_finalize)
                                : (encrypting ? lanes.gcm128_enc_finalize : lanes.gcm128_dec_finalize);
  Tag tag;
  end(&state_->key, &state_->message, tag.data(), tag.size());
  return tag;
}

bool RecordCipher::matches(const Tag& tag, const Tag& wanted) {
  return CRYPTO_memcmp(tag.data(), wanted.data(), tag.size()) == 0;
}

}  // namespace cumulus
