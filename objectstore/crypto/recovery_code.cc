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

int value_of(char symbol) {
  char upper = symbol >= 'a' && symbol <= 'z' ? static_cast<char>(symbol - 'a' + 'A') : symbol;
  if (upper == 'O') upper = '0';
  if (upper == 'I' || upper == 'L') upper = '1';
  const auto at = kAlphabet.find(upper);
  return at == std::string_view::npos ? -1 : static_cast<int>(at);
}

}  // namespace

std::string encode_recovery_code(const SecretKey& master) {
  std::array<std::uint8_t, 32 + kCheckBytes> bits;
  std::copy(master.view().begin(), master.view().end(), bits.begin());
  const Digest check = checksum(master.view());
  std::copy_n(check.begin(), kCheckBytes, bits.begin() + 32);
  std::string text(kBeginning);
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
  std::string symbols;
  for (const char c : text)
    if (c != '-' && c != ' ' && c != '\t' && c != '\n' && c != '\r') symbols.push_back(c);
  for (std::size_t i = 0; i < kBeginning.size(); ++i) {
    const char lower = i < symbols.size() && symbols[i] >= 'A' && symbols[i] <= 'Z'
                           ? static_cast<char>(symbols[i] - 'A' + 'a')
                       : i < symbols.size() ? symbols[i]
                                            : '\0';
    if (lower != kBeginning[i])
      return fail(ErrorKind::invalid,
                  "a recovery code begins with 'cumulus1': this is something else, or of a newer version");
  }
  symbols.erase(0, kBeginning.size());
  for (std::size_t i = 0; i < symbols.size(); ++i)
    if (value_of(symbols[i]) < 0)
      return fail(ErrorKind::invalid,
                  format("the recovery code has a '{}' in group {}: it uses digits and letters without U",
                         symbols[i], i / 5 + 1));
  if (symbols.size() != kSymbols)
    return fail(
        ErrorKind::invalid,
        format(
            "the recovery code has {} symbols after 'cumulus1', not {}: one or more are missing or too many",
            symbols.size(), kSymbols));
  std::array<std::uint8_t, 32 + kCheckBytes> bits{};
  for (std::size_t i = 0; i < kSymbols; ++i)
    for (std::size_t b = 0; b < 5; ++b)
      if ((value_of(symbols[i]) >> (4 - b) & 1) != 0)
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
                "it with the paper");
  return key;
}

}  // namespace cumulus
