#include "tools/error_line.h"

#include <cstdio>
#include <string>

namespace cumulus {

int print_error(std::string_view program, const Error& error) {
  std::string line = (program.empty() ? "" : std::string(program) + ": ") + error.message();
  for (char& letter : line) {
    if (letter == '\n' || letter == '\r') letter = ' ';
  }
  std::fprintf(stderr, "%s\n", line.c_str());
  return kExitFailed;
}

}  // namespace cumulus
