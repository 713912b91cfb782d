#include "tools/error_line.h"

#include <cstdio>
#include <fcntl.h>
#include <string>
#include <unistd.h>

namespace cumulus {

void keep_standard_streams() {
  // The wrong way round: using it goes on failing.
  int next = 0;
  do {
    next = ::open("/dev/null", ::fcntl(STDIN_FILENO, F_GETFD) < 0 ? O_WRONLY : O_RDONLY);
  } while (next >= 0 && next <= STDERR_FILENO);
  if (next >= 0) ::close(next);
}

int print_error(std::string_view program, const Error& error) {
  std::string line = (program.empty() ? "" : std::string(program) + ": ") + error.message();
  for (char& letter : line) {
    if (letter == '\n' || letter == '\r') letter = ' ';
  }
  std::fprintf(stderr, "%s\n", line.c_str());
  return kExitFailed;
}

}  // namespace cumulus
