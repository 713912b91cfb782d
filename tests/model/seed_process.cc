#include "tests/model/seed_process.h"

#include <cstdio>
#include <cstdlib>
#include <sys/wait.h>
#include <unistd.h>

namespace cumulus {

std::uint64_t number_of(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

SeedOutcome run_in_child(const std::function<SeedOutcome()>& story) {
  int ends[2];
  if (pipe(ends) != 0) return {"no pipe", {}};
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    dup2(ends[1], STDERR_FILENO);  // what a failed CHECK says
    const SeedOutcome outcome = story();
    std::FILE* out = fdopen(ends[1], "w");
    for (const std::uint64_t count : outcome.counts)
      std::fprintf(out, "%llu ", static_cast<unsigned long long>(count));
    std::fprintf(out, "\n%s", outcome.failure.c_str());
    std::fclose(out);
    std::fflush(stdout);
    _exit(outcome.failure.empty() ? 0 : 1);
  }
  close(ends[1]);
  std::string said;
  char piece[4096];
  for (ssize_t got = 0; (got = read(ends[0], piece, sizeof piece)) > 0;)
    said.append(piece, static_cast<std::size_t>(got));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  SeedOutcome outcome;
  if (status != 0) outcome.failure = said.empty() ? "the program died" : said;
  for (const char* at = said.c_str();;) {
    char* end = nullptr;
    const std::uint64_t count = std::strtoull(at, &end, 10);
    if (end == at || *end != ' ') return outcome;
    outcome.counts.push_back(count);
    at = end + 1;
  }
}

}  // namespace cumulus
