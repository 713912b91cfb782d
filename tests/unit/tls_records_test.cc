// TLS 1.3's records: RFC 8448's trace, OpenSSL at the other end in both suites, and a peer that sends what it
// should not.
#include "netclient/wire/tls_records.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <memory>
#include <openssl/ssl.h>
#include <random>

#include "objectstore/crypto/tls_identity.h"

namespace cumulus::wire {
namespace {

using Step = RecordReader::Step;

Bytes random_bytes(std::mt19937& random, std::size_t size) {
  Bytes bytes(size);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

TrafficSecret secret_of(std::string_view hex) {
  TrafficSecret secret(hex.size() / 2);
  EXPECT_TRUE(from_hex(hex, secret.view()));
  return secret;
}
RecordKeys keys(TlsSuite suite = TlsSuite::aes_128_gcm_sha256, std::uint8_t fill = 5) {
  TrafficSecret secret(TrafficSecret::size_for(suite));
  std::fill_n(secret.view().data(), secret.view().size(), fill);
  return {suite, std::move(secret)};
}

Bytes record(RecordKeys& keys, RecordType type, ByteView content, ByteView more = {}) {
  Bytes out(content.size() + more.size() + kRecordOverhead);
  keys.seal(type, content, more, out);
  return out;
}
// Inner plaintext as given, its last byte included: a type of its own, padding.
Bytes record_of_inner(RecordKeys& keys, ByteView inner) {
  return record(keys, static_cast<RecordType>(inner.back()), inner.first(inner.size() - 1));
}

// In pieces of at most `piece` bytes; what does not fit waits for the reader.
void feed(RecordReader& reader, ByteView& bytes, std::size_t piece = SIZE_MAX) {
  const MutableByteView room = reader.room();
  ASSERT_FALSE(room.empty());
  const std::size_t taken = std::min({bytes.size(), room.size(), piece});
  copy_bytes(bytes.first(taken), room.data());
  reader.filled(taken);
  bytes = bytes.subspan(taken);
}
// All that the reader makes of `bytes`, read `want` bytes at a time; `last` is the step that ended it.
Bytes read_all(RecordReader& reader, ByteView bytes, std::size_t want, Step& last,
               std::size_t piece = SIZE_MAX) {
  Bytes all;
  Bytes into(want);
  for (;;) {
    std::size_t got = 0;
    last = reader.next(into, got);
    if (last == Step::bytes) {
      EXPECT_GT(got, 0u);
      all.insert(all.end(), into.begin(), into.begin() + static_cast<std::ptrdiff_t>(got));
    } else if (last != Step::more || bytes.empty()) {
      return all;
    } else {
      feed(reader, bytes, piece);
    }
  }
}

TEST(TlsRecords, AreThoseOfTheTraceInRfc8448) {
  RecordKeys client(TlsSuite::aes_128_gcm_sha256,
                    secret_of("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5"));
  Bytes payload(50);
  for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<std::uint8_t>(i);
  EXPECT_EQ(
      to_hex(record(client, RecordType::application_data, payload)),
      "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62"
      "974e1f5a6292a2977014bd1e3deae63aeebb21694915e4");
  const std::array<std::uint8_t, 2> close = {1, 0};
  EXPECT_EQ(to_hex(record(client, RecordType::alert, close)),
            "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3");
}

TEST(TlsRecords, CarryAnySizeInAnyPieces) {
  std::mt19937 random(3);
  for (const auto suite : {TlsSuite::aes_128_gcm_sha256, TlsSuite::aes_256_gcm_sha384}) {
    for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{5000}, SIZE_MAX}) {
      for (const std::size_t want :
           {std::size_t{1}, std::size_t{48}, std::size_t{16384}, std::size_t{100000}}) {
        if (piece == 1 && want == 1) continue;
        RecordKeys out = keys(suite);
        RecordReader reader(keys(suite));
        Bytes sent;
        Bytes wire;
        for (const std::size_t size : {1u, 48u, 16384u, 16384u, 3u, 16384u, 16383u, 5000u}) {
          const Bytes content = random_bytes(random, size);
          const std::size_t cut = random() % (size + 1);
          const Bytes sealed = record(out, RecordType::application_data, ByteView(content).first(cut),
                                      ByteView(content).subspan(cut));
          sent.insert(sent.end(), content.begin(), content.end());
          wire.insert(wire.end(), sealed.begin(), sealed.end());
        }
        Step last{};
        ASSERT_EQ(read_all(reader, wire, want, last, piece), sent) << "pieces " << piece << ", read " << want;
        ASSERT_EQ(last, Step::more);
      }
    }
  }
}

TEST(TlsRecords, ATurnedBitACutARepetitionAndAnotherOrderAreNotAuthentic) {
  std::mt19937 random(4);
  RecordKeys out = keys();
  const Bytes content = random_bytes(random, 300);
  const Bytes first = record(out, RecordType::application_data, content);
  const Bytes second = record(out, RecordType::application_data, content);
  const auto refused = [&](ByteView wire, std::size_t good, Alert alert) {
    for (const std::size_t want : {std::size_t{10}, std::size_t{4096}}) {
      RecordReader reader(keys());
      Step last{};
      EXPECT_EQ(read_all(reader, wire, want, last).size(), good);
      EXPECT_EQ(last, Step::failed);
      EXPECT_EQ(reader.alert(), alert);
      std::size_t got = 0;
      Bytes into(10);
      EXPECT_EQ(reader.next(into, got), Step::failed) << "and stays so";
    }
  };
  for (std::size_t at = kRecordHeader; at < first.size(); ++at) {
    Bytes changed = first;
    changed[at] ^= static_cast<std::uint8_t>(1u << random() % 8);
    refused(changed, 0, Alert::bad_record_mac);
  }
  const auto joined = [](Bytes a, const Bytes& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  };
  refused(joined(first, first), content.size(), Alert::bad_record_mac);
  refused(second, 0, Alert::bad_record_mac);
  Bytes shorter = first;
  shorter[4] = static_cast<std::uint8_t>(shorter[4] - 1);
  refused(shorter, 0, Alert::bad_record_mac);
  for (const std::size_t cut : {std::size_t{1}, std::size_t{4}, std::size_t{5}, first.size() - 1}) {
    RecordReader reader(keys());
    Step last{};
    EXPECT_TRUE(read_all(reader, ByteView(first).first(cut), 4096, last).empty());
    EXPECT_EQ(last, Step::more);
  }
}

TEST(TlsRecords, WhatIsNoRecordIsRefused) {
  const auto refused = [](const Bytes& wire, Alert alert) {
    RecordReader reader(keys());
    Step last{};
    EXPECT_TRUE(read_all(reader, wire, 4096, last).empty());
    EXPECT_EQ(last, Step::failed) << to_hex(wire);
    EXPECT_EQ(reader.alert(), alert) << reader.error();
  };
  refused({'G', 'E', 'T', ' ', '/'}, Alert::unexpected_message);
  refused({21, 3, 3, 0, 2, 2, 40}, Alert::unexpected_message);  // an alert that anybody could have sent
  refused({20, 3, 3, 0, 1, 1}, Alert::unexpected_message);      // ChangeCipherSpec belongs to the handshake
  refused({23, 3, 4, 0, 20}, Alert::unexpected_message);
  refused({23, 3, 3, 0x41, 1}, Alert::record_overflow);
  refused({23, 3, 3, 0, 16}, Alert::bad_record_mac);
  RecordKeys out = keys();
  refused(record_of_inner(out, Bytes{1, 2, 99}), Alert::unexpected_message);
  out = keys();
  refused(record_of_inner(out, Bytes(20, 0)), Alert::unexpected_message);  // only padding
  out = keys();
  refused(record(out, RecordType::alert, Bytes{2}), Alert::decode_error);
  out = keys();
  refused(record(out, RecordType::handshake, Bytes{24, 0, 0, 1, 2}), Alert::unexpected_message);
  out = keys();
  refused(record(out, RecordType::handshake, Bytes{4, 0, 0, 1, 0}), Alert::unexpected_message);
  out = keys();
  refused(record(out, RecordType::handshake, Bytes{24, 0, 0, 1, 0, 24, 0, 0, 1, 0}),
          Alert::unexpected_message);
}

TEST(TlsRecords, PaddingIsTakenOff) {
  RecordKeys out = keys();
  Bytes inner = {1, 2, 0, 3, 23};
  inner.resize(200);
  Bytes wire = record_of_inner(out, inner);
  const Bytes more = record(out, RecordType::application_data, Bytes{4});
  wire.insert(wire.end(), more.begin(), more.end());
  RecordReader reader(keys());
  Step last{};
  EXPECT_EQ(read_all(reader, wire, 4096, last), (Bytes{1, 2, 0, 3, 4}));
  EXPECT_EQ(last, Step::more);
}

// Such records cost us more than the peer: a byte now and then does not buy them.
TEST(TlsRecords, APeerThatSendsNothingForEverIsRefused) {
  for (const bool changes_keys : {false, true}) {
    RecordKeys out = keys();
    RecordReader reader(keys());
    Bytes wire;
    const auto append = [&](const Bytes& sealed) { wire.insert(wire.end(), sealed.begin(), sealed.end()); };
    const auto nothing = [&] {
      if (!changes_keys) return append(record(out, RecordType::application_data, {}));
      append(record(out, RecordType::handshake, Bytes{24, 0, 0, 1, 0}));
      out.update();
    };
    const Bytes much(kRecordPlainMax, 6);
    for (int i = 0; i < 32; ++i) nothing();
    append(record(out, RecordType::application_data, much));
    for (int i = 0; i < 32; ++i) nothing();
    append(record(out, RecordType::application_data, Bytes{7}));
    nothing();
    append(record(out, RecordType::application_data, Bytes{8}));
    Step last{};
    Bytes expected = much;
    expected.push_back(7);
    EXPECT_EQ(read_all(reader, wire, 4096, last), expected) << "32 are borne, 33 are not";
    EXPECT_EQ(last, Step::failed);
  }
}

TEST(TlsRecords, AnAlertEndsTheStream) {
  RecordKeys out = keys();
  RecordReader reader(keys());
  Step last{};
  EXPECT_TRUE(read_all(reader, record(out, RecordType::alert, Bytes{2, 49}), 4096, last).empty());
  EXPECT_EQ(last, Step::failed);
  EXPECT_NE(reader.error().find("access denied"), std::string::npos) << reader.error();
  EXPECT_FALSE(reader.alert()) << "an alert is not answered";
  out = keys();
  RecordReader other(keys());
  EXPECT_TRUE(read_all(other, record(out, RecordType::alert, Bytes{1, 0}), 4096, last).empty());
  EXPECT_EQ(last, Step::closed);
}

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* given) const {
    Free(given);
  }
};

