#include "netclient/wire/tls_stream.h"

#include <algorithm>
#include <boost/asio/redirect_error.hpp>
#include <cerrno>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>

#include "netclient/wire/tls_ciphers.h"
#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/tls_identity.h"

namespace cumulus::wire {
namespace {

using Token = asio::use_awaitable_t<ReactorExecutor>;

// One recv fills this much of OpenSSL's own buffer: fewer system calls than a record at a time.
constexpr std::size_t kReadBuffer = 128 * 1024;
// Encrypted records gather here and leave in one send. A connection that never writes much keeps the small
// one.
constexpr std::size_t kGatherSmall = 20 * 1024;
constexpr std::size_t kGatherLarge = 160 * 1024;
constexpr std::size_t kRecord = 16 * 1024;  // RFC 8446, "Record Layer": plain bytes in one record
// A Task that finds the socket always ready lets others run after this many bytes.
constexpr std::size_t kTurn = 512 * 1024;
// Measured on an AES-NI machine: 128-bit keys cost a tenth less for each GiB. Cells are encrypted with
// 256-bit keys before they come here; the transport protects manifests, sizes and requests.
constexpr const char* kCipherSuites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384";

std::string openssl_reason() {
  const unsigned long code = ERR_peek_last_error();
  const char* reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
  return reason != nullptr ? reason : "no reason given";
}

// The socket below OpenSSL: recv straight into its buffer; writes gather until flushed or full.
struct Wire {
  int fd = -1;
  int error = 0;  // errno of the failure that broke the connection
  bool ended = false;
  std::uint64_t received = 0;
  Bytes gathered;
  std::size_t begin = 0;
  std::size_t end = 0;

  bool pending() const { return begin != end; }
  // True when all is sent; false with error == 0: the socket is full.
  bool send_gathered() {
    while (begin != end) {
      const ssize_t sent = ::send(fd, gathered.data() + begin, end - begin, MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK) error = errno;
        return false;
      }
      begin += static_cast<std::size_t>(sent);
    }
    begin = end = 0;
    return true;
  }
};

Wire& wire_of(BIO* bio) { return *static_cast<Wire*>(BIO_get_data(bio)); }

int bio_read(BIO* bio, char* into, std::size_t length, std::size_t* got) {
  Wire& wire = wire_of(bio);
  BIO_clear_retry_flags(bio);
  ssize_t received = 0;
  do received = ::recv(wire.fd, into, length, 0);
  while (received < 0 && errno == EINTR);
  if (received > 0) {
    *got = static_cast<std::size_t>(received);
    wire.received += *got;
    return 1;
  }
  if (received == 0)
    wire.ended = true;
  else if (errno == EAGAIN || errno == EWOULDBLOCK)
    BIO_set_retry_read(bio);
  else
    wire.error = errno;
  return 0;
}

int bio_write(BIO* bio, const char* from, std::size_t length, std::size_t* put) {
  Wire& wire = wire_of(bio);
  BIO_clear_retry_flags(bio);
  if (wire.gathered.size() - wire.end < length) {
    const bool sent = wire.send_gathered();
    if (!sent && wire.error == 0) BIO_set_retry_write(bio);
    if (!sent) return 0;
  }
  const std::size_t taken = std::min(length, wire.gathered.size() - wire.end);
  std::memcpy(wire.gathered.data() + wire.end, from, taken);
  wire.end += taken;
  *put = taken;
  return 1;
}

long bio_control(BIO* bio, int command, long, void*) {
  Wire& wire = wire_of(bio);
  if (command == BIO_CTRL_EOF) return wire.ended ? 1 : 0;
  if (command != BIO_CTRL_FLUSH) return 0;
  BIO_clear_retry_flags(bio);
  if (wire.send_gathered()) return 1;
  if (wire.error == 0) BIO_set_retry_write(bio);
  return -1;
}

BIO_METHOD* bio_method() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "cumulus socket");
    CHECK(made != nullptr);
    BIO_meth_set_read_ex(made, bio_read);
    BIO_meth_set_write_ex(made, bio_write);
    BIO_meth_set_ctrl(made, bio_control);
    return made;
  }();
  return method;
}

}  // namespace

struct TlsContext::Native {
  SSL_CTX* client = nullptr;
  SSL_CTX* server = nullptr;
  ~Native() {
    SSL_CTX_free(client);
    SSL_CTX_free(server);
  }
};

