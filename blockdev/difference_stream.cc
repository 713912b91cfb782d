#include "blockdev/difference_stream.h"

#include <algorithm>

#include "blockdev/image_header.h"
#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"
#include "objectstore/crypto/digest.h"

namespace cumulus {
namespace {

constexpr std::string_view kMagic = "CDIF";
constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kNameMax = 255;

using Kind = DifferenceFrame::Kind;

std::unexpected<Error> damaged(const char* what) {
  return fail(ErrorKind::corrupt,
              std::string("the stream of differences ") + what + ": it was cut or damaged; export it again");
}

DifferenceCheck check_of(ByteView before, ByteView bytes) {
  Sha256 hash;
  hash.update(before);
  hash.update(bytes);
  const Digest whole = hash.finish();
  DifferenceCheck check;
  std::copy_n(whole.begin(), check.size(), check.begin());
  return check;
}

void put_identity(Encoder& out, const SnapshotIdentity& identity) {
  out.bytes(identity.volume.view());
  out.u32(identity.dataset);
  out.u64(identity.version);
  out.u64(static_cast<std::uint64_t>(identity.created_at));
  out.text(identity.name);
}

SnapshotIdentity take_identity(Decoder& in) {
  SnapshotIdentity identity;
  identity.volume.bytes = in.array<32>();
  identity.dataset = in.u32();
  identity.version = in.u64();
  identity.created_at = static_cast<WallTime>(in.u64());
  identity.name = in.text(kNameMax);
  if (identity.name.empty()) in.mark_bad();
  return identity;
}

DifferenceHeader take_header(Decoder& in) {
  DifferenceHeader header;
  const std::uint8_t has_base = in.u8();
  if (has_base > 1) in.mark_bad();
  if (has_base == 1) header.base = take_identity(in);
  header.end = take_identity(in);
  header.size = in.u64();
  if (header.size == 0 || header.size > kImageSizeMax) in.mark_bad();
  return header;
}

}  // namespace

Bytes encode_identity(const SnapshotIdentity& identity) {
  Bytes bytes;
  Encoder out(bytes);
  put_identity(out, identity);
  return bytes;
}

Result<SnapshotIdentity> decode_identity(ByteView bytes) {
  Decoder in(bytes);
  SnapshotIdentity identity = take_identity(in);
  if (!in.done()) return fail(ErrorKind::corrupt, "a snapshot's identity is damaged");
  return identity;
}

void DifferenceWriter::frame(Bytes& out, ByteView body) {
  CHECK(body.size() <= kDifferenceBody);
  check_ = check_of(check_, body);
  Encoder to(out);
  to.u32(static_cast<std::uint32_t>(body.size()));
  to.bytes(body);
  to.bytes(check_);
  ++frames_;
}

void DifferenceWriter::preamble(Bytes& out) {
  Bytes bytes;
  Encoder to(bytes);
  to.bytes(view_of(kMagic));
  to.u8(kVersion);
  to.u32(0);
  check_ = check_of({}, bytes);
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void DifferenceWriter::begin(Bytes& out, const DifferenceHeader& header) {
  preamble(out);
  Bytes body;
  Encoder to(body);
  to.u8(static_cast<std::uint8_t>(Kind::header));
  to.u8(header.base ? 1 : 0);
  if (header.base) put_identity(to, *header.base);
  put_identity(to, header.end);
  to.u64(header.size);
  frame(out, body);
}

void DifferenceWriter::data(Bytes& out, std::uint64_t offset, ByteView bytes) {
  CHECK(!bytes.empty() && bytes.size() <= kDifferenceData);
  Bytes body;
  body.reserve(bytes.size() + 16);
  Encoder to(body);
  to.u8(static_cast<std::uint8_t>(Kind::data));
  to.u64(offset);
  to.bytes(bytes);
  frame(out, body);
}

void DifferenceWriter::zero(Bytes& out, std::uint64_t offset, std::uint64_t length) {
  Bytes body;
  Encoder to(body);
  to.u8(static_cast<std::uint8_t>(Kind::zero));
  to.u64(offset);
  to.u64(length);
  frame(out, body);
}

void DifferenceWriter::end(Bytes& out) {
  Bytes body;
  Encoder to(body);
  to.u8(static_cast<std::uint8_t>(Kind::end));
  to.u64(frames_);
  frame(out, body);
}

Status DifferenceReader::begin(ByteView preamble) {
  Decoder in(preamble);
  if (text_of(in.bytes(kMagic.size())) != kMagic)
    return fail(ErrorKind::corrupt, "this is no stream of differences: give what 'snapshot export' wrote");
  const std::uint8_t version = in.u8();
  const std::uint32_t features = in.u32();
  if (!in.done()) return damaged("has a wrong beginning");
  if (version != kVersion || features != 0)
    return fail(ErrorKind::unsupported, "the stream of differences was written by a newer program");
  check_ = check_of({}, preamble);
  return {};
}

Result<std::size_t> DifferenceReader::frame_size(ByteView length) const {
  Decoder in(length);
  const std::uint32_t size = in.u32();
  if (!in.done() || size == 0 || size > kDifferenceBody) return damaged("has a part of impossible length");
  return size + kDifferenceCheck;
}

Result<DifferenceFrame> DifferenceReader::accept(ByteView whole) {
  if (whole.size() <= kDifferenceCheck || ended_) return damaged("goes on behind its end");
  const ByteView body = whole.first(whole.size() - kDifferenceCheck);
  const DifferenceCheck expected = check_of(check_, body);
  if (!equal(expected, whole.last(kDifferenceCheck))) return damaged("does not verify");
  Decoder in(body);
  DifferenceFrame frame;
  const std::uint8_t kind = in.u8();
  if (kind < 1 || kind > 4) return fail(ErrorKind::unsupported, "the stream has a part of an unknown kind");
  frame.kind = static_cast<Kind>(kind);
  std::uint64_t count = frames_;
  if (frame.kind == Kind::header) frame.header = take_header(in);
  if (frame.kind == Kind::data || frame.kind == Kind::zero) frame.offset = in.u64();
  if (frame.kind == Kind::zero) frame.length = in.u64();
  if (frame.kind == Kind::data) {
    frame.data = in.bytes(in.remaining());
    frame.length = frame.data.size();
  }
  if (frame.kind == Kind::end) count = in.u64();
  if (!in.done() || count != frames_) return damaged("has a malformed part");
  TRY_OK(in_order(frame));
  check_ = expected;
  ++frames_;
  return frame;
}

Status DifferenceReader::in_order(const DifferenceFrame& frame) {
  if ((frame.kind == Kind::header) == begun_) return damaged("is out of order");
  if (frame.kind == Kind::header) size_ = frame.header.size;
  if (frame.kind == Kind::data || frame.kind == Kind::zero) {
    if (frame.length == 0 || frame.offset < reached_ || frame.offset > size_ ||
        frame.length > size_ - frame.offset)
      return damaged("leaves the disk");
    reached_ = frame.offset + frame.length;
  }
  begun_ = true;
  ended_ = frame.kind == Kind::end;
  return {};
}

}  // namespace cumulus
