#include "netclient/wire/tls_ciphers.h"

#include <array>
#include <cstring>
#include <memory>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>

#include "objectstore/base/check.h"
#include "objectstore/crypto/record_cipher.h"

namespace cumulus::wire {
namespace {

// RFC 8446 authenticates the five bytes of a record's header.
constexpr std::size_t kAadMax = 64;

// One direction of one connection. OpenSSL gives a key once; then for each record a nonce, the tag that it
// expects (when it reads), associated data (an update without output), the bytes, and the end.
struct Cipher {
  std::size_t key_size;
  std::unique_ptr<RecordCipher> keyed;
  bool encrypting = false;
  bool has_nonce = false;  // for the record that comes; used up by its end
  bool has_tag = false;
  bool begun = false;
  std::array<std::uint8_t, RecordCipher::kNonceSize> nonce{};
  std::array<std::uint8_t, kAadMax> aad{};
  std::size_t aad_size = 0;
  RecordCipher::Tag tag{};

  explicit Cipher(std::size_t given_key_size) : key_size(given_key_size) {}

  bool begin() {
    if (begun) return true;
    if (!keyed || !has_nonce) return false;
    keyed->begin(nonce, ByteView(aad).first(aad_size));
    return begun = true;
  }
};

Cipher& of(void* context) { return *static_cast<Cipher*>(context); }

template <std::size_t KeySize>
void* make_cipher(void*) {
  return new Cipher(KeySize);
}
void free_cipher(void* context) { delete &of(context); }

int set_cipher_params(void* context, const OSSL_PARAM* params) {
  Cipher& cipher = of(context);
  if (params == nullptr) return 1;
  if (const OSSL_PARAM* size = OSSL_PARAM_locate_const(params, OSSL_CIPHER_PARAM_AEAD_IVLEN)) {
    std::size_t wanted = 0;
    if (OSSL_PARAM_get_size_t(size, &wanted) != 1 || wanted != RecordCipher::kNonceSize) return 0;
  }
  if (const OSSL_PARAM* tag = OSSL_PARAM_locate_const(params, OSSL_CIPHER_PARAM_AEAD_TAG)) {
    if (tag->data_type != OSSL_PARAM_OCTET_STRING || tag->data_size != RecordCipher::kTagSize ||
        cipher.encrypting)
      return 0;
    if (tag->data == nullptr) return 1;  // only says how long it will be
    std::memcpy(cipher.tag.data(), tag->data, RecordCipher::kTagSize);
    cipher.has_tag = true;
  }
  return 1;
}

template <bool Encrypting>
int begin_cipher(void* context, const unsigned char* key, std::size_t key_size, const unsigned char* nonce,
                 std::size_t nonce_size, const OSSL_PARAM params[]) {
  Cipher& cipher = of(context);
  cipher.encrypting = Encrypting;
  cipher.begun = cipher.has_tag = false;
  cipher.aad_size = 0;
  if (key != nullptr) {
    if (key_size != cipher.key_size) return 0;
    cipher.keyed = std::make_unique<RecordCipher>(ByteView(key, key_size));
    cipher.has_nonce = false;
  }
  if (nonce != nullptr) {
    if (nonce_size != RecordCipher::kNonceSize) return 0;
    std::memcpy(cipher.nonce.data(), nonce, nonce_size);
    cipher.has_nonce = true;
  }
  return set_cipher_params(context, params);
}

int update_cipher(void* context, unsigned char* out, std::size_t* out_size, std::size_t out_room,
                  const unsigned char* in, std::size_t in_size) {
  Cipher& cipher = of(context);
  *out_size = 0;
  if (in_size == 0) return 1;
  if (out == nullptr) {
    if (cipher.begun || in_size > kAadMax - cipher.aad_size) return 0;
    std::memcpy(cipher.aad.data() + cipher.aad_size, in, in_size);
    cipher.aad_size += in_size;
    return 1;
  }
  if (out_room < in_size || !cipher.begin()) return 0;
  if (cipher.encrypting) {
    cipher.keyed->encrypt({in, in_size}, {out, in_size});
  } else {
    cipher.keyed->decrypt({in, in_size}, {out, in_size});
  }
  *out_size = in_size;
  return 1;
}

// A nonce serves one record: another init must bring the next.
int finish_cipher(void* context, unsigned char*, std::size_t* out_size, std::size_t) {
  Cipher& cipher = of(context);
  *out_size = 0;
  if (!cipher.begin()) return 0;
  const RecordCipher::Tag tag = cipher.keyed->finish(cipher.encrypting);
  cipher.begun = cipher.has_nonce = false;
  if (!cipher.encrypting) return cipher.has_tag && RecordCipher::matches(tag, cipher.tag) ? 1 : 0;
  cipher.tag = tag;
  cipher.has_tag = true;
  return 1;
}

bool give_size(OSSL_PARAM params[], const char* name, std::size_t value) {
  OSSL_PARAM* wanted = OSSL_PARAM_locate(params, name);
  return wanted == nullptr || OSSL_PARAM_set_size_t(wanted, value) == 1;
}
bool give_number(OSSL_PARAM params[], const char* name, unsigned value) {
  OSSL_PARAM* wanted = OSSL_PARAM_locate(params, name);
  return wanted == nullptr || OSSL_PARAM_set_uint(wanted, value) == 1;
}

template <std::size_t KeySize>
int give_constants(OSSL_PARAM params[]) {
  return give_number(params, OSSL_CIPHER_PARAM_MODE, EVP_CIPH_GCM_MODE) &&
         give_size(params, OSSL_CIPHER_PARAM_KEYLEN, KeySize) &&
         give_size(params, OSSL_CIPHER_PARAM_BLOCK_SIZE, 1) &&
         give_size(params, OSSL_CIPHER_PARAM_IVLEN, RecordCipher::kNonceSize) &&
         give_number(params, OSSL_CIPHER_PARAM_AEAD, 1) &&
         give_number(params, OSSL_CIPHER_PARAM_CUSTOM_IV, 1);
}

int give_cipher_params(void* context, OSSL_PARAM params[]) {
  const Cipher& cipher = of(context);
  if (!give_size(params, OSSL_CIPHER_PARAM_KEYLEN, cipher.key_size) ||
      !give_size(params, OSSL_CIPHER_PARAM_IVLEN, RecordCipher::kNonceSize) ||
      !give_size(params, OSSL_CIPHER_PARAM_AEAD_TAGLEN, RecordCipher::kTagSize))
    return 0;
  OSSL_PARAM* tag = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_AEAD_TAG);
  if (tag == nullptr) return 1;
  if (!cipher.encrypting || !cipher.has_tag || tag->data_size != RecordCipher::kTagSize) return 0;
  return OSSL_PARAM_set_octet_string(tag, cipher.tag.data(), cipher.tag.size());
}

const OSSL_PARAM* known_constants(void*) {
  static const std::array<OSSL_PARAM, 7> names = {
      {OSSL_PARAM_DEFN(OSSL_CIPHER_PARAM_MODE, OSSL_PARAM_UNSIGNED_INTEGER, nullptr, sizeof(unsigned)),
       OSSL_PARAM_DEFN(OSSL_CIPHER_PARAM_KEYLEN, OSSL_PARAM_UNSIGNED_INTEGER, nullptr, sizeof(std::size_t)),
       OSSL_PARAM_DEFN(OSSL_CIPHER_PARAM_BLOCK_SIZE, OSSL_PARAM_UNSIGNED_INTEGER, nullptr,
                       sizeof(std::size_t)),
       OSSL_PARAM_DEFN(OSSL_CIPHER_PARAM_IVLEN, OSSL_PARAM_UNSIGNED_INTEGER, nullptr, sizeof(std::size_t)),
       OSSL_PARAM_DEFN(OSSL_CIPHER_PARAM_AEAD, OSSL_PARAM_UNSIGNED_INTEGER, nullptr, sizeof(unsigned)),
       OSSL_PARAM_DEFN(OSSL_CIPHER_PARAM_CUSTOM_IV, OSSL_PARAM_UNSIGNED_INTEGER, nullptr, sizeof(unsigned)),
       OSSL_PARAM_END}};
  return names.data();
}
const OSSL_PARAM* known_params(void*, void*) {
  static const std::array<OSSL_PARAM, 5> names = {
      {OSSL_PARAM_DEFN(OSSL_CIPHER_PARAM_KEYLEN, OSSL_PARAM_UNSIGNED_INTEGER, nullptr, sizeof(std::size_t)),
       OSSL_PARAM_DEFN(OSSL_CIPHER_PARAM_IVLEN, OSSL_PARAM_UNSIGNED_INTEGER, nullptr, sizeof(std::size_t)),
       OSSL_PARAM_DEFN(OSSL_CIPHER_PARAM_AEAD_TAGLEN, OSSL_PARAM_UNSIGNED_INTEGER, nullptr,
                       sizeof(std::size_t)),
       OSSL_PARAM_DEFN(OSSL_CIPHER_PARAM_AEAD_TAG, OSSL_PARAM_OCTET_STRING, nullptr, 0), OSSL_PARAM_END}};
  return names.data();
}
const OSSL_PARAM* settable_params(void*, void*) {
  static const std::array<OSSL_PARAM, 3> names = {
      {OSSL_PARAM_DEFN(OSSL_CIPHER_PARAM_AEAD_IVLEN, OSSL_PARAM_UNSIGNED_INTEGER, nullptr,
                       sizeof(std::size_t)),
       OSSL_PARAM_DEFN(OSSL_CIPHER_PARAM_AEAD_TAG, OSSL_PARAM_OCTET_STRING, nullptr, 0), OSSL_PARAM_END}};
  return names.data();
}

using Function = void (*)();
template <class F>
Function function(F* given) {
  return reinterpret_cast<Function>(given);
}

template <std::size_t KeySize>
const OSSL_DISPATCH* cipher_functions() {
  static const std::array<OSSL_DISPATCH, 13> table = {{
      {OSSL_FUNC_CIPHER_NEWCTX, function(make_cipher<KeySize>)},
      {OSSL_FUNC_CIPHER_FREECTX, function(free_cipher)},
      {OSSL_FUNC_CIPHER_ENCRYPT_INIT, function(begin_cipher<true>)},
      {OSSL_FUNC_CIPHER_DECRYPT_INIT, function(begin_cipher<false>)},
      {OSSL_FUNC_CIPHER_UPDATE, function(update_cipher)},
      {OSSL_FUNC_CIPHER_FINAL, function(finish_cipher)},
      {OSSL_FUNC_CIPHER_GET_PARAMS, function(give_constants<KeySize>)},
      {OSSL_FUNC_CIPHER_GET_CTX_PARAMS, function(give_cipher_params)},
      {OSSL_FUNC_CIPHER_SET_CTX_PARAMS, function(set_cipher_params)},
      {OSSL_FUNC_CIPHER_GETTABLE_PARAMS, function(known_constants)},
      {OSSL_FUNC_CIPHER_GETTABLE_CTX_PARAMS, function(known_params)},
      {OSSL_FUNC_CIPHER_SETTABLE_CTX_PARAMS, function(settable_params)},
      {0, nullptr},
  }};
  return table.data();
}

const OSSL_ALGORITHM* algorithms(void*, int operation, int* no_cache) {
  static const std::array<OSSL_ALGORITHM, 3> ciphers = {{
      {"AES-128-GCM:id-aes128-GCM:2.16.840.1.101.3.4.1.6", "provider=cumulus", cipher_functions<16>(),
       nullptr},
      {"AES-256-GCM:id-aes256-GCM:2.16.840.1.101.3.4.1.46", "provider=cumulus", cipher_functions<32>(),
       nullptr},
      {nullptr, nullptr, nullptr, nullptr},
  }};
  *no_cache = 0;
  return operation == OSSL_OP_CIPHER ? ciphers.data() : nullptr;
}

int begin_provider(const OSSL_CORE_HANDLE*, const OSSL_DISPATCH*, const OSSL_DISPATCH** functions,
                   void** context) {
  static const std::array<OSSL_DISPATCH, 2> table = {
      {{OSSL_FUNC_PROVIDER_QUERY_OPERATION, function(algorithms)}, {0, nullptr}}};
  *functions = table.data();
  static int nothing = 0;
  *context = &nothing;  // OpenSSL wants one; nobody looks at it
  return 1;
}

}  // namespace

OSSL_LIB_CTX* tls_library_with_our_ciphers() {
  static OSSL_LIB_CTX* const library = [] {
    OSSL_LIB_CTX* made = OSSL_LIB_CTX_new();
    CHECK(made != nullptr && OSSL_PROVIDER_add_builtin(made, "cumulus", begin_provider) == 1);
    CHECK(OSSL_PROVIDER_load(made, "default") != nullptr && OSSL_PROVIDER_load(made, "cumulus") != nullptr);
    return made;
  }();
  return library;
}

OSSL_LIB_CTX* tls_library() { return RecordCipher::is_fast() ? tls_library_with_our_ciphers() : nullptr; }

}  // namespace cumulus::wire
