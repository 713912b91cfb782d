#include "objectstore/crypto/recovery_code.h"

#include <algorithm>

#include "objectstore/base/format.h"
#include "objectstore/crypto/digest.h"

namespace cumulus {
namespace {

constexpr std::string_view kAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
constexpr std::string_view kBeginning = "cumulus1";
constexpr std::size_t kSymbols = 59;    // 295 bits
constexpr std::size_t kCheckBytes = 5;  // of which 39 bits are spelt

Digest checksum(ByteView key) {
  Sha256 hash;
  hash.update(view_of("cumulus recovery code v1"));
  hash.update(key);
  return hash.finish();
}

// As people read symbols: case apart, O for 0, I and L for 1.
char fold(char symbol) {
  const char upper = symbol >= 'a' && symbol <= 'z' ? static_cast<char>(symbol - 'a' + 'A') : symbol;
  if (upper == 'O') return '0';
  return upper == 'I' || upper == 'L' ? '1' : upper;
}

int value_of(char symbol) {
  const auto at = kAlphabet.find(symbol);
  return at == std::string_view::npos ? -1 : static_cast<int>(at);
}

bool is_separator(char c) { return c == '-' || c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// What was typed after "cumulus1", folded; wiped when it goes.
struct Symbols {
  std::array<std::uint8_t, kSymbols> values{};
  std::size_t count = 0;  // may exceed kSymbols: the rest was not kept
  ~Symbols() { wipe(values); }
};

Status read_symbols(std::string_view text, Symbols& symbols) {
  std::size_t beginning = 0;
  std::size_t group = 0;  // as the person sees them: separated by dashes or spaces
  bool between = true;
  for (const char c : text) {
    if (is_separator(c)) {
      between = true;
      continue;
    }
    if (beginning < kBeginning.size()) {
      if (fold(c) != fold(kBeginning[beginning++]))
        return fail(ErrorKind::invalid,
                    "a recovery code begins with 'cumulus1': this is something else, or of a newer version");
      between = true;
      continue;
    }
    if (between) ++group;
    between = false;
    const int value = value_of(fold(c));
    if (value < 0) {
      const bool printable = c > ' ' && c < 0x7F;
      return fail(ErrorKind::invalid,
                  format("the recovery code has {} in group {}: it uses digits and the letters without U",
                         printable ? format("a '{}'", c) : "an unknown sign", group));
    }
    if (symbols.count < kSymbols) symbols.values[symbols.count] = static_cast<std::uint8_t>(value);
    ++symbols.count;
  }
  if (beginning < kBeginning.size())
    return fail(ErrorKind::invalid, "a recovery code begins with 'cumulus1': this is too short");
  if (symbols.count != kSymbols)
    return fail(ErrorKind::invalid,
                format("the recovery code has {} symbols after 'cumulus1' instead of {}: {}", symbols.count,
                       kSymbols, symbols.count < kSymbols ? "some are missing" : "there are too many"));
  return {};
}

}  // namespace

std::string encode_recovery_code(const SecretKey& master) {
  std::array<std::uint8_t, 32 + kCheckBytes> bits;
  std::copy(master.view().begin(), master.view().end(), bits.begin());
  const Digest check = checksum(master.view());
  std::copy_n(check.begin(), kCheckBytes, bits.begin() + 32);
  std::string text(kBeginning);
  text.reserve(kBeginning.size() + kSymbols + kSymbols / 5 + 1);
  for (std::size_t i = 0; i < kSymbols; ++i) {
    if (i % 5 == 0) text.push_back('-');
    unsigned symbol = 0;
    for (std::size_t bit = i * 5; bit < i * 5 + 5; ++bit)
      symbol = symbol << 1 | (bits[bit / 8] >> (7 - bit % 8) & 1);
    text.push_back(kAlphabet[symbol]);
  }
  wipe(bits);
  return text;
}

Result<SecretKey> decode_recovery_code(std::string_view text) {
  Symbols symbols;
  TRY_OK(read_symbols(text, symbols));
  std::array<std::uint8_t, 32 + kCheckBytes> bits{};
  for (std::size_t i = 0; i < kSymbols; ++i)
    for (std::size_t b = 0; b < 5; ++b)
      if ((symbols.values[i] >> (4 - b) & 1) != 0)
        bits[(i * 5 + b) / 8] |= static_cast<std::uint8_t>(0x80 >> (i * 5 + b) % 8);
  SecretKey key;
  std::copy_n(bits.begin(), 32, key.view().begin());
  const Digest check = checksum(key.view());
  bool right = true;
  for (std::size_t bit = 0; bit < kSymbols * 5 - 256; ++bit)
    right = right && ((check[bit / 8] ^ bits[32 + bit / 8]) >> (7 - bit % 8) & 1) == 0;
  wipe(bits);
  if (!right)
    return fail(ErrorKind::invalid,
                "the recovery code's checksum is wrong: some symbol is mistyped or two are swapped; compare "
                "it with the paper, group by group");
  return key;
}

}  // namespace cumulus
