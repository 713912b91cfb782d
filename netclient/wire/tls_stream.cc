#include "netclient/wire/tls_stream.h"

#include <algorithm>
#include <boost/asio/redirect_error.hpp>
#include <cerrno>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <optional>
#include <sys/socket.h>

#include "netclient/wire/tls_records.h"
#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/crypto/tls_identity.h"

namespace cumulus::wire {
namespace {

using Token = asio::use_awaitable_t<ReactorExecutor>;

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
  int fd = -1;  // the socket's, while it is open
  std::uint64_t received = 0;
  // While hands are shaken: OpenSSL between two buffers of its own. Gone afterwards.
  SSL* ssl = nullptr;
  std::optional<TrafficSecret> client_secret;
  std::optional<TrafficSecret> server_secret;
  // From then on.
  std::optional<RecordReader> reader;
  std::optional<RecordWriter> writer;
  PublicKey peer{};
  std::optional<PublicKey> pin;
  bool pin_failed = false;
  bool shut = false;
  bool timed_out = false;
  bool told = false;  // an alert ends what we send
  std::size_t since_turn = 0;

  // Closed, or not yet open.
  Status usable() const;
  Task<Status> wait(TcpSocket::wait_type what);
  // True when all is sent; false: the socket is full.
  Result<bool> send_some(ByteView& bytes);
  // As many as there are; 0: the peer ended the stream.
  Task<Result<std::size_t>> receive(MutableByteView into);
  Task<Status> shake_hands();
  Task<Status> send_handshake();
  Status take_over();
  // One record.
  Task<Status> write(ByteView first, ByteView second);
  // As send_some(), of what the writer holds.
  Result<bool> send_pending();
  Task<Status> flush();
  // The reader's next(): closed or unavailable when there is nothing to read from.
  Result<RecordReader::Step> next(MutableByteView into, std::size_t& got);
  // What next() asked for when it gave no bytes. False: the stream has ended.
  Task<Result<bool>> after(RecordReader::Step step);
  Task<void> maybe_yield(std::size_t bytes);
  void tell(Alert alert);
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
  stream->pin_failed = stream->pin.has_value() && *stream->pin != stream->peer;
  if (stream->pin_failed) return 0;
  X509_STORE_CTX_set_error(store, X509_V_OK);
  return 1;
}

// OpenSSL's one way to give traffic secrets out (SSL_CTX_set_keylog_callback(3)): a line of "LABEL
// client-random secret", the last two in hexadecimal. Nothing of it is kept but the secrets.
template <class Stream>
void take_secret(const SSL* ssl, const char* line) {
  auto* stream = static_cast<Stream*>(SSL_get_app_data(ssl));
  const std::string_view text(line);
  const std::string_view hex = text.substr(text.rfind(' ') + 1);
  for (const auto& [label, into] : {std::pair("CLIENT_TRAFFIC_SECRET_0 ", &stream->client_secret),
                                    std::pair("SERVER_TRAFFIC_SECRET_0 ", &stream->server_secret)}) {
    if (!text.starts_with(label) || hex.size() > 2 * TrafficSecret::kSizeMax) continue;
    into->emplace(hex.size() / 2);
    if (!from_hex(hex, (*into)->view())) into->reset();
  }
}

}  // namespace

TlsContext::TlsContext(std::unique_ptr<Native> native) : native_(std::move(native)) {}
TlsContext::~TlsContext() = default;

