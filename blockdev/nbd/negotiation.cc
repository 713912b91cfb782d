#include "blockdev/nbd/negotiation.h"

#include <algorithm>

#include "objectstore/base/check.h"

namespace cumulus::nbd {
namespace {

constexpr std::string_view kChangedPrefix = "cumulus:changed-since:";
constexpr std::string_view kBitmapPrefix = "qemu:dirty-bitmap:";

// Reads big-endian fields; the first that is not there sticks.
class Fields {
 public:
  explicit Fields(ByteView body) : body_(body) {}
  template <class T>
  T number() {
    const ByteView raw = take(sizeof(T));
    return ok_ ? load<T>(raw.data()) : T{};
  }
  std::string text(std::size_t length) { return std::string(text_of(take(length))); }
  bool done() const { return ok_ && body_.empty(); }
  bool ok() const { return ok_; }
  std::size_t left() const { return body_.size(); }

 private:
  ByteView take(std::size_t length) {
    if (!ok_ || length > body_.size()) {
      ok_ = false;
      return {};
    }
    const ByteView part = body_.first(length);
    body_ = body_.subspan(length);
    return part;
  }
  ByteView body_;
  bool ok_ = true;
};

}  // namespace

Negotiation::Negotiation(TlsMode tls) : tls_(tls) {
  append(output_, kGreeting);
  append(output_, kOptionMagic);
  append(output_, static_cast<std::uint16_t>(kFixedNewstyle | kNoZeroes));
}

Negotiation::Next Negotiation::next(ByteView& input) {
  if (ended_) return Next::close;
  if (serving_) return Next::serve;
  const auto closed = [this] {
    ended_ = true;
    return Next::close;
  };
  if (!have_flags_) {
    if (input.size() < 4) return Next::need_bytes;
    const auto flags = load<std::uint32_t>(input.data());
    input = input.subspan(4);
    if ((flags & ~std::uint32_t{kFixedNewstyle | kNoZeroes}) != 0 || (flags & kFixedNewstyle) == 0)
      return closed();
    no_zeroes_ = (flags & kNoZeroes) != 0;
    have_flags_ = true;
  }
  for (;;) {
    if (skip_ > 0) {
      const std::size_t part = std::min(skip_, input.size());
      input = input.subspan(part);
      skip_ -= part;
      if (skip_ > 0) return Next::need_bytes;
      reply_text(OptionReply::too_big, "the option is too long");
    }
    if (input.size() < 16) return Next::need_bytes;
    if (load<std::uint64_t>(input.data()) != kOptionMagic) return closed();
    option_ = static_cast<Option>(load<std::uint32_t>(input.data() + 8));
    const auto length = load<std::uint32_t>(input.data() + 12);
    if (length > kOptionSkipMax || (length > kOptionMax && option_ == Option::export_name)) return closed();
    if (length <= kOptionMax && input.size() - 16 < length) return Next::need_bytes;
    if (++options_ > kOptionsMax) return closed();
    input = input.subspan(16);
    if (length > kOptionMax) {
      skip_ = length;
      continue;
    }
    const ByteView body = input.first(length);
    input = input.subspan(length);
    const Next then = handle(body);
    if (then == Next::close) return closed();
    if (then != Next::need_bytes) return then;
  }
}

Negotiation::Next Negotiation::reply(OptionReply type, ByteView body) {
  append(output_, kOptionReplyMagic);
  append(output_, static_cast<std::uint32_t>(option_));
  append(output_, static_cast<std::uint32_t>(type));
  append(output_, static_cast<std::uint32_t>(body.size()));
  append(output_, text_of(body));
  return Next::need_bytes;
}

Negotiation::Next Negotiation::handle(ByteView body) {
  if (tls_ == TlsMode::required && !encrypted_ && option_ != Option::starttls && option_ != Option::abort) {
    if (option_ == Option::export_name) return Next::close;
    return reply_text(OptionReply::tls_required, "this server wants TLS");
  }
  const auto bare = [&](Next good) {
    return body.empty() ? good : reply_text(OptionReply::invalid, "this option carries no data");
  };
  switch (option_) {
    case Option::export_name:
      if (body.size() > kNameMax) return Next::close;
      name_ = text_of(body);
      return Next::look_up;
    case Option::abort:
      reply(OptionReply::ack);
      return Next::close;
    case Option::list:
      return bare(Next::list);
    case Option::starttls:
      if (!body.empty()) return bare(Next::need_bytes);
      if (tls_ == TlsMode::off) return reply_text(OptionReply::policy, "TLS is not configured here");
      if (encrypted_) return reply_text(OptionReply::invalid, "TLS is on already");
      reply(OptionReply::ack);
      return Next::start_tls;
    case Option::structured_reply:
      if (!body.empty()) return bare(Next::need_bytes);
      if (extended_) return reply_text(OptionReply::extended_headers_required, "extended headers are agreed");
      structured_ = true;
      return reply(OptionReply::ack);
    case Option::extended_headers:
      if (!body.empty()) return bare(Next::need_bytes);
      if (extended_) return reply_text(OptionReply::invalid, "extended headers are agreed already");
      structured_ = extended_ = true;
      contexts_.clear();
      return reply(OptionReply::ack);
    case Option::info:
    case Option::go:
      return handle_info(body);
    case Option::list_meta_context:
    case Option::set_meta_context:
      return handle_meta(body);
  }
  return reply_text(OptionReply::unsupported, "this option is not known here");
}

Negotiation::Next Negotiation::handle_info(ByteView body) {
  Fields in(body);
  const auto length = in.number<std::uint32_t>();
  if (in.ok() && length > kNameMax) return reply_text(OptionReply::too_big, "the name is too long");
  name_ = in.text(length);
  infos_.resize(in.number<std::uint16_t>());
  if (in.ok() && infos_.size() * 2 == in.left()) {
    for (std::uint16_t& info : infos_) info = in.number<std::uint16_t>();
    return Next::look_up;
  }
  return reply_text(OptionReply::invalid, "the option's lengths do not agree");
}

Negotiation::Next Negotiation::handle_meta(ByteView body) {
  if (option_ == Option::set_meta_context) contexts_.clear();
  if (!structured_) return reply_text(OptionReply::invalid, "agree on structured replies first");
  Fields in(body);
  const auto length = in.number<std::uint32_t>();
  if (in.ok() && length > kNameMax) return reply_text(OptionReply::too_big, "the name is too long");
  name_ = in.text(length);
  const auto count = in.number<std::uint32_t>();
  queries_.clear();
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
    const auto size = in.number<std::uint32_t>();
    if (in.ok() && size > kNameMax) return reply_text(OptionReply::too_big, "a context's name is too long");
    queries_.push_back(in.text(size));
  }
  if (!in.done()) return reply_text(OptionReply::invalid, "the option's lengths do not agree");
  return Next::look_up;
}

