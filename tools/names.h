// Names as people give and see them: what the commands can carry, and what a terminal can show. Requests and
// answers are JSON, which is UTF-8 (RFC 8259 §8.1): a name that is not is refused, never changed. Pure; any
// thread.
#pragma once

#include <string>
#include <string_view>

#include "objectstore/base/result.h"

namespace cumulus {

// Well-formed by table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing beyond
// U+10FFFF.
bool is_utf8(std::string_view text);
// invalid, with the text and what to do.
Status check_utf8(std::string_view text);
// In one line and harmless to a terminal: control characters and bytes that are not
// UTF-8 as \xNN, all else as it is: for people, not to be read back.
std::string printable(std::string_view text);

}  // namespace cumulus