TEST(RecordCipher, GivesOpensslsBytesInAnyCuts) {
  std::mt19937 random(7);
  for (const std::size_t key_size : {16u, 32u}) {
    const Bytes key = random_bytes(random, key_size);
    RecordCipher cipher(key);
    for (int i = 0; i < 300; ++i) {
      const std::size_t size = random() % 5 == 0 ? 16384 : random() % 600;
      const Bytes plain = random_bytes(random, size);
      const Bytes nonce = random_bytes(random, RecordCipher::kNonceSize);
      const Bytes aad = random_bytes(random, random() % 20);
      Bytes theirs(size);
      RecordCipher::Tag their_tag{};
      const std::unique_ptr<EVP_CIPHER_CTX, Freed<EVP_CIPHER_CTX_free>> context(EVP_CIPHER_CTX_new());
      const EVP_CIPHER* algorithm = key_size == 16 ? EVP_aes_128_gcm() : EVP_aes_256_gcm();
      int got = 0;
      ASSERT_EQ(EVP_EncryptInit_ex(context.get(), algorithm, nullptr, key.data(), nonce.data()), 1);
      ASSERT_EQ(EVP_EncryptUpdate(context.get(), nullptr, &got, aad.data(), static_cast<int>(aad.size())), 1);
      ASSERT_EQ(EVP_EncryptUpdate(context.get(), theirs.data(), &got, plain.data(), static_cast<int>(size)),
                1);
      ASSERT_EQ(EVP_EncryptFinal_ex(context.get(), theirs.data() + size, &got), 1);
      ASSERT_EQ(
          EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, RecordCipher::kTagSize, their_tag.data()),
          1);
      Bytes ours(size);
      Bytes opened(size);
      for (const bool encrypting : {true, false}) {
        cipher.begin(nonce, aad);
        for (std::size_t at = 0; at < size;) {
          const std::size_t part = std::min<std::size_t>(size - at, 1 + random() % (size + 20));
          if (encrypting)
            cipher.encrypt(ByteView(plain).subspan(at, part), MutableByteView(ours).subspan(at, part));
          else
            cipher.decrypt(ByteView(theirs).subspan(at, part), MutableByteView(opened).subspan(at, part));
          at += part;
        }
        ASSERT_EQ(cipher.finish(encrypting), their_tag) << size << " bytes, encrypting: " << encrypting;
      }
      ASSERT_EQ(ours, theirs) << size;
      ASSERT_EQ(opened, plain) << size;
    }
  }
}

