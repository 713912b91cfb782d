// NBD negotiation and request checks as tables: what a client sends, what it gets.
#include <gtest/gtest.h>

#include "blockdev/image_header.h"
#include "blockdev/nbd/negotiation.h"
#include "blockdev/nbd/server.h"
#include "blockdev/nbd/transmission.h"

namespace cumulus::nbd {
namespace {

struct Answer {
  Option option;
  OptionReply type;
  std::string body;
};

class Client {
 public:
  explicit Client(TlsMode tls = TlsMode::off, std::uint32_t flags = 3) : server_(tls) {
    EXPECT_EQ(server_.output().size(), 18u);
    server_.output().clear();
    Bytes hello;
    append(hello, flags);
    last = feed(hello);
  }
  std::vector<Answer> send(Option option, const Bytes& body = {}) {
    Bytes bytes;
    append(bytes, kOptionMagic);
    append(bytes, static_cast<std::uint32_t>(option));
    append(bytes, static_cast<std::uint32_t>(body.size()));
    bytes.insert(bytes.end(), body.begin(), body.end());
    last = feed(bytes);
    return answers();
  }
  OptionReply reply_to(Option option, const Bytes& body = {}) {
    const auto all = send(option, body);
    EXPECT_FALSE(all.empty());
    return all.empty() ? OptionReply{} : all.back().type;
  }
  Negotiation::Next feed(ByteView bytes) {
    for (;;) {
      const auto next = server_.next(bytes);
      if (next == Negotiation::Next::look_up) {
        if (server_.wanted() == "disk") {
          server_.found(info);
        } else {
          server_.refused(Error(server_.wanted() == "busy" ? ErrorKind::exists : ErrorKind::not_found, "no"));
        }
        continue;
      }
      if (next == Negotiation::Next::list) {
        server_.listed({"disk", "disk@s"});
        continue;
      }
      if (next == Negotiation::Next::start_tls) server_.tls_started();
      return next;
    }
  }
  std::vector<Answer> answers() {
    std::vector<Answer> all;
    ByteView rest(server_.output());
    while (rest.size() >= 20 && load<std::uint64_t>(rest.data()) == kOptionReplyMagic) {
      const auto length = load<std::uint32_t>(rest.data() + 16);
      all.push_back({static_cast<Option>(load<std::uint32_t>(rest.data() + 8)),
                     static_cast<OptionReply>(load<std::uint32_t>(rest.data() + 12)),
                     std::string(text_of(rest.subspan(20, length)))});
      rest = rest.subspan(20 + length);
    }
    raw = Bytes(rest.begin(), rest.end());
    server_.output().clear();
    return all;
  }

  ExportInfo info{"disk", "a disk", 12345, false, 4096, {"s"}};
  Negotiation::Next last{};
  Bytes raw;
  Negotiation& server() { return server_; }

