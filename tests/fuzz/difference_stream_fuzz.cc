// A stream of differences from bytes: never a crash; what a reader accepts stays inside the disk and in
// order. Half of the inputs are the bodies of frames, whose checks are put right, because no mutation would
// find them.
#include <algorithm>
#include <vector>

#include "blockdev/difference_stream.h"
#include "objectstore/base/check.h"

namespace {
using namespace cumulus;

ByteView take(ByteView& in, std::size_t count) {
  const ByteView part = in.first(std::min(count, in.size()));
  in = in.subspan(part.size());
  return part;
}

void read_stream(ByteView in) {
  DifferenceReader reader;
  if (!reader.begin(take(in, kDifferencePreamble))) return;
  std::uint64_t reached = 0;
  std::uint64_t disk = 0;
  while (!in.empty()) {
    const auto length = reader.frame_size(take(in, kDifferenceLength));
    if (!length) return;
    const auto frame = reader.accept(take(in, *length));
    if (!frame) return;
    if (frame->kind == DifferenceFrame::Kind::header) disk = frame->header.size;
    CHECK(frame->length == 0 || frame->offset >= reached);
    CHECK(frame->offset <= disk && frame->length <= disk - frame->offset);
    if (frame->length != 0) reached = frame->offset + frame->length;
  }
}

std::vector<std::uint8_t> seed(std::uint8_t kind, bool based) {
  DifferenceHeader header;
  header.end.name = "b";
  header.size = 1u << 20;
  if (based) header.base = header.end;
  Bytes out;
  DifferenceWriter writer;
  writer.begin(out, header);
  writer.data(out, 4096, Bytes(100, 7));
  writer.zero(out, 8192, 4096);
  writer.end(out);
  if (kind == 1) {  // each frame as its length in one byte and its body
    Bytes bodies;
    for (std::size_t at = kDifferencePreamble; at < out.size();) {
      const std::size_t length = out[at] + 256u * out[at + 1];
      bodies.push_back(static_cast<std::uint8_t>(length));
      bodies.insert(bodies.end(), out.begin() + static_cast<std::ptrdiff_t>(at + kDifferenceLength),
                    out.begin() + static_cast<std::ptrdiff_t>(at + kDifferenceLength + length));
      at += kDifferenceLength + length + kDifferenceCheck;
    }
    out = std::move(bodies);
  }
  out.insert(out.begin(), kind);
  return out;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  ByteView in(data + 1, size - 1);
  if (data[0] % 2 == 0) {
    read_stream(in);
    return 0;
  }
  Bytes stream;
  DifferenceWriter writer;
  writer.preamble(stream);
  while (!in.empty()) {
    const std::size_t length = take(in, 1)[0];
    writer.frame(stream, take(in, length));
  }
  read_stream(stream);
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  return {seed(0, false), seed(0, true), seed(1, false), seed(1, true)};
}
