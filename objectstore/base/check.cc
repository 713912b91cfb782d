#include "objectstore/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace cumulus {

void check_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "cumulus: internal check failed: %s (%s:%d); stopping to keep the data safe\n",
               expression, file, line);
  std::fflush(stderr);
  std::abort();
}

}  // namespace cumulus
