#include "netclient/wire/tls_records.h"

#include <algorithm>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/ssl.h>
#include <utility>

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"

namespace cumulus::wire {
namespace {

constexpr std::uint8_t kVersion[2] = {3, 3};  // legacy_record_version of every protected record
// What is sent, and what is received, in one system call: a connection that carries little keeps the small
// ones.
constexpr std::size_t kSmall = 20 * 1024;
constexpr std::size_t kGatherLarge = 160 * 1024;
constexpr std::size_t kReadLarge = 128 * 1024;
// Records that bring us nothing (empty ones, key changes) cost more than they weigh: so many are borne, and
// each kIdlePrice bytes of content make one good.
constexpr std::size_t kIdleMax = 32;
constexpr std::size_t kIdlePrice = 512;

constexpr std::uint8_t kKeyUpdate = 24;  // HandshakeType
constexpr std::uint8_t kUpdateRequested = 1;
constexpr std::uint8_t kUserCanceled = 90;  // an alert that only announces close_notify

// HKDF-Expand-Label(secret, label, "", out.size()), RFC 8446, section 7.1.
void expand_label(TlsSuite suite, ByteView secret, std::string_view label, MutableByteView out) {
  static EVP_KDF* const kdf = EVP_KDF_fetch(nullptr, "TLS13-KDF", nullptr);
  EVP_KDF_CTX* context = EVP_KDF_CTX_new(kdf);
  CHECK(context != nullptr);
  int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
  std::string digest = suite == TlsSuite::aes_128_gcm_sha256 ? "SHA256" : "SHA384";
  std::string prefix = "tls13 ";
  std::string name(label);
  Bytes key(secret.begin(), secret.end());
  const std::array<OSSL_PARAM, 6> parameters = {
      OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest.data(), 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key.data(), key.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, prefix.data(), prefix.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, name.data(), name.size()),
      OSSL_PARAM_construct_end()};
  CHECK(EVP_KDF_derive(context, out.data(), out.size(), parameters.data()) == 1);
  EVP_KDF_CTX_free(context);
  wipe(key);
}

}  // namespace

RecordKeys::RecordKeys(TlsSuite suite, TrafficSecret secret) : suite_(suite), secret_(std::move(secret)) {
  CHECK(secret_.view().size() == TrafficSecret::size_for(suite));
  derive();
}

void RecordKeys::derive() {
  Secret<32> key;
  const MutableByteView used = key.view().first(suite_ == TlsSuite::aes_128_gcm_sha256 ? 16 : 32);
  expand_label(suite_, secret_.view(), "key", used);
  expand_label(suite_, secret_.view(), "iv", iv_);
  cipher_ = std::make_unique<RecordCipher>(used);
  sequence_ = 0;
}

void RecordKeys::update() {
  TrafficSecret next(secret_.view().size());
  expand_label(suite_, secret_.view(), "traffic upd", next.view());
  secret_ = std::move(next);
  derive();
}

// Section 5.3: the sequence number, big-endian, over the end of the IV.
std::array<std::uint8_t, RecordCipher::kNonceSize> RecordKeys::nonce() const {
  auto nonce = iv_;
  for (std::size_t i = 0; i < sizeof sequence_; ++i)
    nonce[nonce.size() - 1 - i] ^= static_cast<std::uint8_t>(sequence_ >> (8 * i));
  return nonce;
}

void RecordKeys::seal(RecordType type, ByteView first, ByteView second, MutableByteView out) {
  const std::size_t length = first.size() + second.size();
  CHECK(length <= kRecordPlainMax && out.size() == length + kRecordOverhead);
  const std::size_t sealed = out.size() - kRecordHeader;
  const std::array<std::uint8_t, kRecordHeader> header = {
      static_cast<std::uint8_t>(RecordType::application_data), kVersion[0], kVersion[1],
      static_cast<std::uint8_t>(sealed >> 8), static_cast<std::uint8_t>(sealed)};
  copy_bytes(header, out.data());
  const auto type_byte = static_cast<std::uint8_t>(type);
  cipher_->begin(nonce(), header);
  MutableByteView rest = out.subspan(kRecordHeader);
  for (const ByteView part : {first, second, ByteView(&type_byte, 1)}) {
    cipher_->encrypt(part, rest.first(part.size()));
    rest = rest.subspan(part.size());
  }
  copy_bytes(cipher_->finish(true), rest.data());
  ++sequence_;
}

