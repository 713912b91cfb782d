// The wire room: frames, messages and grants round-trip, strict parsers refuse everything else, limits hold,
// and PROTOCOL.md's worked example is what the code sends.
#include <gtest/gtest.h>

#include "netclient/wire/messages.h"
#include "tests/fakes/sample_formats.h"

namespace cumulus::wire {
namespace {

template <class Message>
Bytes encoded(const Message& message) {
  Bytes bytes;
  message.encode(bytes);
  return bytes;
}

// decode(encode(x)) encodes to the same bytes; every cut and one byte more are refused.
template <class Message>
void expect_strict(const Message& message) {
  const Bytes bytes = encoded(message);
  const auto decoded = Message::decode(bytes);
  ASSERT_TRUE(decoded) << decoded.error().message();
  EXPECT_EQ(encoded(*decoded), bytes);
  for (std::size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(Message::decode(ByteView(bytes).first(size))) << "cut at " << size;
  Bytes longer = bytes;
  longer.push_back(0);
  EXPECT_FALSE(Message::decode(longer));
}

SliceId slice(Sequence sequence = 7, std::uint16_t index = 2) {
  return {{SegmentKind::log, 1, sequence}, index};
}

Grant sample_grant() {
  Grant grant;
  grant.volume = sample_volume();
  grant.tls_public_key.fill(9);
  grant.not_after = 1000;
  sign_grant(grant, sample_key());
  return grant;
}

TEST(Prelude, RoundTrip) {
  Prelude prelude;
  prelude.type = MessageType::read;
  prelude.request_id = 77;
  prelude.header_length = 30;
  prelude.timeout_ms = 5000;
  prelude.epoch = 3;
  prelude.instance.bytes.fill(4);
  const Bytes bytes = encoded(prelude);
  ASSERT_EQ(bytes.size(), Prelude::kEncodedSize);
  ASSERT_TRUE(Prelude::decode(bytes));
  EXPECT_EQ(*Prelude::decode(bytes), prelude);
  EXPECT_FALSE(Prelude::decode(ByteView(bytes).first(47)));
}

TEST(Prelude, RefusesWhatIsNotAFrame) {
  Prelude prelude;
  prelude.type = MessageType::put;
  prelude.header_length = 100;
  prelude.payload_length = 4096;
  const Bytes good = encoded(prelude);
  ASSERT_TRUE(Prelude::decode(good));
  for (const std::size_t at : {0, 1, 2, 3, 6, 7}) {  // magic and reserved
    Bytes bytes = good;
    bytes[at] ^= 0x40;
    EXPECT_FALSE(Prelude::decode(bytes)) << at;
  }
  Bytes flags = good;
  flags[5] = 4;
  EXPECT_FALSE(Prelude::decode(flags));
  flags[5] = Prelude::kError;  // an error that answers nothing
  EXPECT_FALSE(Prelude::decode(flags));
}

TEST(Prelude, LimitsHoldForEachMessage) {
  const auto accepted = [](MessageType type, std::uint8_t flags, std::size_t header, std::size_t payload) {
    Prelude prelude;
    prelude.type = type;
    prelude.flags = flags;
    prelude.header_length = static_cast<std::uint32_t>(header);
    prelude.payload_length = static_cast<std::uint32_t>(payload);
    return Prelude::decode(encoded(prelude)).has_value();
  };
  EXPECT_TRUE(accepted(MessageType::put, 0, 100, kPayloadMax));
  EXPECT_FALSE(accepted(MessageType::put, 0, 100, kPayloadMax + 1));
  EXPECT_FALSE(accepted(MessageType::put, Prelude::kAnswer, 0, 1));
  EXPECT_TRUE(accepted(MessageType::read, Prelude::kAnswer, 100, kPayloadMax));
  EXPECT_FALSE(accepted(MessageType::read, 0, 100, 1));
  EXPECT_FALSE(accepted(MessageType::read, Prelude::kAnswer | Prelude::kError, 100, 1));
  EXPECT_TRUE(accepted(MessageType::list, Prelude::kAnswer, kHeaderMax, 0));
  EXPECT_FALSE(accepted(MessageType::list, Prelude::kAnswer, kHeaderMax + 1, 0));
  EXPECT_FALSE(accepted(MessageType::ping, 0, 1, 0));
  // Unknown requests can be skipped, within the limits of all.
  EXPECT_TRUE(accepted(static_cast<MessageType>(64), 0, kHeaderMax, kPayloadMax));
  EXPECT_FALSE(accepted(static_cast<MessageType>(64), 0, kHeaderMax + 1, 0));
  EXPECT_FALSE(known(static_cast<MessageType>(64)));
  EXPECT_TRUE(known(MessageType::status));
}

TEST(Messages, AreStrict) {
  HelloRequest hello;
  hello.grant = sample_grant();
  hello.software = "cumulus 0.1.0";
  expect_strict(hello);
  HelloAnswer hello_answer;
  hello_answer.software = "cumulus-miner 0.1.0";
  expect_strict(hello_answer);
  expect_strict(Goaway{"drain"});
  expect_strict(ErrorAnswer{ErrorKind::no_space, "full"});
  const Bytes some(300, 7);
  expect_strict(PutRequest{slice(), some});
  expect_strict(ReadRequest{slice(), true, true, {{0, 10}, {4096, 100'000}}});
  expect_strict(ReadAnswer{{{{0, 4096}, some}, {{8192, 100}, {}}}, some});
  ListRequest list;
  expect_strict(list);
  list.from = some;
  list.from = list.from->first(kCursorMax);
  expect_strict(list);
  expect_strict(ListAnswer{{{1, some}, {2, some}}, list.from});
  expect_strict(HaveRequest{{slice(1), slice(2)}});
  expect_strict(HaveAnswer{{Digest{}, std::nullopt}});
  expect_strict(RemoveRequest{{slice(1), slice(2)}});
  expect_strict(ChallengeRequest{slice(), 12});
  expect_strict(PromiseRequest{some.size() > 200 ? ByteView(some).first(200) : some});
  expect_strict(AcceptRequest{some});
  expect_strict(HolderMessage{true, some});
  StatusAnswer status;
  status.status.capacity = 100;
  status.status.read_only = true;
  status.status.version = "1";
  expect_strict(status);
}

TEST(Messages, LimitsHold) {
  EXPECT_FALSE(HaveRequest::decode(encoded(HaveRequest{})));  // of nothing
  EXPECT_FALSE(HaveRequest::decode(encoded(HaveRequest{std::vector<SliceId>(kBatchMax + 1, slice())})));
  EXPECT_TRUE(HaveRequest::decode(encoded(HaveRequest{std::vector<SliceId>(kBatchMax, slice())})));
  EXPECT_LE(encoded(HaveRequest{std::vector<SliceId>(kBatchMax, slice())}).size(),
            header_max(MessageType::have, false));
  EXPECT_LE(encoded(HaveAnswer{std::vector<std::optional<Digest>>(kBatchMax, Digest{})}).size(),
            header_max(MessageType::have, true));
  ReadRequest read{slice(), false, false, {}};
  EXPECT_FALSE(ReadRequest::decode(encoded(read)));  // of nothing
  read.ranges.assign(kReadRangesMax, {0, 1});
  EXPECT_TRUE(ReadRequest::decode(encoded(read)));
  read.ranges.push_back({0, 1});
  EXPECT_FALSE(ReadRequest::decode(encoded(read)));
  read.ranges = {{UINT64_MAX, 2}};
  EXPECT_FALSE(ReadRequest::decode(encoded(read)));
  read.ranges = {{0, kPayloadMax}, {0, 1}};
  EXPECT_FALSE(ReadRequest::decode(encoded(read)));
  ListRequest list;
  list.slices_max = kListSlicesMax + 1;
  EXPECT_FALSE(ListRequest::decode(encoded(list)));
  // A long error text is cut, not refused.
  const auto error = ErrorAnswer::decode(encoded(ErrorAnswer{ErrorKind::io, std::string(5000, 'x')}));
  ASSERT_TRUE(error);
  EXPECT_EQ(error->message.size(), kErrorTextMax);
}

TEST(Messages, EveryErrorKindTravels) {
  for (int kind = 0; kind <= static_cast<int>(ErrorKind::io); ++kind) {
    const auto decoded = ErrorAnswer::decode(encoded(ErrorAnswer{static_cast<ErrorKind>(kind), "x"}));
    ASSERT_TRUE(decoded) << kind;
    EXPECT_EQ(decoded->kind, static_cast<ErrorKind>(kind));
  }
}

TEST(Grant, VerifiesForItsBearerOnly) {
  const Grant grant = sample_grant();
  ASSERT_EQ(encoded(grant).size(), Grant::kEncodedSize);
  ASSERT_TRUE(Grant::decode(encoded(grant)));
  EXPECT_EQ(*Grant::decode(encoded(grant)), grant);
  EXPECT_TRUE(grant.verify(grant.tls_public_key, 1000));
  EXPECT_EQ(grant.verify(grant.tls_public_key, 1001).error().kind(), ErrorKind::denied);  // expired
  auto other = grant.tls_public_key;
  other[0] ^= 1;
  EXPECT_EQ(grant.verify(other, 0).error().kind(), ErrorKind::denied);
  Grant more = grant;
  more.not_after = 0;
  EXPECT_FALSE(more.verify(more.tls_public_key, 0));
  more = grant;
  sign_grant(more, sample_key(2));  // somebody else's signature
  EXPECT_FALSE(more.verify(more.tls_public_key, 0));
  more = grant;
  more.rights = 16;
  EXPECT_EQ(Grant::decode(encoded(more)).error().kind(), ErrorKind::unsupported);
}

// PROTOCOL.md, "Worked example".
TEST(Protocol, WorkedExample) {
  Prelude prelude;
  prelude.type = MessageType::read;
  prelude.request_id = 5;
  prelude.timeout_ms = 10'000;
  prelude.epoch = 1;
  prelude.instance.bytes.fill(0x11);
  const Bytes request = frame(prelude, ReadRequest{slice(), false, false, {{4096, 300}}});
  EXPECT_EQ(to_hex(request),
            "43554d311100000005000000190000000000000010270000"
            "010000000000000011111111111111111111111111111111"
            "0101000000000000000700000000000000020000018020ac02");
  Prelude back;
  back.type = MessageType::read;
  back.flags = Prelude::kAnswer;
  back.request_id = 5;
  const Bytes answer = frame(back, ReadAnswer{{{{4096, 300}, {}}}, {}}, 300);
  EXPECT_EQ(to_hex(answer),
            "43554d3111010000050000000700000"
            "02c01000000000000"
            "000000000000000000000000000000000000000000000000"
            "018020ac020000");
}

}  // namespace
}  // namespace cumulus::wire
