// Negotiation: the option haggling of fixed newstyle NBD, without I/O. Bytes in; bytes and the next step out.
// The driver (connection.cc) looks exports up, wraps the stream in TLS, and starts transmission. Pure; any
// thread.
//
//   state      next()            driver then
//   reading    need_bytes        feeds more
//   looking    look_up           found() or refused(), then next() again
//   listing    list              listed(), then next() again
//   tls        start_tls         TLS on the stream, then tls_started(); bytes that came before it are refused
//   serving    serve             transmission, with export_name() and contexts()
//   closed     close             sends what is in output(), closes
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "blockdev/nbd/protocol.h"
#include "objectstore/base/result.h"

namespace cumulus::nbd {

// What a client is told of an export.
struct ExportInfo {
  std::string name;
  std::string description;
  std::uint64_t size = 0;
  bool read_only = false;
  std::uint32_t block_preferred = 4096;
  std::vector<std::string> snapshots;  // changed-since contexts exist for these
};

struct Context {
  enum class Kind : std::uint8_t { allocation, changed };
  std::uint32_t id = 0;
  Kind kind = Kind::allocation;
  std::string snapshot;
  std::string name;
};

enum class TlsMode : std::uint8_t { off, required };

class Negotiation {
 public:
  static constexpr std::size_t kOptionMax = 64 * 1024;     // longer ones are skipped and answered too_big
  static constexpr std::size_t kOptionSkipMax = 1u << 20;  // beyond it the connection is closed
  static constexpr unsigned kOptionsMax = 256;             // of one connection
  static constexpr std::size_t kContextsMax = 64;

  // The greeting stands in output() at once.
  explicit Negotiation(TlsMode tls);

  enum class Next : std::uint8_t { need_bytes, look_up, list, start_tls, serve, close };
  // Takes what it can from the front of `input` and returns what to do next.
  Next next(ByteView& input);
  Bytes& output() { return output_; }  // the driver sends and clears it

  const std::string& wanted() const { return name_; }  // look_up
  void found(const ExportInfo& info);
  // Why not: unknown for not_found, policy for the rest; the message goes to the client.
  void refused(const Error& error);
  void listed(const std::vector<std::string>& names);
  void tls_started();

  // Agreed, once next() said serve.
  const std::string& export_name() const { return name_; }
  bool structured() const { return structured_; }
  bool extended() const { return extended_; }
  const std::vector<Context>& contexts() const { return contexts_; }

  static std::uint16_t transmission_flags(const ExportInfo& info, bool structured);

 private:
  Next handle(ByteView body);
  Next handle_info(ByteView body);
  Next handle_meta(ByteView body);
  Next reply(OptionReply type, ByteView body = {});
  Next reply_text(OptionReply type, std::string_view text) { return reply(type, view_of(text)); }
  void reply_export(const ExportInfo& info);
  void reply_contexts(const ExportInfo& info);
  static std::vector<Context> offered(const ExportInfo& info);

  TlsMode tls_;
  bool encrypted_ = false;
  bool have_flags_ = false;
  bool no_zeroes_ = false;
  bool structured_ = false;
  bool extended_ = false;
  unsigned options_ = 0;
  std::size_t skip_ = 0;  // bytes of an option that is too long
  bool ended_ = false;
  bool serving_ = false;
  Option option_ = Option::abort;
  std::string name_;
  std::vector<std::uint16_t> infos_;
  std::vector<std::string> queries_;
  std::string contexts_for_;
  std::vector<Context> contexts_;
  Bytes output_;
};

}  // namespace cumulus::nbd