struct TlsStream::Native {
  Native(Runtime& given_runtime, TcpSocket given_socket, std::shared_ptr<TlsContext> given_context)
      : runtime(given_runtime), socket(std::move(given_socket)), context(std::move(given_context)) {}

  Runtime& runtime;
  TcpSocket socket;
  std::shared_ptr<TlsContext> context;
  Wire wire;
  SSL* ssl = nullptr;
  PublicKey peer{};
  std::optional<PublicKey> pin;
  bool peer_known = false;
  bool pin_failed = false;
  bool established = false;
  bool shut = false;
  bool timed_out = false;
  std::size_t since_turn = 0;

  Task<Status> wait(TcpSocket::wait_type what);
  Task<Status> flush();
  Task<Status> write(ByteView data);
  // What a failed SSL call asks for: waits and returns success to try again, or the reason to give up.
  Task<Status> after_failure(int returned);
  Task<void> maybe_yield(std::size_t bytes);
  Error broken(std::string_view why) const;
  void close_socket();
};

namespace {

// Accepts any Ed25519 certificate whose key is the pinned one (or any key, when nothing is pinned): TLS
// itself proves that the peer holds the key. Dates, names and signatures by others mean nothing here.
template <class Stream>
int verify_peer(X509_STORE_CTX* store, void*) {
  const auto* ssl =
      static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  auto* stream = static_cast<Stream*>(SSL_get_app_data(ssl));
  X509* certificate = X509_STORE_CTX_get0_cert(store);
  EVP_PKEY* key = certificate != nullptr ? X509_get0_pubkey(certificate) : nullptr;
  std::size_t size = stream->peer.size();
  X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
  if (key == nullptr || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519) return 0;
  if (EVP_PKEY_get_raw_public_key(key, stream->peer.data(), &size) != 1 || size != stream->peer.size())
    return 0;
  stream->peer_known = true;
  stream->pin_failed = stream->pin.has_value() && *stream->pin != stream->peer;
  if (stream->pin_failed) return 0;
  X509_STORE_CTX_set_error(store, X509_V_OK);
  return 1;
}

}  // namespace

TlsContext::TlsContext(std::unique_ptr<Native> native) : native_(std::move(native)) {}
TlsContext::~TlsContext() = default;