// One end of a TLS connection in memory, by OpenSSL; its secrets are seen by `lines`.
class OpensslEnd {
 public:
  OpensslEnd(const SSL_METHOD* method, const char* suite, BIO* wire) : context_(SSL_CTX_new(method)) {
    const TlsIdentity identity = TlsIdentity::from_seed({});
    const std::uint8_t* at = identity.certificate_der().data();
    X509* certificate = d2i_X509(nullptr, &at, static_cast<long>(identity.certificate_der().size()));
    at = identity.private_key_der().data();
    EVP_PKEY* key = d2i_AutoPrivateKey(nullptr, &at, static_cast<long>(identity.private_key_der().size()));
    EXPECT_EQ(SSL_CTX_use_certificate(context_.get(), certificate), 1);
    EXPECT_EQ(SSL_CTX_use_PrivateKey(context_.get(), key), 1);
    EXPECT_EQ(SSL_CTX_set_ciphersuites(context_.get(), suite), 1);
    EXPECT_EQ(SSL_CTX_set_num_tickets(context_.get(), 0), 1);
    SSL_CTX_set_keylog_callback(context_.get(), [](const SSL* ssl, const char* line) {
      static_cast<OpensslEnd*>(SSL_get_app_data(ssl))->lines.emplace_back(line);
    });
    X509_free(certificate);
    EVP_PKEY_free(key);
    ssl_.reset(SSL_new(context_.get()));
    SSL_set_app_data(ssl_.get(), this);
    SSL_set_bio(ssl_.get(), wire, wire);
  }
  SSL* ssl() { return ssl_.get(); }
  TrafficSecret secret(std::string_view label) const {
    for (const std::string& line : lines)
      if (line.starts_with(label)) return secret_of(std::string_view(line).substr(line.rfind(' ') + 1));
    ADD_FAILURE() << "no " << label;
    return TrafficSecret(32);
  }
  std::vector<std::string> lines;

