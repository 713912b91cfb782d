// NBD negotiation and request headers: whatever a client sends, in whatever pieces, the state machine
// answers, ends or asks for more; its answer does not depend on how the bytes were cut; its output stays
// bounded by what came in.
#include <vector>

#include "blockdev/nbd/negotiation.h"
#include "blockdev/nbd/transmission.h"
#include "objectstore/base/check.h"

namespace {

using namespace cumulus;
using namespace cumulus::nbd;

Bytes talk(ByteView bytes, std::size_t step, TlsMode tls, bool& served) {
  Negotiation negotiation(tls);
  Bytes all;
  Bytes held;
  ExportInfo info;
  info.name = "disk";
  info.size = 1u << 20;
  info.snapshots = {"a", "b"};
  bool encrypted = false;
  for (std::size_t at = 0;;) {
    ByteView rest(held);
    const auto next = negotiation.next(rest);
    held = Bytes(rest.begin(), rest.end());
    if (next == Negotiation::Next::look_up) {
      if (negotiation.wanted() == "disk" || negotiation.wanted().empty()) {
        negotiation.found(info);
      } else {
        negotiation.refused(Error(ErrorKind::not_found, "no such export"));
      }
    }
    if (next == Negotiation::Next::list) negotiation.listed({"disk", "disk@a"});
    all.insert(all.end(), negotiation.output().begin(), negotiation.output().end());
    negotiation.output().clear();
    if (next == Negotiation::Next::start_tls) {
      CHECK(tls == TlsMode::required && !encrypted);
      encrypted = true;
      negotiation.tls_started();
    }
    if (next == Negotiation::Next::serve) {
      served = true;
      CHECK(tls == TlsMode::off || encrypted);
      CHECK(negotiation.structured() || negotiation.contexts().empty());
      break;
    }
    if (next == Negotiation::Next::close) break;
    if (next != Negotiation::Next::need_bytes) continue;
    if (at == bytes.size()) break;
    const std::size_t part = std::min(step, bytes.size() - at);
    held.insert(held.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at),
                bytes.begin() + static_cast<std::ptrdiff_t>(at + part));
    at += part;
    CHECK(held.size() <= Negotiation::kOptionMax + 16 + step);
  }
  return all;
}

void option(Bytes& to, Option option, const Bytes& body) {
  append(to, kOptionMagic);
  append(to, static_cast<std::uint32_t>(option));
  append(to, static_cast<std::uint32_t>(body.size()));
  to.insert(to.end(), body.begin(), body.end());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView bytes(data, size);
  for (const TlsMode tls : {TlsMode::off, TlsMode::required}) {
    bool whole_served = false;
    bool cut_served = false;
    const Bytes whole = talk(bytes, size + 1, tls, whole_served);
    const Bytes cut = talk(bytes, 7, tls, cut_served);
    CHECK(whole == cut && whole_served == cut_served);
    CHECK(whole.size() <= 256 + size * 32 + Negotiation::kOptionsMax * 512);
  }
  for (const bool extended : {false, true}) {
    if (size < request_size(extended)) continue;
    const auto request = parse_request(bytes.first(request_size(extended)), extended);
    if (!request) continue;
    for (const bool read_only : {false, true}) {
      const DeviceShape shape{1u << 20, read_only, true, extended, true};
      if (check_request(*request, shape) != Code::ok) continue;
      const bool ranged = request->command != Command::flush && request->command != Command::disconnect;
      CHECK(!ranged || (request->length > 0 && request->offset + request->length <= shape.size));
    }
  }
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds();
std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  Bytes go;
  append(go, std::uint32_t{4});
  append(go, std::string_view("disk"));
  append(go, std::uint16_t{1});
  append(go, std::uint16_t{3});
  Bytes meta;
  append(meta, std::uint32_t{4});
  append(meta, std::string_view("disk"));
  append(meta, std::uint32_t{1});
  append(meta, std::uint32_t{15});
  append(meta, std::string_view("base:allocation"));
  std::vector<Bytes> seeds;
  for (const bool tls : {false, true}) {
    Bytes one;
    append(one, std::uint32_t{3});
    if (tls) option(one, Option::starttls, {});
    option(one, Option::structured_reply, {});
    option(one, Option::extended_headers, {});
    option(one, Option::list, {});
    option(one, Option::list_meta_context, meta);
    option(one, Option::set_meta_context, meta);
    option(one, Option::info, go);
    option(one, Option::go, go);
    seeds.push_back(one);
  }
  for (const bool extended : {false, true}) {
    Bytes request;
    append(request, extended ? kExtendedRequestMagic : kRequestMagic);
    append(request, std::uint32_t{0});
    append(request, std::uint64_t{7});
    append(request, std::uint64_t{4096});
    if (extended) append(request, std::uint32_t{0});
    append(request, std::uint32_t{512});
    seeds.push_back(request);
  }
  return seeds;
}
