#include "tools/names.h"

#include <cstdint>

#include "objectstore/base/format.h"

namespace cumulus {
namespace {

// The bytes of the character that `text` begins with; 0 when that is none.
std::size_t character_size(std::string_view text) {
  const auto byte = [text](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t first = byte(0);
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;
  const std::size_t size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if (text.size() < size) return 0;
  const std::uint8_t lowest = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const std::uint8_t highest = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < lowest || byte(1) > highest) return 0;
  for (std::size_t i = 2; i < size; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  return size;
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t size = character_size(text);
    if (size == 0) return false;
    text.remove_prefix(size);
  }
  return true;
}

Status check_utf8(std::string_view text) {
  if (is_utf8(text)) return {};
  return fail(ErrorKind::invalid,
              format("'{}' is not UTF-8, and names and paths must be: give it another", printable(text)));
}

std::string printable(std::string_view text) {
  std::string shown;
  while (!text.empty()) {
    const auto first = static_cast<std::uint8_t>(text[0]);
    const std::size_t size = character_size(text);
    // C1 controls too: a terminal may take U+009B as the beginning of a command.
    const bool control = first < 0x20 || first == 0x7F ||
                         (first == 0xC2 && size == 2 && static_cast<std::uint8_t>(text[1]) < 0xA0);
    const std::size_t taken = size == 0 ? 1 : size;
    for (const char c : text.substr(0, taken)) {
      if (control || size == 0)
        shown += format("\\x{:02x}", static_cast<unsigned char>(c));
      else
        shown += c;
    }
    text.remove_prefix(taken);
  }
  return shown;
}

}  // namespace cumulus