namespace {

bool configure(SSL_CTX* context, X509* certificate, EVP_PKEY* key) {
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  // Frames say their own lengths, so an end of stream without close_notify cuts nothing unnoticed.
  SSL_CTX_set_options(context,
                      SSL_OP_NO_TICKET | SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_default_read_buffer_len(context, kReadBuffer);
  return SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
         SSL_CTX_set_ciphersuites(context, kCipherSuites) == 1 && SSL_CTX_set_num_tickets(context, 0) == 1 &&
         SSL_CTX_set1_groups_list(context, "X25519") == 1 &&
         SSL_CTX_set1_sigalgs_list(context, "ed25519") == 1 &&
         SSL_CTX_set1_client_sigalgs_list(context, "ed25519") == 1 &&
         SSL_CTX_use_certificate(context, certificate) == 1 && SSL_CTX_use_PrivateKey(context, key) == 1;
}

}  // namespace

Result<std::shared_ptr<TlsContext>> TlsContext::make(const TlsIdentity& identity) {
  const std::uint8_t* certificate_at = identity.certificate_der().data();
  const std::uint8_t* key_at = identity.private_key_der().data();
  OSSL_LIB_CTX* library = tls_library();
  X509* certificate = X509_new_ex(library, kTlsProperties);
  const bool parsed =
      certificate != nullptr && d2i_X509(&certificate, &certificate_at,
                                         static_cast<long>(identity.certificate_der().size())) != nullptr;
  EVP_PKEY* key = d2i_AutoPrivateKey_ex(
      nullptr, &key_at, static_cast<long>(identity.private_key_der().size()), library, kTlsProperties);
  auto native = std::make_unique<Native>();
  native->client = SSL_CTX_new_ex(library, kTlsProperties, TLS_client_method());
  native->server = SSL_CTX_new_ex(library, kTlsProperties, TLS_server_method());
  const bool made = parsed && key != nullptr && native->client != nullptr && native->server != nullptr &&
                    configure(native->client, certificate, key) &&
                    configure(native->server, certificate, key);
  X509_free(certificate);
  EVP_PKEY_free(key);
  if (!made) return fail(ErrorKind::io, "TLS cannot be set up on this system: " + openssl_reason());
  for (SSL_CTX* context : {native->client, native->server}) {
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    SSL_CTX_set_cert_verify_callback(context, &verify_peer<TlsStream::Native>, nullptr);
  }
  return std::shared_ptr<TlsContext>(new TlsContext(std::move(native)));
}

TlsStream::TlsStream(Runtime& runtime, TcpSocket socket, std::shared_ptr<TlsContext> context, Role role)
    : native_(std::make_unique<Native>(runtime, std::move(socket), std::move(context))) {
  Native& n = *native_;
  boost::system::error_code ignored;
  n.socket.non_blocking(true, ignored);
  n.socket.set_option(asio::ip::tcp::no_delay(true), ignored);
  n.socket.set_option(asio::socket_base::keep_alive(true), ignored);
  n.wire.fd = n.socket.native_handle();
  n.wire.gathered.resize(kGatherSmall);
  auto& contexts = n.context->native();
  n.ssl = SSL_new(role == Role::client ? contexts.client : contexts.server);
  BIO* bio = BIO_new(bio_method());
  CHECK(n.ssl != nullptr && bio != nullptr);
  BIO_set_data(bio, &n.wire);
  BIO_set_init(bio, 1);
  SSL_set_bio(n.ssl, bio, bio);
  SSL_set_app_data(n.ssl, &n);
  role == Role::client ? SSL_set_connect_state(n.ssl) : SSL_set_accept_state(n.ssl);
}

TlsStream::~TlsStream() {
  shut();
  SSL_free(native_->ssl);
}

const PublicKey& TlsStream::peer() const { return native_->peer; }
std::uint64_t TlsStream::received() const { return native_->wire.received; }
bool TlsStream::is_shut() const { return native_->shut; }

Error TlsStream::Native::broken(std::string_view why) const {
  if (shut && !timed_out) return {ErrorKind::closed, "the connection was closed"};
  return {ErrorKind::unavailable, std::string(why)};
}

Task<Status> TlsStream::Native::wait(TcpSocket::wait_type what) {
  since_turn = 0;
  boost::system::error_code error;
  co_await socket.async_wait(what, asio::redirect_error(Token(), error));
  if (shut || timed_out) co_return fail(broken("timed out"));
  if (error) co_return fail(broken(error.message()));
  co_return Status{};
}

Task<void> TlsStream::Native::maybe_yield(std::size_t bytes) {
  since_turn += bytes;
  if (since_turn < kTurn) co_return;
  since_turn = 0;
  co_await asio::post(runtime.executor(), Token());
}

Task<Status> TlsStream::Native::after_failure(int returned) {
  switch (SSL_get_error(ssl, returned)) {
    case SSL_ERROR_WANT_READ:
      co_return co_await wait(TcpSocket::wait_read);
    case SSL_ERROR_WANT_WRITE:
      co_return co_await wait(TcpSocket::wait_write);
    case SSL_ERROR_ZERO_RETURN:
      co_return fail(broken("the peer closed the connection"));
    default:
      break;
  }
  if (pin_failed)
    co_return fail(
        ErrorKind::denied,
        format("the peer's identity is {}, but {} is expected: it is another miner, or somebody in "
               "between",
               to_hex(peer), to_hex(*pin)));
  if (wire.error != 0) co_return fail(broken(from_errno(wire.error, "connection").message()));
  if (wire.ended) co_return fail(broken("the peer closed the connection"));
  co_return fail(broken("TLS 1.3 failed: " + openssl_reason()));
}

Task<Status> TlsStream::Native::flush() {
  while (!wire.send_gathered()) {
    if (wire.error != 0) co_return fail(broken(from_errno(wire.error, "connection").message()));
    CO_TRY_OK(co_await wait(TcpSocket::wait_write));
  }
  co_return Status{};
}

Task<Status> TlsStream::Native::write(ByteView data) {
  while (!data.empty()) {
    if (shut) co_return fail(broken("closed"));
    std::size_t written = 0;
    ERR_clear_error();
    const int returned = SSL_write_ex(ssl, data.data(), std::min(data.size(), kRecord), &written);
    if (returned == 1) {
      data = data.subspan(written);
      co_await maybe_yield(written);
      continue;
    }
    CO_TRY_OK(co_await after_failure(returned));
  }
  co_return Status{};
}

Task<Status> TlsStream::handshake(TimePoint deadline, std::optional<PublicKey> pin) {
  Native& n = *native_;
  n.pin = pin;
  const TimerId timer = n.runtime.start_timer(deadline, [&n] {
    n.timed_out = true;
    boost::system::error_code ignored;
    if (!n.shut) n.socket.cancel(ignored);
  });
  Status result;
  while (!n.shut && !n.timed_out) {
    ERR_clear_error();
    const int returned = SSL_do_handshake(n.ssl);
    if (returned == 1) {
      n.established = true;
      break;
    }
    result = co_await n.after_failure(returned);
    if (!result) break;
  }
  n.runtime.cancel_timer(timer);
  if (n.established) co_return Status{};
  if (result) result = fail(n.broken("timed out"));
  co_return fail(result.error().within("TLS handshake"));
}

Task<Result<std::size_t>> TlsStream::read_some(MutableByteView into) {
  Native& n = *native_;
  for (;;) {
    if (n.shut) co_return fail(n.broken("closed"));
    std::size_t got = 0;
    ERR_clear_error();
    const int returned = SSL_read_ex(n.ssl, into.data(), into.size(), &got);
    if (returned == 1) {
      co_await n.maybe_yield(got);
      if (n.shut) co_return fail(n.broken("closed"));
      co_return got;
    }
    if (SSL_get_error(n.ssl, returned) == SSL_ERROR_ZERO_RETURN) co_return std::size_t{0};
    CO_TRY_OK(co_await n.after_failure(returned));
  }
}

Task<Status> TlsStream::read_exactly(MutableByteView into) {
  while (!into.empty()) {
    CO_TRY(const std::size_t got, co_await read_some(into));
    if (got == 0) co_return fail(ErrorKind::unavailable, "the peer closed the connection");
    into = into.subspan(got);
  }
  co_return Status{};
}

Task<Status> TlsStream::read_exactly(Landing& landing) {
  Native& n = *native_;
  std::array<std::uint8_t, 4096> nowhere;
  while (!landing.rest.empty() || landing.to_skip > 0) {
    if (n.shut) co_return fail(n.broken("closed"));
    // The target is looked at anew after every wait: it may have been dropped meanwhile.
    const bool skipping = landing.rest.empty();
    const MutableByteView into =
        skipping ? MutableByteView(nowhere).first(std::min<std::uint64_t>(landing.to_skip, nowhere.size()))
                 : landing.rest;
    std::size_t got = 0;
    ERR_clear_error();
    const int returned = SSL_read_ex(n.ssl, into.data(), into.size(), &got);
    if (returned != 1) {
      CO_TRY_OK(co_await n.after_failure(returned));
      continue;
    }
    if (skipping)
      landing.to_skip -= got;
    else
      landing.rest = landing.rest.subspan(got);
    co_await n.maybe_yield(got);
  }
  co_return Status{};
}

Task<Status> TlsStream::discard(std::uint64_t length) {
  Landing landing;
  landing.to_skip = length;
  co_return co_await read_exactly(landing);
}

Task<Status> TlsStream::write_all(ByteView head, ByteView payload) {
  Native& n = *native_;
  const std::size_t total = head.size() + payload.size();
  if (total > kGatherSmall && n.wire.gathered.size() < kGatherLarge) n.wire.gathered.resize(kGatherLarge);
  if (!payload.empty() && total <= kRecord) {
    // One small record costs less than two.
    Bytes joined;
    joined.reserve(total);
    joined.insert(joined.end(), head.begin(), head.end());
    joined.insert(joined.end(), payload.begin(), payload.end());
    CO_TRY_OK(co_await n.write(joined));
  } else {
    CO_TRY_OK(co_await n.write(head));
    CO_TRY_OK(co_await n.write(payload));
  }
  co_return co_await n.flush();
}

void TlsStream::Native::close_socket() {
  boost::system::error_code ignored;
  socket.shutdown(asio::socket_base::shutdown_both, ignored);
  socket.close(ignored);
}

void TlsStream::shut() {
  Native& n = *native_;
  if (n.shut) return;
  if (n.established && n.wire.error == 0) {
    ERR_clear_error();
    SSL_shutdown(n.ssl);  // tells the peer, if the socket takes it now
  }
  n.shut = true;
  n.close_socket();
}

}  // namespace cumulus::wire