 private:
  Negotiation server_;
};

Bytes go(std::string_view name) {
  Bytes body;
  append(body, static_cast<std::uint32_t>(name.size()));
  append(body, name);
  append(body, std::uint16_t{0});
  return body;
}
Bytes meta(std::string_view name, std::vector<std::string_view> queries) {
  Bytes body;
  append(body, static_cast<std::uint32_t>(name.size()));
  append(body, name);
  append(body, static_cast<std::uint32_t>(queries.size()));
  for (const auto query : queries) {
    append(body, static_cast<std::uint32_t>(query.size()));
    append(body, query);
  }
  return body;
}

TEST(NbdNegotiation, GoTellsSizeFlagsAndBlockSizes) {
  Client client;
  EXPECT_EQ(client.reply_to(Option::structured_reply), OptionReply::ack);
  const auto all = client.send(Option::go, go("disk"));
  ASSERT_EQ(all.size(), 3u);
  const auto* body = view_of(all[0].body).data();
  EXPECT_EQ(load<std::uint64_t>(body + 2), 12345u);
  const auto flags = load<std::uint16_t>(body + 10);
  EXPECT_EQ(flags & (kHasFlags | kSendFlush | kSendFua | kCanMultiConn | kSendDf | kReadOnly),
            kHasFlags | kSendFlush | kSendFua | kCanMultiConn | kSendDf);
  body = view_of(all[1].body).data();
  EXPECT_EQ(load<std::uint32_t>(body + 2), 1u);
  EXPECT_EQ(load<std::uint32_t>(body + 6), 4096u);
  EXPECT_EQ(load<std::uint32_t>(body + 10), 32u << 20);
  EXPECT_EQ(client.last, Negotiation::Next::serve);
}

TEST(NbdNegotiation, ReadOnlyExportsOfferNoChanges) {
  ExportInfo info;
  info.read_only = true;
  const auto flags = Negotiation::transmission_flags(info, false);
  EXPECT_NE(flags & kReadOnly, 0);
  EXPECT_EQ(flags & (kSendTrim | kSendWriteZeroes | kSendFastZero | kSendDf), 0);
}

TEST(NbdNegotiation, OldExportNameHasZeroesUnlessAgreedOtherwise) {
  for (const std::uint32_t flags : {1u, 3u}) {
    Client client(TlsMode::off, flags);
    const std::string_view name = "disk";
    EXPECT_TRUE(client.send(Option::export_name, Bytes(name.begin(), name.end())).empty());
    EXPECT_EQ(client.raw.size(), flags == 1 ? 10u + 124u : 10u);
    EXPECT_EQ(client.last, Negotiation::Next::serve);
  }
  Client client;
  client.send(Option::export_name, Bytes{'x'});
  EXPECT_EQ(client.last, Negotiation::Next::close);
}

TEST(NbdNegotiation, ErrorsAreTheOnesTheProtocolNames) {
  Client client;
  EXPECT_EQ(client.reply_to(Option::go, go("nothing")), OptionReply::unknown);
  EXPECT_EQ(client.reply_to(Option::go, go("busy")), OptionReply::policy);
  EXPECT_EQ(client.reply_to(Option::go, Bytes(3)), OptionReply::invalid);
  EXPECT_EQ(client.reply_to(Option::info, Bytes(5)), OptionReply::invalid);
  Bytes lying = go("disk");
  lying[3] = 200;
  EXPECT_EQ(client.reply_to(Option::go, lying), OptionReply::invalid);
  EXPECT_EQ(client.reply_to(Option::list, Bytes(1)), OptionReply::invalid);
  EXPECT_EQ(client.reply_to(Option::structured_reply, Bytes(1)), OptionReply::invalid);
  EXPECT_EQ(client.reply_to(static_cast<Option>(99)), OptionReply::unsupported);
  EXPECT_EQ(client.reply_to(Option::starttls), OptionReply::policy);
  EXPECT_EQ(client.reply_to(Option::set_meta_context, meta("disk", {"base:allocation"})),
            OptionReply::invalid);
  EXPECT_EQ(client.reply_to(Option::go, Bytes(Negotiation::kOptionMax + 1)), OptionReply::too_big);
  EXPECT_EQ(client.reply_to(Option::go, go(std::string(kNameMax + 1, 'x'))), OptionReply::too_big);
  EXPECT_EQ(client.reply_to(Option::abort), OptionReply::ack);
  EXPECT_EQ(client.last, Negotiation::Next::close);
}

TEST(NbdNegotiation, NonsenseCloses) {
  EXPECT_EQ(Client(TlsMode::off, 0).last, Negotiation::Next::close);
  EXPECT_EQ(Client(TlsMode::off, 7).last, Negotiation::Next::close);
  Client magic;
  EXPECT_EQ(magic.feed(Bytes(16)), Negotiation::Next::close);
  Client endless;
  Bytes huge;
  append(huge, kOptionMagic);
  append(huge, std::uint32_t{7});
  append(huge, std::uint32_t{0xffffffff});
  EXPECT_EQ(endless.feed(huge), Negotiation::Next::close);
  Client patient;
  for (unsigned i = 0; i < Negotiation::kOptionsMax; ++i) patient.send(Option::list);
  EXPECT_EQ(patient.last, Negotiation::Next::need_bytes);
  patient.send(Option::list);
  EXPECT_EQ(patient.last, Negotiation::Next::close);
}

TEST(NbdNegotiation, ContextsAreListedBelowAndSetExactly) {
  Client client;
  client.send(Option::structured_reply);
  EXPECT_EQ(client.send(Option::list_meta_context, meta("disk", {})).size(), 4u);
  EXPECT_EQ(client.send(Option::list_meta_context, meta("disk", {"base:"})).size(), 2u);
  EXPECT_EQ(client.send(Option::set_meta_context, meta("disk", {"base:"})).size(), 1u);
  EXPECT_EQ(client
                .send(Option::set_meta_context,
                      meta("disk", {"qemu:dirty-bitmap:s", "cumulus:changed-since:s", "other:x"}))
                .size(),
            3u);
  client.send(Option::go, go("disk"));
  ASSERT_EQ(client.server().contexts().size(), 2u);
  EXPECT_EQ(client.server().contexts()[0].snapshot, "s");
}

TEST(NbdNegotiation, ContextsOfAnotherExportAreDropped) {
  Client client;
  client.send(Option::structured_reply);
  client.send(Option::set_meta_context, meta("disk", {"base:allocation"}));
  client.send(Option::set_meta_context, meta("nothing", {"base:allocation"}));
  client.send(Option::go, go("disk"));
  EXPECT_TRUE(client.server().contexts().empty());
}

TEST(NbdNegotiation, TlsComesFirstAndForgetsWhatCameBefore) {
  Client client(TlsMode::required);
  EXPECT_EQ(client.reply_to(Option::list), OptionReply::tls_required);
  EXPECT_EQ(client.reply_to(Option::go, go("disk")), OptionReply::tls_required);
  EXPECT_EQ(client.reply_to(Option::starttls), OptionReply::ack);
  EXPECT_EQ(client.last, Negotiation::Next::start_tls);
  EXPECT_EQ(client.reply_to(Option::starttls), OptionReply::invalid);
  EXPECT_EQ(client.reply_to(Option::go, go("disk")), OptionReply::ack);
  Client plain(TlsMode::required);
  plain.send(Option::export_name, Bytes{'d', 'i', 's', 'k'});
  EXPECT_EQ(plain.last, Negotiation::Next::close);
}

TEST(NbdNegotiation, ExtendedHeadersStandForStructuredReplies) {
  Client client;
  EXPECT_EQ(client.reply_to(Option::extended_headers), OptionReply::ack);
  EXPECT_EQ(client.reply_to(Option::structured_reply), OptionReply::extended_headers_required);
  EXPECT_EQ(client.reply_to(Option::extended_headers), OptionReply::invalid);
  client.send(Option::go, go("disk"));
  EXPECT_TRUE(client.server().extended() && client.server().structured());
}

TEST(NbdTransmission, RequestsAreCheckedBeforeTheDevice) {
  const DeviceShape plain{1000, false, true, false, false};
  const DeviceShape sealed{1000, true, true, false, true};
  const DeviceShape extended{1000, false, true, true, true};
  const DeviceShape large{std::uint64_t{1} << 40, false, true, true, true};
  struct Row {
    DeviceShape shape;
    Command command;
    std::uint16_t flags;
    std::uint64_t offset, length;
    Code code;
  };
  const std::vector<Row> rows = {
      {plain, Command::read, 0, 0, 1000, Code::ok},
      {plain, Command::read, 0, 1, 1000, Code::einval},
      {plain, Command::read, 0, ~std::uint64_t{0}, 2, Code::einval},
      {plain, Command::read, 0, 0, 0, Code::einval},
      {plain, Command::read, kDf, 0, 1, Code::ok},
      {plain, Command::read, kNoHole, 0, 1, Code::einval},
      {plain, Command::write, kFua, 999, 1, Code::ok},
      {plain, Command::write, 0, 999, 2, Code::enospc},
      {plain, Command::write, kDf, 0, 1, Code::einval},
      {plain, Command::write_zeroes, kFua | kNoHole | kFastZero, 0, 1000, Code::ok},
      {plain, Command::write_zeroes, 0, 1, 1000, Code::enospc},
      {plain, Command::trim, kFua, 0, 1000, Code::ok},
      {plain, Command::trim, 0, 0, 1001, Code::einval},
      {plain, Command::flush, 0, 0, 0, Code::ok},
      {plain, Command::flush, 0, 0, 1, Code::einval},
      {plain, Command::block_status, 0, 0, 1, Code::einval},
      {sealed, Command::block_status, kReqOne, 0, 1, Code::ok},
      {sealed, Command::write, 0, 0, 1, Code::eperm},
      {sealed, Command::trim, 0, 0, 1, Code::eperm},
      {sealed, Command::write_zeroes, 0, 0, 1, Code::eperm},
      {sealed, Command::cache, 0, 0, 1, Code::ok},
      {plain, static_cast<Command>(77), 0, 0, 1, Code::einval},
      {plain, Command::read, 0x8000, 0, 1, Code::einval},
      {extended, Command::write, kPayloadLength, 0, 1, Code::ok},
      {extended, Command::write, 0, 0, 1, Code::einval},
      {extended, Command::read, kPayloadLength, 0, 1, Code::einval},
      {large, Command::read, 0, 0, kPayloadMax, Code::ok},
      {large, Command::read, 0, 0, kPayloadMax + 1, Code::einval},
      {large, Command::write, kPayloadLength, 0, kPayloadMax + 1, Code::einval},
      {large, Command::trim, 0, 0, kPayloadMax + 1, Code::ok},
      {large, Command::write_zeroes, 0, 0, std::uint64_t{1} << 40, Code::ok},
  };
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Request request{rows[i].command, rows[i].flags, 1, rows[i].offset, rows[i].length};
    EXPECT_EQ(check_request(request, rows[i].shape), rows[i].code) << "row " << i;
  }
}

TEST(NbdAllowList, MatchesPrefixes) {
  AllowList list;
  std::array<std::uint8_t, 16> inside{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3};
  std::array<std::uint8_t, 16> outside{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 11, 1, 2, 3};
  EXPECT_TRUE(list.allows(outside));
  EXPECT_TRUE(list.add("10.0.0.0/8"));
  EXPECT_TRUE(list.allows(inside));
  EXPECT_FALSE(list.allows(outside));
  EXPECT_TRUE(list.add("11.1.2.3"));
  EXPECT_TRUE(list.allows(outside));
  for (const char* bad : {"", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "::1/129", "x", "10.0.0.0/8x"})
    EXPECT_FALSE(list.add(bad)) << bad;
}

TEST(ImageHeaderFormat, IsWhatFormatMdShows) {
  ImageHeader header;
  header.created_at = 1;
  EXPECT_EQ(to_hex(header.encode()), "4344534b0100000000010000000000000000100000");
  const auto back = ImageHeader::decode(header.encode());
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, header);
  Bytes bytes = header.encode();
  bytes[5] = 1;
  EXPECT_EQ(ImageHeader::decode(bytes).error().kind(), ErrorKind::unsupported);
  bytes = header.encode();
  bytes.pop_back();
  EXPECT_EQ(ImageHeader::decode(bytes).error().kind(), ErrorKind::corrupt);
}

}  // namespace
}  // namespace cumulus::nbd
