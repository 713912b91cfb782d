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

bool RecordCipher::is_fast() {
  constexpr std::uint64_t kVectors = IMB_FEATURE_VAES | IMB_FEATURE_VPCLMULQDQ | IMB_FEATURE_AVX512_SKX;
  return (cipher_lanes().features & kVectors) == kVectors;
}

RecordCipher::RecordCipher(ByteView key) : state_(std::make_unique<State>()) {
  CHECK(key.size() == 16 || key.size() == 32);
  state_->wide = key.size() == 32;
  if (state_->wide) {
    IMB_AES256_GCM_PRE(&cipher_lanes(), key.data(), &state_->key);
  } else {
    IMB_AES128_GCM_PRE(&cipher_lanes(), key.data(), &state_->key);
  }
}

RecordCipher::RecordCipher(const RecordCipher& other) : state_(std::make_unique<State>(*other.state_)) {}

RecordCipher::~RecordCipher() { wipe({reinterpret_cast<std::uint8_t*>(state_.get()), sizeof(State)}); }

void RecordCipher::begin(ByteView nonce, ByteView aad) {
  CHECK(nonce.size() == kNonceSize);
  if (state_->wide) {
    IMB_AES256_GCM_INIT(&cipher_lanes(), &state_->key, &state_->message, nonce.data(), aad.data(),
                        aad.size());
  } else {
    IMB_AES128_GCM_INIT(&cipher_lanes(), &state_->key, &state_->message, nonce.data(), aad.data(),
                        aad.size());
  }
}

void RecordCipher::encrypt(ByteView plain, MutableByteView out) {
  CHECK(out.size() == plain.size());
  if (state_->wide) {
    IMB_AES256_GCM_ENC_UPDATE(&cipher_lanes(), &state_->key, &state_->message, out.data(), plain.data(),
                              plain.size());
  } else {
    IMB_AES128_GCM_ENC_UPDATE(&cipher_lanes(), &state_->key, &state_->message, out.data(), plain.data(),
                              plain.size());
  }
}

void RecordCipher::decrypt(ByteView sealed, MutableByteView out) {
  CHECK(out.size() == sealed.size());
  if (state_->wide) {
    IMB_AES256_GCM_DEC_UPDATE(&cipher_lanes(), &state_->key, &state_->message, out.data(), sealed.data(),
                              sealed.size());
  } else {
    IMB_AES128_GCM_DEC_UPDATE(&cipher_lanes(), &state_->key, &state_->message, out.data(), sealed.data(),
                              sealed.size());
  }
}

RecordCipher::Tag RecordCipher::finish(bool encrypting) {
  Tag tag;
  IMB_MGR& lanes = cipher_lanes();
  const auto end = state_->wide ? (encrypting ? lanes.gcm256_enc_finalize : lanes.gcm256_dec_finalize)
                                : (encrypting ? lanes.gcm128_enc_finalize : lanes.gcm128_dec_finalize);
  end(&state_->key, &state_->message, tag.data(), tag.size());
  return tag;
}

bool RecordCipher::matches(const Tag& tag, const Tag& wanted) {
  return CRYPTO_memcmp(tag.data(), wanted.data(), tag.size()) == 0;
}

}  // namespace cumulus
