// Every wire message and the frame's prelude: whatever bytes come, a parser refuses them or returns what
// encodes to the same bytes, within the limits. The first byte chooses the parser.
#include "netclient/wire/messages.h"
#include "objectstore/base/check.h"
#include "tests/fakes/sample_formats.h"

namespace cumulus::wire {
namespace {

template <class Message>
void try_parser(ByteView input) {
  const auto decoded = Message::decode(input);
  if (!decoded) return;
  Bytes again;
  decoded->encode(again);
  CHECK(equal(again, input));
}

using Parser = void (*)(ByteView);
constexpr Parser kParsers[] = {
    try_parser<Prelude>,        try_parser<HelloRequest>,  try_parser<HelloAnswer>,
    try_parser<Empty>,          try_parser<Goaway>,        try_parser<ErrorAnswer>,
    try_parser<PutRequest>,     try_parser<ReadRequest>,   try_parser<ReadAnswer>,
    try_parser<ListRequest>,    try_parser<ListAnswer>,    try_parser<HaveRequest>,
    try_parser<HaveAnswer>,     try_parser<RemoveRequest>, try_parser<ChallengeRequest>,
    try_parser<PromiseRequest>, try_parser<AcceptRequest>, try_parser<HolderMessage>,
    try_parser<StatusAnswer>,   try_parser<Grant>};

template <class Message>
std::vector<std::uint8_t> seed(std::uint8_t which, const Message& message) {
  std::vector<std::uint8_t> input{which};
  message.encode(input);
  return input;
}

}  // namespace
}  // namespace cumulus::wire

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cumulus::wire;
  if (size > 0) kParsers[data[0] % std::size(kParsers)]({data + 1, size - 1});
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds();
std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  using namespace cumulus;
  using namespace cumulus::wire;
  Grant grant;
  grant.volume = sample_volume();
  sign_grant(grant, sample_key());
  HelloRequest hello;
  hello.grant = grant;
  hello.software = "cumulus";
  const Bytes some(200, 7);
  const SliceId slice{{SegmentKind::log, 1, 7}, 2};
  StatusAnswer status;
  status.status.version = "1";
  return {seed(0, Prelude{}),
          seed(1, hello),
          seed(2, HelloAnswer{}),
          seed(3, Empty{}),
          seed(4, Goaway{"bye"}),
          seed(5, ErrorAnswer{ErrorKind::io, "disk"}),
          seed(6, PutRequest{slice, some}),
          seed(7, ReadRequest{slice, true, true, {{0, 5}, {4096, 9}}}),
          seed(8, ReadAnswer{{{{0, 4096}, some}}, some}),
          seed(9, ListRequest{100, ByteView(some).first(19)}),
          seed(10, ListAnswer{{{1, some}, {2, some}}, ByteView(some).first(19)}),
          seed(11, HaveRequest{{slice, slice}}),
          seed(12, HaveAnswer{{Digest{}, std::nullopt}}),
          seed(13, RemoveRequest{{slice}}),
          seed(14, ChallengeRequest{slice, 300}),
          seed(15, PromiseRequest{some}),
          seed(16, AcceptRequest{some}),
          seed(17, HolderMessage{true, some}),
          seed(18, status),
          seed(19, grant)};
}
