// Our record ciphers against OpenSSL's: the same bytes, both ways, and TLS between one side with ours and one
// without.
#include "netclient/wire/tls_ciphers.h"

#include <gtest/gtest.h>
#include <memory>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <openssl/ssl.h>
#include <optional>
#include <random>

#include "objectstore/crypto/tls_identity.h"

namespace cumulus::wire {
namespace {

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* given) const {
    Free(given);
  }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, Freed<EVP_CIPHER_CTX_free>>;
using Fetched = std::unique_ptr<EVP_CIPHER, Freed<EVP_CIPHER_free>>;

constexpr int kTagSize = 16;
using Nonce = std::array<std::uint8_t, 12>;

class Side {
 public:
  Side(OSSL_LIB_CTX* library, const char* name, const char* properties, ByteView key, bool encrypting)
      : cipher_(EVP_CIPHER_fetch(library, name, properties)),
        context_(EVP_CIPHER_CTX_new()),
        encrypting_(encrypting) {
    EXPECT_TRUE(cipher_);
    EXPECT_EQ(EVP_CipherInit_ex(context_.get(), cipher_.get(), nullptr, nullptr, nullptr, encrypting), 1);
    EXPECT_EQ(EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_AEAD_SET_IVLEN, 12, nullptr), 1);
    EXPECT_EQ(EVP_CipherInit_ex(context_.get(), nullptr, nullptr, key.data(), nullptr, encrypting), 1);
  }

  std::string provider() const { return OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher_.get())); }

  bool begin(const Nonce& nonce, ByteView aad) {
    int ignored = 0;
    return EVP_CipherInit_ex(context_.get(), nullptr, nullptr, nullptr, nonce.data(), encrypting_) == 1 &&
           EVP_CipherUpdate(context_.get(), nullptr, &ignored, aad.data(), static_cast<int>(aad.size())) == 1;
  }
  bool end() {
    std::uint8_t none[16];
    int size = 0;
    return EVP_CipherFinal_ex(context_.get(), none, &size) == 1;
  }

  // Sealed bytes and tag; in two parts, cut at `cut`, over themselves.
  std::optional<Bytes> seal(const Nonce& nonce, ByteView aad, ByteView plain, std::size_t cut) {
    Bytes out(plain.begin(), plain.end());
    if (!begin(nonce, aad) || !parts(out, cut) || !end()) return std::nullopt;
    out.resize(plain.size() + kTagSize);
    if (EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_AEAD_GET_TAG, kTagSize, out.data() + plain.size()) != 1)
      return std::nullopt;
    return out;
  }
  std::optional<Bytes> open(const Nonce& nonce, ByteView aad, ByteView sealed, std::size_t cut) {
    Bytes out(sealed.begin(), sealed.end() - kTagSize);
    Bytes tag(sealed.end() - kTagSize, sealed.end());
    if (!begin(nonce, aad) ||
        EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_AEAD_SET_TAG, kTagSize, tag.data()) != 1 ||
        !parts(out, std::min(cut, out.size())) || !end())
      return std::nullopt;
    return out;
  }

 private:
  bool parts(Bytes& bytes, std::size_t cut) {
    for (const auto& [from, to] : {std::pair(std::size_t{0}, cut), std::pair(cut, bytes.size())}) {
      int size = 0;
      const int length = static_cast<int>(to - from);
      if (EVP_CipherUpdate(context_.get(), bytes.data() + from, &size, bytes.data() + from, length) != 1 ||
          size != length)
        return false;
    }
    return true;
  }

  Fetched cipher_;
  Context context_;
  int encrypting_;
};

