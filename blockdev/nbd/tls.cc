// TLS of disk clients: X.509 certificates both ways, or pre-shared keys. The only OpenSSL of this floor.
// Reactor thread.
#include <climits>
#include <cstdio>
#include <cstring>
#include <map>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "blockdev/nbd/stream.h"
#include "objectstore/base/format.h"

namespace cumulus::nbd {
namespace {

struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
struct FreeSession {
  void operator()(SSL* session) const { SSL_free(session); }
};
using Context = std::unique_ptr<SSL_CTX, FreeContext>;
using Session = std::unique_ptr<SSL, FreeSession>;

std::string why() {
  char text[256] = "no reason given";
  if (const auto code = ERR_get_error(); code != 0) ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return text;
}

class TlsStream final : public Stream {
 public:
  TlsStream(Runtime& runtime, int socket, Session session)
      : Stream(runtime, socket), session_(std::move(session)) {
    SSL_set_fd(session_.get(), socket);
    SSL_set_accept_state(session_.get());
  }

  Task<Status> shake_hands() {
    for (;;) {
      ERR_clear_error();
      const int done = SSL_do_handshake(session_.get());
      if (done == 1) co_return Status();
      const Outcome outcome = outcome_of(done);
      if (outcome == Outcome::closed) co_return fail(ErrorKind::denied, why());
      co_await wait(outcome);
    }
  }

  Moved read_some(MutableByteView into) override {
    ERR_clear_error();
    std::size_t got = 0;
    const int done = SSL_read_ex(session_.get(), into.data(), into.size(), &got);
    if (done == 1) return {Outcome::moved, got};
    return {outcome_of(done), 0};
  }

  Moved write_some(std::span<const iovec> parts) override {
    if (parts.empty()) return {Outcome::moved, 0};
    // A record holds 16 KiB: small replies are gathered into one. A write that had to wait is tried again
    // with the same bytes, as OpenSSL asks.
    if (pending_.empty()) {
      for (const iovec& part : parts) {
        const auto* from = static_cast<const std::uint8_t*>(part.iov_base);
        const std::size_t take = std::min(part.iov_len, kRecord - pending_.size());
        pending_.insert(pending_.end(), from, from + take);
        if (pending_.size() == kRecord) break;
      }
    }
    ERR_clear_error();
    std::size_t put = 0;
    const int done = SSL_write_ex(session_.get(), pending_.data(), pending_.size(), &put);
    if (done != 1) return {outcome_of(done), 0};
    pending_.clear();
    return {Outcome::moved, put};
  }

 private:
  static constexpr std::size_t kRecord = 16 * 1024;

  Outcome outcome_of(int done) {
    switch (SSL_get_error(session_.get(), done)) {
      case SSL_ERROR_WANT_READ:
        return Outcome::wants_read;
      case SSL_ERROR_WANT_WRITE:
        return Outcome::wants_write;
      default:
        return Outcome::closed;
    }
  }

  Session session_;
  Bytes pending_;
};

class OpenSslSettings final : public TlsSettings {
 public:
  explicit OpenSslSettings(Context context) : context_(std::move(context)) {
    SSL_CTX_set_min_proto_version(context_.get(), TLS1_2_VERSION);
    SSL_CTX_set_options(context_.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET);
    SSL_CTX_set_session_cache_mode(context_.get(), SSL_SESS_CACHE_OFF);
    SSL_CTX_set_app_data(context_.get(), this);
  }

  Status load_certificates(const std::string& directory) {
    const std::string authority = directory + "/ca-cert.pem";
    const std::string certificate = directory + "/server-cert.pem";
    const std::string key = directory + "/server-key.pem";
    const auto bad = [](const std::string& path) {
      return fail(ErrorKind::invalid, format("TLS: {} does not load: {}", path, why()));
    };
    if (SSL_CTX_load_verify_file(context_.get(), authority.c_str()) != 1) return bad(authority);
    if (SSL_CTX_use_certificate_chain_file(context_.get(), certificate.c_str()) != 1) return bad(certificate);
    if (SSL_CTX_use_PrivateKey_file(context_.get(), key.c_str(), SSL_FILETYPE_PEM) != 1) return bad(key);
    if (SSL_CTX_check_private_key(context_.get()) != 1) return bad(key);
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    return {};
  }

  Status load_psk(const std::string& path) {
    std::FILE* file = std::fopen(path.c_str(), "re");
    if (file == nullptr) return fail(from_errno(errno, "open " + path));
    char line[1024];
    while (std::fgets(line, sizeof line, file) != nullptr) {
      std::string_view text(line);
      while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
      if (text.empty() || text.front() == '#') continue;
      const auto colon = text.rfind(':');
      Bytes key(colon == std::string_view::npos ? 0 : (text.size() - colon - 1) / 2);
      if (colon == std::string_view::npos || colon == 0 || key.size() < 16 || key.size() > 64 ||
          !from_hex(text.substr(colon + 1), key)) {
        std::fclose(file);
        return fail(ErrorKind::invalid,
                    format("TLS: a line of {} is not \"user:hex key of 16 to 64 bytes\"", path));
      }
      keys_[std::string(text.substr(0, colon))] = std::move(key);
    }
    std::fclose(file);
    if (keys_.empty()) return fail(ErrorKind::invalid, format("TLS: {} names no user", path));
    SSL_CTX_set_psk_server_callback(context_.get(), &OpenSslSettings::find_key);
    // The same keys over TLS 1.3 and 1.2; nothing without authentication.
    if (SSL_CTX_set_cipher_list(context_.get(), "ECDHE-PSK:DHE-PSK:PSK:!aNULL:!eNULL") != 1 ||
        SSL_CTX_set_ciphersuites(context_.get(), "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256") != 1)
      return fail(ErrorKind::invalid, "TLS: no suite for shared keys: " + why());
    return {};
  }

  Task<Result<std::unique_ptr<Stream>>> accept(Runtime& runtime, int socket) override {
    Session session(SSL_new(context_.get()));
    SSL_set_mode(session.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                    SSL_MODE_RELEASE_BUFFERS);
    auto stream = std::make_unique<TlsStream>(runtime, socket, std::move(session));
    CO_TRY_OK(co_await stream->shake_hands());
    std::unique_ptr<Stream> made = std::move(stream);
    co_return made;
  }

 private:
  static unsigned find_key(SSL* session, const char* identity, unsigned char* key, unsigned size_max) {
    const auto* self = static_cast<const OpenSslSettings*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(session)));
    const auto found = self->keys_.find(identity == nullptr ? "" : identity);
    if (found == self->keys_.end() || found->second.size() > size_max) return 0;
    std::memcpy(key, found->second.data(), found->second.size());
    return static_cast<unsigned>(found->second.size());
  }

  Context context_;
  std::map<std::string, Bytes> keys_;
};

}  // namespace

Result<std::shared_ptr<TlsSettings>> TlsSettings::from_certificates(const std::string& directory) {
  auto settings = std::make_shared<OpenSslSettings>(Context(SSL_CTX_new(TLS_server_method())));
  TRY_OK(settings->load_certificates(directory));
  return settings;
}

Result<std::shared_ptr<TlsSettings>> TlsSettings::from_psk(const std::string& file) {
  auto settings = std::make_shared<OpenSslSettings>(Context(SSL_CTX_new(TLS_server_method())));
  TRY_OK(settings->load_psk(file));
  return settings;
}

}  // namespace cumulus::nbd
