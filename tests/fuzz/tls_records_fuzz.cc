// TLS records as a peer may send them: the input is a list of records to seal (data in any size and padding,
// key changes, alerts, messages that have no place, damage) and says how their bytes arrive. What the reader
// gives is what was sealed before the first thing that it must refuse, and it refuses that.
#include <algorithm>

#include "netclient/wire/tls_records.h"
#include "objectstore/base/check.h"

namespace cumulus::wire {
namespace {

RecordKeys keys() {
  TrafficSecret secret(32);
  std::fill_n(secret.view().data(), secret.view().size(), std::uint8_t{1});
  return {TlsSuite::aes_128_gcm_sha256, std::move(secret)};
}

class Input {
 public:
  explicit Input(ByteView bytes) : rest_(bytes) {}
  bool empty() const { return rest_.empty(); }
  std::uint8_t byte() {
    if (rest_.empty()) return 0;
    const std::uint8_t first = rest_[0];
    rest_ = rest_.subspan(1);
    return first;
  }
  std::size_t size_to(std::size_t max) { return (std::size_t{byte()} << 8 | byte()) % (max + 1); }

 private:
  ByteView rest_;
};

struct Script {
  Bytes wire;
  Bytes content;  // what the reader must give, and what it must say at the end
  RecordReader::Step end = RecordReader::Step::more;
};

void append(Script& script, RecordKeys& out, std::uint8_t last, ByteView inner) {
  Bytes sealed(inner.size() + kRecordOverhead);
  out.seal(static_cast<RecordType>(last), inner, {}, sealed);
  script.wire.insert(script.wire.end(), sealed.begin(), sealed.end());
}

void add_record(Script& script, RecordKeys& out, Input& input) {
  const std::uint8_t what = input.byte();
  const bool idles = what % 8 != 0;
  if (what % 8 <= 1) {
    Bytes data(idles ? 0 : 1 + input.size_to(kRecordPlainMax - 1));
    for (std::size_t i = 0; i < data.size(); ++i)
      data[i] = static_cast<std::uint8_t>(31 * (i + script.content.size()));
    script.content.insert(script.content.end(), data.begin(), data.end());
    const std::size_t padding = std::min<std::size_t>(input.byte(), kRecordPlainMax - data.size());
    if (padding > 0) {
      data.push_back(static_cast<std::uint8_t>(RecordType::application_data));
      data.resize(data.size() + padding - 1);
    }
    append(script, out, padding > 0 ? 0 : static_cast<std::uint8_t>(RecordType::application_data), data);
  } else if (what % 8 == 2) {
    append(script, out, static_cast<std::uint8_t>(RecordType::handshake),
           Bytes{24, 0, 0, 1, input.byte() < 128});
    out.update();
  } else if (what % 8 == 3) {
    append(script, out, static_cast<std::uint8_t>(RecordType::alert), Bytes{1, 90});  // user_canceled
  } else if (what % 8 == 4) {
    append(script, out, static_cast<std::uint8_t>(RecordType::alert), Bytes{1, 0});
    script.end = RecordReader::Step::closed;
  } else if (what % 8 == 5) {
    append(script, out, static_cast<std::uint8_t>(RecordType::handshake), Bytes(input.byte(), 4));
    script.end = RecordReader::Step::failed;
  } else {
    append(script, out, static_cast<std::uint8_t>(RecordType::application_data), Bytes(input.byte(), 9));
    // The type or the tag: a damaged length would only make the reader wait.
    script.wire[script.wire.size() - 1 - input.byte() % (kRecordOverhead - kRecordHeader)] ^= 1;
    script.end = RecordReader::Step::failed;
  }
}

void run(Input input) {
  RecordKeys out = keys();
  Script script;
  // Fewer in a row than a reader bears without content.
  for (int records = 0; records < 30 && !input.empty() && script.end == RecordReader::Step::more; ++records)
    add_record(script, out, input);
  RecordReader reader(keys());
  ByteView wire = script.wire;
  Bytes got;
  for (;;) {
    Bytes into(1 + input.size_to(40000));
    std::size_t size = 0;
    const auto step = reader.next(into, size);
    if (step == RecordReader::Step::bytes) {
      CHECK(size > 0 && size <= into.size());
      got.insert(got.end(), into.begin(), into.begin() + static_cast<std::ptrdiff_t>(size));
      CHECK(got.size() <= script.content.size());
      continue;
    }
    if (step != RecordReader::Step::more || wire.empty()) {
      CHECK(step == script.end);
      break;
    }
    const MutableByteView room = reader.room();
    CHECK(!room.empty());
    const std::size_t taken = std::min({wire.size(), room.size(), 1 + input.size_to(20000)});
    copy_bytes(wire.first(taken), room.data());
    reader.filled(taken);
    wire = wire.subspan(taken);
  }
  CHECK(equal(got, script.content));
}

}  // namespace
}  // namespace cumulus::wire

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cumulus;
  using namespace cumulus::wire;
  run(Input({data, size}));
  // And as raw bytes.
  RecordReader reader(keys());
  const MutableByteView room = reader.room();
  const std::size_t taken = std::min(size, room.size());
  copy_bytes({data, taken}, room.data());
  reader.filled(taken);
  Bytes into(100);
  std::size_t got = 0;
  CHECK(reader.next(into, got) != RecordReader::Step::bytes);
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds();
std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  return {{0, 0, 10, 0, 0, 63, 255, 9, 2, 200, 0, 1, 1, 0, 4},
          {2, 0, 0, 63, 255, 0, 3, 1, 7, 5, 12},
          {0, 1, 0, 0, 6, 20, 3},
          {23, 3, 3, 0, 20, 1, 2, 3}};
}
