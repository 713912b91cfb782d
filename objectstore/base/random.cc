#include "objectstore/base/random.h"

#include <cerrno>
#include <sys/random.h>

#include "objectstore/base/check.h"

namespace cumulus {

void SystemRandom::fill(MutableByteView into) {
  while (!into.empty()) {
    const ssize_t got = getrandom(into.data(), into.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    CHECK(got > 0);
    into = into.subspan(static_cast<std::size_t>(got));
  }
}

}  // namespace cumulus
