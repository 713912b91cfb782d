// TLS 1.3's record protection (RFC 8446, sections 5 and 7): what carries a connection's bytes once OpenSSL
// has shaken hands and given its traffic secrets out, as it does for the kernel's TLS. The same bytes on the
// wire; each is encrypted from where it lies into what the socket sends, and decrypted from what the socket
// gave into where it belongs. OpenSSL 3.0 copies it twice more on the way out and once on the way in, and has
// no vector AES.
//
// Pure: no socket, no clock. One thread at a time. Keys are wiped when they go.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "objectstore/base/bytes.h"
#include "objectstore/base/check.h"
#include "objectstore/crypto/record_cipher.h"
#include "objectstore/crypto/secret.h"

namespace cumulus::wire {

enum class RecordType : std::uint8_t { alert = 21, handshake = 22, application_data = 23 };
enum class TlsSuite : std::uint8_t { aes_128_gcm_sha256, aes_256_gcm_sha384 };
// AlertDescription (RFC 8446, section 6), those that we send.
enum class Alert : std::uint8_t {
  close_notify = 0,
  unexpected_message = 10,
  bad_record_mac = 20,
  record_overflow = 22,
  decode_error = 50
};

inline constexpr std::size_t kRecordHeader = 5;
inline constexpr std::size_t kRecordPlainMax = 16 * 1024;
// A record without padding is larger by this than what it carries.
inline constexpr std::size_t kRecordOverhead = kRecordHeader + 1 + RecordCipher::kTagSize;
// After the header.
inline constexpr std::size_t kRecordSealedMax = kRecordPlainMax + 256;
// A sender changes its key after so many records: below the limit of section 5.5 (2^24.5 full ones).
inline constexpr std::uint64_t kRecordsPerKey = std::uint64_t{1} << 24;

// A traffic secret: as long as the suite's hash.
class TrafficSecret {
 public:
  static constexpr std::size_t kSizeMax = 48;
  static std::size_t size_for(TlsSuite suite) { return suite == TlsSuite::aes_128_gcm_sha256 ? 32 : 48; }
  explicit TrafficSecret(std::size_t size) : size_(size) { CHECK(size <= kSizeMax); }
  ByteView view() const { return bytes_.view().first(size_); }
  MutableByteView view() { return bytes_.view().first(size_); }

 private:
  Secret<kSizeMax> bytes_;
  std::size_t size_;
};

// One direction's keys and sequence number.
class RecordKeys {
 public:
  RecordKeys(TlsSuite suite, TrafficSecret secret);

  // One record that carries `first`, then `second`, at most kRecordPlainMax together; `out` has their size
  // and kRecordOverhead, and lies apart from them.
  void seal(RecordType type, ByteView first, ByteView second, MutableByteView out);

  struct Opened {
    std::uint8_t type = 0;  // as the peer wrote it; 0: there was nothing but padding
    std::size_t length = 0;
  };
  // What a whole record carries; `into` has room for content_max(record) and lies apart from it. Without a
  // value the record is not authentic, and what stands in `into` means nothing.
  std::optional<Opened> open(ByteView record, MutableByteView into);
  static std::size_t content_max(ByteView record) { return record.size() - kRecordOverhead; }

  void update();                                       // section 7.2: the next generation
  std::uint64_t records() const { return sequence_; }  // under this generation

 private:
  void derive();
  std::array<std::uint8_t, RecordCipher::kNonceSize> nonce() const;

  TlsSuite suite_;
  TrafficSecret secret_;
  std::unique_ptr<RecordCipher> cipher_;
  std::array<std::uint8_t, RecordCipher::kNonceSize> iv_{};
  std::uint64_t sequence_ = 0;
};

// Records on their way out, gathered for large sends.
class RecordWriter {
 public:
  explicit RecordWriter(RecordKeys keys, std::uint64_t records_per_key = kRecordsPerKey)
      : keys_(std::move(keys)), records_per_key_(records_per_key) {}

  // A message of so many bytes comes: a connection that never writes much keeps little memory.
  void expect(std::size_t bytes);
  // As RecordKeys::seal. False: no room before all that is pending() was sent.
  bool seal(RecordType type, ByteView first, ByteView second = {});
  bool seal(Alert alert);
  ByteView pending() const { return ByteView(gathered_).subspan(begin_, end_ - begin_); }
  void sent(std::size_t bytes);
  // The peer wants our key changed before our next bytes.
  void owe_update() { owes_update_ = true; }

 private:
  bool change_key();
  bool append(RecordType type, ByteView first, ByteView second);

  RecordKeys keys_;
  std::uint64_t records_per_key_;
  Bytes gathered_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  bool owes_update_ = false;
};

// Records on their way in: the socket fills room(), next() gives what they carry.
class RecordReader {
 public:
  explicit RecordReader(RecordKeys keys) : keys_(std::move(keys)) {}

  // Never empty after next() has returned `more`.
  MutableByteView room();
  void filled(std::size_t bytes);

  enum class Step {
    bytes,   // `got` > 0 of them
    more,    // nothing before the socket gives more
    closed,  // the peer said so (close_notify); now and from now on
    failed   // error() says why, alert() what the peer is to be told; now and from now on
  };
  // At most into.size() > 0 application bytes, in `into`. They are authentic.
  Step next(MutableByteView into, std::size_t& got);

  const std::string& error() const { return error_; }
  std::optional<Alert> alert() const { return alert_; }
  // Whether the peer asked for a change of our key since the last call.
  bool take_update_request() { return std::exchange(update_requested_, false); }

 private:
  Step fail(std::string why, std::optional<Alert> alert);
  // A whole record begins at begin_: `more` or `failed` otherwise; `bytes`, and its size, when it does.
  Step whole_record(std::size_t& size);
  // What is not application data. `more`: it is dealt with.
  Step control(const RecordKeys::Opened& opened, ByteView content);

  RecordKeys keys_;
  Bytes buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  bool filled_up_ = false;
  Bytes plain_;  // a record larger than its reader's memory waits here
  std::size_t plain_begin_ = 0;
  std::size_t plain_end_ = 0;
  std::size_t idle_ = 0;  // records without a byte for us that later content did not make good
  bool closed_ = false;
  bool update_requested_ = false;
  std::string error_;
  std::optional<Alert> alert_;
};

}  // namespace cumulus::wire