std::optional<RecordKeys::Opened> RecordKeys::open(ByteView record, MutableByteView into) {
  CHECK(record.size() >= kRecordOverhead && into.size() >= content_max(record));
  into = into.first(content_max(record));
  const ByteView sealed = record.subspan(kRecordHeader);
  std::uint8_t type = 0;
  RecordCipher::Tag tag;
  copy_bytes(sealed.last(tag.size()), tag.data());
  cipher_->begin(nonce(), record.first(kRecordHeader));
  cipher_->decrypt(sealed.first(into.size()), into);
  cipher_->decrypt(sealed.subspan(into.size(), 1), MutableByteView(&type, 1));
  if (!RecordCipher::matches(cipher_->finish(false), tag)) return std::nullopt;
  ++sequence_;
  // Section 5.4: zeros may follow the type.
  std::size_t length = into.size();
  while (type == 0 && length > 0) type = into[--length];
  return Opened{type, length};
}

void RecordWriter::expect(std::size_t bytes) {
  const std::size_t wanted = bytes <= kRecordPlainMax ? kSmall : kGatherLarge;
  if (gathered_.size() < wanted) gathered_.resize(wanted);
}

bool RecordWriter::append(RecordType type, ByteView first, ByteView second) {
  const std::size_t size = first.size() + second.size() + kRecordOverhead;
  if (gathered_.size() < kSmall) gathered_.resize(kSmall);
  if (gathered_.size() - end_ < size) return false;
  keys_.seal(type, first, second, MutableByteView(gathered_).subspan(end_, size));
  end_ += size;
  return true;
}

bool RecordWriter::change_key() {
  const std::array<std::uint8_t, 5> message = {kKeyUpdate, 0, 0, 1, 0};  // none is asked for in return
  if (!append(RecordType::handshake, message, {})) return false;
  keys_.update();
  owes_update_ = false;
  return true;
}

bool RecordWriter::seal(RecordType type, ByteView first, ByteView second) {
  if ((owes_update_ || keys_.records() >= records_per_key_) && !change_key()) return false;
  return append(type, first, second);
}

bool RecordWriter::seal(Alert alert) {
  const std::uint8_t level = alert == Alert::close_notify ? 1 : 2;  // warning, fatal
  const std::array<std::uint8_t, 2> message = {level, static_cast<std::uint8_t>(alert)};
  return seal(RecordType::alert, message);
}

void RecordWriter::sent(std::size_t bytes) {
  CHECK(bytes <= end_ - begin_);
  begin_ += bytes;
  if (begin_ == end_) begin_ = end_ = 0;
}

MutableByteView RecordReader::room() {
  if (begin_ == end_) begin_ = end_ = 0;
  const std::size_t wanted = filled_up_ ? kReadLarge : kSmall;
  if (buffer_.size() < wanted) buffer_.resize(wanted);
  if (begin_ > 0 && buffer_.size() - begin_ < kRecordHeader + kRecordSealedMax) {
    copy_bytes(ByteView(buffer_).subspan(begin_, end_ - begin_), buffer_.data());
    end_ -= begin_;
    begin_ = 0;
  }
  return MutableByteView(buffer_).subspan(end_);
}

void RecordReader::filled(std::size_t bytes) {
  CHECK(bytes <= buffer_.size() - end_);
  end_ += bytes;
  filled_up_ = filled_up_ || end_ == buffer_.size();
}

RecordReader::Step RecordReader::fail(std::string why, std::optional<Alert> alert) {
  error_ = std::move(why);
  alert_ = alert;
  return Step::failed;
}