std::vector<Context> Negotiation::offered(const ExportInfo& info) {
  std::vector<Context> all;
  all.push_back({1, Context::Kind::allocation, "", "base:allocation"});
  std::uint32_t id = 2;
  for (const std::string& snapshot : info.snapshots) {
    all.push_back({id++, Context::Kind::changed, snapshot, std::string(kChangedPrefix) + snapshot});
    all.push_back({id++, Context::Kind::changed, snapshot, std::string(kBitmapPrefix) + snapshot});
  }
  return all;
}

void Negotiation::reply_contexts(const ExportInfo& info) {
  const bool set = option_ == Option::set_meta_context;
  const auto asked = [&](const Context& context) {
    if (!set && queries_.empty()) return true;
    return std::ranges::any_of(queries_, [&](const std::string& query) {
      if (query == context.name) return true;
      // "base:", "qemu:dirty-bitmap:" list everything below them.
      return !set && query.ends_with(':') && context.name.starts_with(query);
    });
  };
  std::vector<Context> chosen;
  for (Context& context : offered(info))
    if (chosen.size() < kContextsMax && asked(context)) chosen.push_back(std::move(context));
  for (const Context& context : chosen) {
    Bytes body;
    append(body, set ? context.id : std::uint32_t{0});
    append(body, context.name);
    reply(OptionReply::meta_context, body);
  }
  if (set) {
    contexts_ = std::move(chosen);
    contexts_for_ = name_;
  }
  reply(OptionReply::ack);
}

std::uint16_t Negotiation::transmission_flags(const ExportInfo& info, bool structured) {
  std::uint16_t flags = kHasFlags | kSendFlush | kSendFua | kCanMultiConn | kSendCache;
  if (info.read_only) flags |= kReadOnly;
  if (!info.read_only) flags |= kSendTrim | kSendWriteZeroes | kSendFastZero;
  if (structured) flags |= kSendDf;
  return flags;
}

void Negotiation::reply_export(const ExportInfo& info) {
  Bytes body;
  append(body, static_cast<std::uint16_t>(Info::export_));
  append(body, info.size);
  append(body, transmission_flags(info, structured_));
  reply(OptionReply::info, body);
  body.clear();
  append(body, static_cast<std::uint16_t>(Info::block_size));
  append(body, kBlockMin);
  append(body, info.block_preferred);
  append(body, kPayloadMax);
  reply(OptionReply::info, body);
  const auto tell = [&](Info what, const std::string& text) {
    if (text.empty() || std::ranges::find(infos_, static_cast<std::uint16_t>(what)) == infos_.end()) return;
    body.clear();
    append(body, static_cast<std::uint16_t>(what));
    append(body, text);
    reply(OptionReply::info, body);
  };
  tell(Info::name, info.name);
  tell(Info::description, info.description);
  reply(OptionReply::ack);
}

void Negotiation::found(const ExportInfo& info) {
  switch (option_) {
    case Option::export_name:
      append(output_, info.size);
      append(output_, transmission_flags(info, structured_));
      if (!no_zeroes_) output_.resize(output_.size() + 124);
      serving_ = true;
      break;
    case Option::go:
      reply_export(info);
      serving_ = true;
      break;
    case Option::info:
      reply_export(info);
      break;
    default:
      reply_contexts(info);
  }
  if (serving_ && contexts_for_ != name_) contexts_.clear();
}

void Negotiation::refused(const Error& error) {
  if (option_ == Option::export_name) {
    ended_ = true;  // this option has no way to say why
    return;
  }
  reply_text(error.kind() == ErrorKind::not_found ? OptionReply::unknown : OptionReply::policy,
             error.message().substr(0, kNameMax));
}

void Negotiation::listed(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    Bytes body;
    append(body, static_cast<std::uint32_t>(name.size()));
    append(body, name);
    reply(OptionReply::server, body);
  }
  reply(OptionReply::ack);
}

void Negotiation::tls_started() {
  CHECK(tls_ == TlsMode::required && !encrypted_);
  encrypted_ = true;
  // What was agreed in clear counts for nothing.
  structured_ = extended_ = false;
  contexts_.clear();
}

}  // namespace cumulus::nbd
