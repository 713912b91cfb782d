// Index rows, stored segments and catalogue rows from bytes: never a crash; what is accepted says the same
// when written again, and laying it over itself changes nothing.
#include "objectstore/base/check.h"
#include "objectstore/index/catalogue.h"
#include "objectstore/index/rows.h"
#include "objectstore/key_space.h"

namespace {
template <class Row>
void same_again(cumulus::ByteView bytes) {
  const auto row = Row::decode(bytes);
  if (!row) return;
  const auto again = Row::decode(row->encode());
  CHECK(again && *again == *row);
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cumulus;
  if (size == 0) return 0;
  const ByteView bytes(data + 1, size - 1);
  switch (data[0] % 6) {
    case 0: {
      const auto row = ChunkRow::decode(bytes);
      if (!row) break;
      const auto again = ChunkRow::decode(row->encode());
      CHECK(again && *again == *row);
      ChunkRow twice = *row;
      twice.put_all(*row);
      ChunkRow joined;
      joined.put_all(*row);
      CHECK(twice.covers(0, 1) == joined.covers(0, 1));
      break;
    }
    case 1:
      same_again<HeaderRow>(bytes);
      break;
    case 2:
      same_again<ValueRow>(bytes);
      break;
    case 3: {
      const auto placed = decode_placed(bytes);
      if (placed) CHECK(decode_placed(encode_placed(*placed)) == *placed);
      break;
    }
    case 4: {
      ParsedKey key;
      const std::string text(text_of(bytes));
      if (parse_key(text, key) && key.kind != RowKind::chunk) unescape_subkey(key.subkey);
      break;
    }
    default: {
      Catalogue catalogue;
      const Status loaded = catalogue.load({catalogue_dataset_key(3), Bytes(bytes.begin(), bytes.end())});
      if (!loaded) break;
      const RowUpdate row = catalogue.dataset_row(3);
      Catalogue again;
      CHECK(again.load({row.key, row.value}));
      CHECK(again.dataset_row(3).value == row.value);
    }
  }
  return 0;
}

std::vector<std::vector<std::uint8_t>> fuzz_seeds() {
  using namespace cumulus;
  std::vector<std::vector<std::uint8_t>> seeds;
  const auto add = [&](std::uint8_t which, Bytes row) {
    row.insert(row.begin(), which);
    seeds.push_back(std::move(row));
  };
  ChunkRow row;
  row.put({.offset = 0, .length = 4096, .kind = Piece::Kind::zero});
  Piece data{.offset = 8192, .length = 512, .kind = Piece::Kind::data, .skip = 16, .run = {}};
  data.run = {{SegmentKind::log, 1, 300}, 4096, 4096, 12, 0, 77};
  row.put(data);
  add(0, row.encode());
  add(1, HeaderRow{false, 4711, {1, 2, 3}}.encode());
  add(2, ValueRow{false, {1, 2, 3}}.encode());
  change::Placed placed;
  placed.segment = {SegmentKind::log, 1, 5};
  placed.k = 2;
  placed.m = 1;
  placed.miners.resize(3);
  add(3, encode_placed(placed));
  const std::string key = with_version(omap_prefix(2, 5, view_of(std::string_view("a\0b", 3))), 7);
  add(4, Bytes(key.begin(), key.end()));
  Catalogue catalogue;
  std::set<DatasetId> changed;
  std::set<DatasetId> counted;
  change::CreateDataset create;
  create.id = 3;
  create.name = "photos";
  CHECK(catalogue.apply(create, changed, counted));
  CHECK(catalogue.apply(change::CreateSnapshot{3, "monday", 9}, changed, counted));
  CHECK(catalogue.apply(change::SetQuota{3, 1, 100, 10}, changed, counted));
  add(5, catalogue.dataset_row(3).value);
  return seeds;
}