 private:
  std::unique_ptr<SSL_CTX, Freed<SSL_CTX_free>> context_;
  std::unique_ptr<SSL, Freed<SSL_free>> ssl_;
};

// OpenSSL shakes hands at both ends; then the client's is ours.
class TalkToOpenssl : public testing::TestWithParam<std::pair<const char*, TlsSuite>> {
 protected:
  void SetUp() override {
    ASSERT_EQ(BIO_new_bio_pair(&wire_, 1 << 20, &server_wire_, 1 << 20), 1);
    client_ = std::make_unique<OpensslEnd>(TLS_client_method(), GetParam().first, wire_);
    server_ = std::make_unique<OpensslEnd>(TLS_server_method(), GetParam().first, server_wire_);
    SSL_set_connect_state(client_->ssl());
    SSL_set_accept_state(server_->ssl());
    for (int i = 0; i < 4; ++i) {
      SSL_do_handshake(client_->ssl());
      SSL_do_handshake(server_->ssl());
    }
    ASSERT_TRUE(SSL_is_init_finished(client_->ssl()) && SSL_is_init_finished(server_->ssl()));
    const TlsSuite suite = GetParam().second;
    writer_.emplace(RecordKeys(suite, client_->secret("CLIENT_TRAFFIC_SECRET_0 ")), kRecordsForUs);
    reader_.emplace(RecordKeys(suite, client_->secret("SERVER_TRAFFIC_SECRET_0 ")));
  }