Bytes random_bytes(std::mt19937& random, std::size_t size) {
  Bytes bytes(size);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

TEST(TlsCiphers, GiveTheSameBytesAsOpenssl) {
  std::mt19937 random(7);
  OSSL_LIB_CTX* library = tls_library_with_our_ciphers();
  for (const auto& [name, key_size] : {std::pair("AES-128-GCM", 16), std::pair("id-aes256-GCM", 32)}) {
    const Bytes key = random_bytes(random, static_cast<std::size_t>(key_size));
    Side ours(library, name, kTlsProperties, key, true);
    Side our_reader(library, name, kTlsProperties, key, false);
    Side theirs(nullptr, name, nullptr, key, true);
    Side their_reader(nullptr, name, nullptr, key, false);
    ASSERT_EQ(ours.provider(), "cumulus");
    ASSERT_EQ(theirs.provider(), "default");
    Nonce nonce{};
    for (const std::size_t size : {0u, 1u, 15u, 16u, 17u, 255u, 4096u, 16384u, 16401u}) {
      for (const std::size_t aad_size : {1u, 5u, 16u, 64u}) {
        ++nonce[3];
        const Bytes plain = random_bytes(random, size);
        const Bytes aad = random_bytes(random, aad_size);
        const std::size_t cut = size == 0 ? 0 : random() % (size + 1);
        const auto sealed = ours.seal(nonce, aad, plain, cut);
        ASSERT_TRUE(sealed);
        ASSERT_EQ(sealed, theirs.seal(nonce, aad, plain, size)) << size << " bytes cut at " << cut;
        ASSERT_EQ(their_reader.open(nonce, aad, *sealed, size), plain);
        ASSERT_EQ(our_reader.open(nonce, aad, *sealed, cut), plain);
        Bytes changed = *sealed;
        changed[random() % changed.size()] ^= 1;
        ASSERT_FALSE(our_reader.open(nonce, aad, changed, cut)) << "a bit was turned over";
        Bytes other = aad;
        other.back() ^= 0x80;
        ASSERT_FALSE(our_reader.open(nonce, other, *sealed, cut)) << "other associated data";
      }
    }
  }
}

TEST(TlsCiphers, WantANonceForEachRecordAndTheTagOfWhatTheyRead) {
  const Bytes key(16, 1);
  const Bytes aad(5, 2);
  OSSL_LIB_CTX* library = tls_library_with_our_ciphers();
  Side writer(library, "AES-128-GCM", kTlsProperties, key, true);
  EXPECT_FALSE(writer.end()) << "no nonce yet";
  ASSERT_TRUE(writer.begin({}, aad));
  EXPECT_TRUE(writer.end());
  EXPECT_FALSE(writer.end()) << "the same nonce again";
  EXPECT_FALSE(writer.begin({}, Bytes(65, 0))) << "more associated data than any record has";
  Side reader(library, "AES-128-GCM", kTlsProperties, key, false);
  ASSERT_TRUE(reader.begin({}, aad));
  EXPECT_FALSE(reader.end()) << "no tag to compare with";
}

// One end of a TLS connection in memory.
class End {
 public:
  End(OSSL_LIB_CTX* library, const SSL_METHOD* method, BIO* wire)
      : context_(SSL_CTX_new_ex(library, library != nullptr ? kTlsProperties : nullptr, method)) {
    const TlsIdentity identity = TlsIdentity::from_seed({});
    const std::uint8_t* at = identity.certificate_der().data();
    X509* certificate = X509_new_ex(library, nullptr);
    d2i_X509(&certificate, &at, static_cast<long>(identity.certificate_der().size()));
    at = identity.private_key_der().data();
    EVP_PKEY* key = d2i_AutoPrivateKey_ex(nullptr, &at, static_cast<long>(identity.private_key_der().size()),
                                          library, nullptr);
    EXPECT_EQ(SSL_CTX_use_certificate(context_.get(), certificate), 1);
    EXPECT_EQ(SSL_CTX_use_PrivateKey(context_.get(), key), 1);
    EXPECT_EQ(SSL_CTX_set_ciphersuites(context_.get(), "TLS_AES_128_GCM_SHA256"), 1);
    X509_free(certificate);
    EVP_PKEY_free(key);
    ssl_.reset(SSL_new(context_.get()));
    SSL_set_bio(ssl_.get(), wire, wire);
  }
  SSL* ssl() { return ssl_.get(); }

 private:
  std::unique_ptr<SSL_CTX, Freed<SSL_CTX_free>> context_;
  std::unique_ptr<SSL, Freed<SSL_free>> ssl_;
};

void talk(OSSL_LIB_CTX* of_client, OSSL_LIB_CTX* of_server) {
  BIO* client_wire = nullptr;
  BIO* server_wire = nullptr;
  ASSERT_EQ(BIO_new_bio_pair(&client_wire, 1 << 20, &server_wire, 1 << 20), 1);
  End client(of_client, TLS_client_method(), client_wire);
  End server(of_server, TLS_server_method(), server_wire);
  SSL_set_connect_state(client.ssl());
  SSL_set_accept_state(server.ssl());
  for (int i = 0; i < 4; ++i) {
    SSL_do_handshake(client.ssl());
    SSL_do_handshake(server.ssl());
  }
  ASSERT_TRUE(SSL_is_init_finished(client.ssl()) && SSL_is_init_finished(server.ssl()));
  std::mt19937 random(9);
  for (const std::size_t size : {1u, 100u, 16384u, 300000u}) {
    const Bytes sent = random_bytes(random, size);
    for (SSL* from : {client.ssl(), server.ssl()}) {
      SSL* to = from == client.ssl() ? server.ssl() : client.ssl();
      std::size_t done = 0;
      ASSERT_EQ(SSL_write_ex(from, sent.data(), sent.size(), &done), 1);
      Bytes got(size);
      for (std::size_t at = 0; at < size; at += done)
        ASSERT_EQ(SSL_read_ex(to, got.data() + at, size - at, &done), 1) << "at " << at << " of " << size;
      ASSERT_EQ(got, sent);
    }
    ASSERT_EQ(SSL_key_update(client.ssl(), SSL_KEY_UPDATE_REQUESTED), 1);
  }
}

TEST(TlsCiphers, TalkToWhoHasOpensslsOwn) {
  OSSL_LIB_CTX* library = tls_library_with_our_ciphers();
  talk(library, nullptr);
  talk(nullptr, library);
  talk(library, library);
}

}  // namespace
}  // namespace cumulus::wire