namespace {

bool configure(SSL_CTX* context, X509* certificate, EVP_PKEY* key) {
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
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
  const std::uint8_t* certificate_end = certificate_at + identity.certificate_der().size();
  X509* certificate = d2i_X509(nullptr, &certificate_at, certificate_end - certificate_at);
  EVP_PKEY* key = d2i_AutoPrivateKey(nullptr, &key_at, static_cast<long>(identity.private_key_der().size()));
  auto native = std::make_unique<Native>();
  native->client = SSL_CTX_new(TLS_client_method());
  native->server = SSL_CTX_new(TLS_server_method());
  const bool made = certificate != nullptr && key != nullptr && native->client != nullptr &&
                    native->server != nullptr && configure(native->client, certificate, key) &&
                    configure(native->server, certificate, key);
  X509_free(certificate);
  EVP_PKEY_free(key);
  if (!made) return fail(ErrorKind::io, "TLS cannot be set up on this system: " + openssl_reason());
  for (SSL_CTX* context : {native->client, native->server}) {
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    SSL_CTX_set_cert_verify_callback(context, &verify_peer<TlsStream::Native>, nullptr);
    SSL_CTX_set_keylog_callback(context, &take_secret<TlsStream::Native>);
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
  n.fd = n.socket.native_handle();
  auto& contexts = n.context->native();
  n.ssl = SSL_new(role == Role::client ? contexts.client : contexts.server);
  BIO* in = BIO_new(BIO_s_mem());
  BIO* out = BIO_new(BIO_s_mem());
  CHECK(n.ssl != nullptr && in != nullptr && out != nullptr);
  BIO_set_mem_eof_return(in, -1);  // empty: more comes
  SSL_set_bio(n.ssl, in, out);
  SSL_set_app_data(n.ssl, &n);
  role == Role::client ? SSL_set_connect_state(n.ssl) : SSL_set_accept_state(n.ssl);
}

TlsStream::~TlsStream() {
  shut();
  SSL_free(native_->ssl);
}

const PublicKey& TlsStream::peer() const { return native_->peer; }
std::uint64_t TlsStream::received() const { return native_->received; }
bool TlsStream::is_shut() const { return native_->shut; }

Error TlsStream::Native::broken(std::string_view why) const {
  if (shut && !timed_out) return {ErrorKind::closed, "the connection was closed"};
  return {ErrorKind::unavailable, std::string(why)};
}

Status TlsStream::Native::usable() const {
  if (shut || told) return fail(broken("closed"));
  if (!reader) return fail(broken("no handshake yet"));
  return {};
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

Result<bool> TlsStream::Native::send_some(ByteView& bytes) {
  while (!bytes.empty()) {
    if (shut) return fail(broken("closed"));
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
    if (sent < 0) return fail(broken(from_errno(errno, "connection").message()));
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
  }
  return true;
}

Task<Result<std::size_t>> TlsStream::Native::receive(MutableByteView into) {
  for (;;) {
    if (shut) co_return fail(broken("closed"));
    const ssize_t got = ::recv(fd, into.data(), into.size(), 0);
    if (got >= 0) {
      received += static_cast<std::size_t>(got);
      co_return static_cast<std::size_t>(got);
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK)
      co_return fail(broken(from_errno(errno, "connection").message()));
    CO_TRY_OK(co_await wait(TcpSocket::wait_read));
  }
}

Task<Status> TlsStream::Native::send_handshake() {
  char* data = nullptr;
  const long size = BIO_get_mem_data(SSL_get_wbio(ssl), &data);
  const Bytes out(data, data + std::max(size, 0L));
  static_cast<void>(BIO_reset(SSL_get_wbio(ssl)));
  ByteView rest = out;
  for (;;) {
    CO_TRY(const bool all, send_some(rest));
    if (all) co_return Status{};
    CO_TRY_OK(co_await wait(TcpSocket::wait_write));
  }
}

Task<Status> TlsStream::Native::shake_hands() {
  std::array<std::uint8_t, 4096> in;
  for (;;) {
    ERR_clear_error();
    const int returned = SSL_do_handshake(ssl);
    const int error = SSL_get_error(ssl, returned);
    const std::string reason = returned == 1 ? "" : openssl_reason();
    // An alert that says why we give up leaves too, if it can.
    const Status sent = co_await send_handshake();
    if (pin_failed)
      co_return fail(ErrorKind::denied,
                     format("the peer's identity is {}, but {} is expected: it is another miner, or "
                            "somebody in between",
                            to_hex(peer), to_hex(*pin)));
    if (returned != 1 && error != SSL_ERROR_WANT_READ) co_return fail(broken("TLS 1.3 failed: " + reason));
    CO_TRY_OK(sent);
    if (returned == 1) co_return take_over();
    CO_TRY(const std::size_t got, co_await receive(in));
    if (got == 0) co_return fail(broken("the peer closed the connection"));
    CHECK(BIO_write(SSL_get_rbio(ssl), in.data(), static_cast<int>(got)) == static_cast<int>(got));
  }
}

// Without read-ahead OpenSSL takes no more than the handshake's own records from its buffer: what is left
// there are the first records under the traffic secrets.
Status TlsStream::Native::take_over() {
  const auto suite = SSL_CIPHER_get_id(SSL_get_current_cipher(ssl)) == TLS1_3_CK_AES_256_GCM_SHA384
                         ? TlsSuite::aes_256_gcm_sha384
                         : TlsSuite::aes_128_gcm_sha256;
  const bool whole = client_secret && server_secret && SSL_has_pending(ssl) == 0;
  if (SSL_SESSION_get_max_fragment_length(SSL_get_session(ssl)) != TLSEXT_max_fragment_length_DISABLED)
    return fail(ErrorKind::unsupported, "the peer asks for smaller TLS records than this program sends");
  if (!whole || client_secret->view().size() != TrafficSecret::size_for(suite) ||
      server_secret->view().size() != TrafficSecret::size_for(suite))
    return fail(ErrorKind::io, "TLS of this system gives no traffic secrets out");
  const bool server = SSL_is_server(ssl) == 1;
  reader.emplace(RecordKeys(suite, std::move(server ? *client_secret : *server_secret)));
  writer.emplace(RecordKeys(suite, std::move(server ? *server_secret : *client_secret)));
  client_secret.reset();
  server_secret.reset();
  for (int left = 1; left > 0;) {
    const MutableByteView room = reader->room();
    left = BIO_read(SSL_get_rbio(ssl), room.data(), static_cast<int>(room.size()));
    if (left > 0) reader->filled(static_cast<std::size_t>(left));
  }
  SSL_free(ssl);
  ssl = nullptr;
  return {};
}

Task<Status> TlsStream::handshake(TimePoint deadline, std::optional<PublicKey> pin) {
  Native& n = *native_;
  n.pin = pin;
  const TimerId timer = n.runtime.start_timer(deadline, [&n] {
    n.timed_out = true;
    boost::system::error_code ignored;
    if (!n.shut) n.socket.cancel(ignored);
  });
  const Status result = co_await n.shake_hands();
  n.runtime.cancel_timer(timer);
  if (result) co_return Status{};
  co_return fail(result.error().within("TLS handshake"));
}

Result<bool> TlsStream::Native::send_pending() {
  ByteView rest = writer->pending();
  const std::size_t before = rest.size();
  Result<bool> all = send_some(rest);
  writer->sent(before - rest.size());
  return all;
}

Task<Status> TlsStream::Native::flush() {
  for (;;) {
    CO_TRY(const bool all, send_pending());
    if (all) co_return Status{};
    CO_TRY_OK(co_await wait(TcpSocket::wait_write));
  }
}

Task<Status> TlsStream::Native::write(ByteView first, ByteView second) {
  CO_TRY_OK(usable());
  while (!writer->seal(RecordType::application_data, first, second)) CO_TRY_OK(co_await flush());
  co_await maybe_yield(first.size() + second.size());
  co_return Status{};
}

// If the socket takes it now: nobody waits for it, and nothing depends on it.
void TlsStream::Native::tell(Alert alert) {
  if (!usable() || !writer->pending().empty() || !writer->seal(alert)) return;
  const auto sent = send_pending();
  static_cast<void>(sent);
  told = true;
}

Result<RecordReader::Step> TlsStream::Native::next(MutableByteView into, std::size_t& got) {
  TRY_OK(usable());
  const auto step = reader->next(into, got);
  if (reader->take_update_request()) writer->owe_update();
  return step;
}

Task<Result<bool>> TlsStream::Native::after(RecordReader::Step step) {
  if (step == RecordReader::Step::closed) co_return false;
  if (step == RecordReader::Step::failed) {
    if (reader->alert()) tell(*reader->alert());
    co_return fail(broken(reader->error()));
  }
  const MutableByteView room = reader->room();
  CO_TRY(const std::size_t got, co_await receive(room));
  reader->filled(got);
  co_return got > 0;
}

Task<Result<std::size_t>> TlsStream::read_some(MutableByteView into) {
  Native& n = *native_;
  for (;;) {
    std::size_t got = 0;
    CO_TRY(const auto step, n.next(into, got));
    if (step == RecordReader::Step::bytes) {
      co_await n.maybe_yield(got);
      if (n.shut) co_return fail(n.broken("closed"));
      co_return got;
    }
    CO_TRY(const bool open, co_await n.after(step));
    if (!open) co_return std::size_t{0};
  }
}

Task<Status> TlsStream::read_exactly(MutableByteView into) {
  Landing landing;
  landing.rest = into;
  co_return co_await read_exactly(landing);
}

Task<Status> TlsStream::read_exactly(Landing& landing) {
  Native& n = *native_;
  std::array<std::uint8_t, 4096> nowhere;
  while (!landing.rest.empty() || landing.to_skip > 0) {
    // The target is looked at anew after every wait: it may have been dropped meanwhile.
    const bool skipping = landing.rest.empty();
    const MutableByteView into =
        skipping ? MutableByteView(nowhere).first(std::min<std::uint64_t>(landing.to_skip, nowhere.size()))
                 : landing.rest;
    std::size_t got = 0;
    CO_TRY(const auto step, n.next(into, got));
    if (step != RecordReader::Step::bytes) {
      CO_TRY(const bool open, co_await n.after(step));
      if (!open) co_return fail(n.broken("the peer closed the connection"));
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
  if (head.empty() && payload.empty()) co_return Status{};
  CO_TRY_OK(n.usable());
  n.writer->expect(head.size() + payload.size());
  if (head.size() + payload.size() <= kRecordPlainMax) {
    // One small record costs less than two.
    CO_TRY_OK(co_await n.write(head, payload));
  } else {
    // The payload begins a record, so that its records are decrypted where they belong.
    for (ByteView rest : {head, payload})
      for (; !rest.empty(); rest = rest.subspan(std::min(rest.size(), kRecordPlainMax)))
        CO_TRY_OK(co_await n.write(rest.first(std::min(rest.size(), kRecordPlainMax)), {}));
  }
  co_return co_await n.flush();
}

void TlsStream::Native::close_socket() {
  boost::system::error_code ignored;
  socket.shutdown(asio::socket_base::shutdown_both, ignored);
  socket.close(ignored);
  fd = -1;
}

void TlsStream::shut() {
  Native& n = *native_;
  if (n.shut) return;
  n.tell(Alert::close_notify);
  n.shut = true;
  n.close_socket();
}

}  // namespace cumulus::wire
