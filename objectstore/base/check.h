// CHECK: an assertion that stays on in release builds. A failed one prints where and what, and aborts: on a
// data path stopping is the only safe answer to "this cannot happen". Never use it for input that somebody
// else chose.
#pragma once

namespace cumulus {
[[noreturn]] void check_failed(const char* expression, const char* file, int line);
}  // namespace cumulus

#define CHECK(expression) \
  ((expression) ? static_cast<void>(0) : ::cumulus::check_failed(#expression, __FILE__, __LINE__))