  void send(ByteView data) {
    writer_->expect(data.size());
    while (!data.empty()) {
      const ByteView part = data.first(std::min(data.size(), kRecordPlainMax));
      if (writer_->seal(RecordType::application_data, part))
        data = data.subspan(part.size());
      else
        flush();
    }
    flush();
  }
  void flush() {
    const ByteView pending = writer_->pending();
    ASSERT_EQ(BIO_write(wire_, pending.data(), static_cast<int>(pending.size())),
              static_cast<int>(pending.size()));
    writer_->sent(pending.size());
  }
  Bytes receive(std::size_t size, Step& step) {
    Bytes all(size);
    for (std::size_t at = 0; at < size;) {
      std::size_t got = 0;
      step = reader_->next(MutableByteView(all).subspan(at), got);
      at += got;
      if (step == Step::bytes) continue;
      const MutableByteView room = reader_->room();
      const int came = step == Step::more ? BIO_read(wire_, room.data(), static_cast<int>(room.size())) : 0;
      if (came <= 0) return {};
      reader_->filled(static_cast<std::size_t>(came));
    }
    if (reader_->take_update_request()) writer_->owe_update();
    return all;
  }

  static constexpr std::uint64_t kRecordsForUs = 7;  // under a key
  BIO* wire_ = nullptr;
  BIO* server_wire_ = nullptr;
  std::unique_ptr<OpensslEnd> client_;
  std::unique_ptr<OpensslEnd> server_;
  std::optional<RecordWriter> writer_;
  std::optional<RecordReader> reader_;
};

TEST_P(TalkToOpenssl, BothWaysThroughChangesOfKeysToTheEnd) {
  std::mt19937 random(9);
  Step step{};
  for (int round = 0; round < 3; ++round) {
    for (const std::size_t size : {1u, 100u, 16384u, 300000u}) {
      const Bytes sent = random_bytes(random, size);
      send(sent);
      Bytes got(size);
      std::size_t done = 0;
      for (std::size_t at = 0; at < size; at += done)
        ASSERT_EQ(SSL_read_ex(server_->ssl(), got.data() + at, size - at, &done), 1)
            << "at " << at << " of " << size << ", round " << round;
      ASSERT_EQ(got, sent);
      ASSERT_EQ(SSL_write_ex(server_->ssl(), sent.data(), size, &done), 1);
      ASSERT_EQ(receive(size, step), sent) << reader_->error();
    }
    // The next bytes of each side come under new keys: the server's by its own wish, ours because it asks.
    ASSERT_EQ(SSL_key_update(server_->ssl(), SSL_KEY_UPDATE_REQUESTED), 1);
  }
  ASSERT_TRUE(writer_->seal(Alert::close_notify));
  flush();
  std::uint8_t byte = 0;
  std::size_t done = 0;
  EXPECT_EQ(SSL_read_ex(server_->ssl(), &byte, 1, &done), 0);
  EXPECT_EQ(SSL_get_shutdown(server_->ssl()), SSL_RECEIVED_SHUTDOWN);
  SSL_shutdown(server_->ssl());
  EXPECT_TRUE(receive(1, step).empty());
  EXPECT_EQ(step, Step::closed);
}

INSTANTIATE_TEST_SUITE_P(Suites, TalkToOpenssl,
                         testing::Values(std::pair("TLS_AES_128_GCM_SHA256", TlsSuite::aes_128_gcm_sha256),
                                         std::pair("TLS_AES_256_GCM_SHA384", TlsSuite::aes_256_gcm_sha384)));

}  // namespace
}  // namespace cumulus::wire