RecordReader::Step RecordReader::whole_record(std::size_t& size) {
  const ByteView in = ByteView(buffer_).subspan(begin_, end_ - begin_);
  if (in.size() < kRecordHeader) return Step::more;
  const std::size_t sealed = (std::size_t{in[3]} << 8) | in[4];
  if (in[0] != static_cast<std::uint8_t>(RecordType::application_data) || in[1] != kVersion[0] ||
      in[2] != kVersion[1])
    return fail("what came is no protected TLS record", Alert::unexpected_message);
  if (sealed > kRecordSealedMax)
    return fail(format("a TLS record of {} bytes", sealed), Alert::record_overflow);
  size = kRecordHeader + sealed;
  if (size < kRecordOverhead) return fail(format("a TLS record of {} bytes", sealed), Alert::bad_record_mac);
  return in.size() < size ? Step::more : Step::bytes;
}

RecordReader::Step RecordReader::control(const RecordKeys::Opened& opened, ByteView content) {
  if (opened.type == static_cast<std::uint8_t>(RecordType::alert)) {
    if (content.size() != 2) return fail("a TLS alert of a wrong length", Alert::decode_error);
    closed_ = content[1] == static_cast<std::uint8_t>(Alert::close_notify);
    if (closed_) return Step::closed;
    if (content[1] == kUserCanceled) return Step::more;
    return fail(format("the peer sent the alert \"{}\"", SSL_alert_desc_string_long(content[1])),
                std::nullopt);
  }
  if (opened.type != static_cast<std::uint8_t>(RecordType::handshake))
    return fail(format("a TLS record of type {}", opened.type), Alert::unexpected_message);
  // Tickets and late requests for certificates are not part of our protocol; a change of keys ends its
  // record.
  const std::array<std::uint8_t, 4> begin = {kKeyUpdate, 0, 0, 1};
  if (content.size() != 5 || !equal(content.first(4), begin) || content[4] > kUpdateRequested)
    return fail("a session ticket, or another TLS handshake message that has no place after the handshake",
                Alert::unexpected_message);
  keys_.update();
  update_requested_ = update_requested_ || content[4] == kUpdateRequested;
  return Step::more;
}

RecordReader::Step RecordReader::next(MutableByteView into, std::size_t& got) {
  CHECK(!into.empty());
  for (;;) {
    if (plain_begin_ != plain_end_) {
      got = std::min(into.size(), plain_end_ - plain_begin_);
      copy_bytes(ByteView(plain_).subspan(plain_begin_, got), into.data());
      plain_begin_ += got;
      return Step::bytes;
    }
    if (!error_.empty()) return Step::failed;
    if (closed_) return Step::closed;
    std::size_t size = 0;
    const Step whole = whole_record(size);
    if (whole != Step::bytes) return whole;
    const ByteView record = ByteView(buffer_).subspan(begin_, size);
    const bool direct = into.size() >= RecordKeys::content_max(record);
    if (!direct && plain_.empty()) plain_.resize(kRecordSealedMax);
    const MutableByteView target = direct ? into : MutableByteView(plain_);
    const auto opened = keys_.open(record, target);
    if (!opened) return fail("a TLS record is not authentic", Alert::bad_record_mac);
    begin_ += size;
    if (opened->length > kRecordPlainMax)
      return fail(format("a TLS record that carries {} bytes", opened->length), Alert::record_overflow);
    const bool for_reader = opened->type == static_cast<std::uint8_t>(RecordType::application_data);
    const bool idle = !for_reader || opened->length == 0;
    idle_ = idle ? idle_ + 1 : idle_ - std::min(idle_, opened->length / kIdlePrice);
    if (idle_ > kIdleMax) return fail("too many TLS records that carry nothing", Alert::unexpected_message);
    if (!for_reader) {
      const Step step = control(*opened, target.first(opened->length));
      if (step != Step::more) return step;
    } else if (!direct) {
      plain_begin_ = 0;
      plain_end_ = opened->length;
    } else if (opened->length > 0) {
      got = opened->length;
      return Step::bytes;
    }
  }
}

}  // namespace cumulus::wire
