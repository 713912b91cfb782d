// The machine that a bench runs on, in one line: model, cores, the processor's features that ciphers, hashes
// and codes use, kernel, load. processes.py prints the same for the benches in Python.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <sys/utsname.h>
#include <unistd.h>

namespace cumulus {

inline void print_machine() {
  std::ifstream cpus("/proc/cpuinfo");
  std::string model;
  std::string flags;
  for (std::string line; std::getline(cpus, line) && flags.empty();) {
    const auto colon = line.find(": ");
    if (colon == std::string::npos) continue;
    if (line.starts_with("model name")) model = line.substr(colon + 2);
    if (line.starts_with("flags")) flags = line.substr(colon + 1) + " ";
  }
  std::string known;
  for (const char* flag : {"aes", "vaes", "vpclmulqdq", "gfni", "sha_ni", "avx2", "avx512f"})
    known +=
        std::string(flags.find(std::string(" ") + flag + " ") == std::string::npos ? ", no " : ", ") + flag;
  utsname system{};
  ::uname(&system);
  double load = 0;
  if (::getloadavg(&load, 1) != 1) load = -1;
  std::printf("machine: %s, %ld cores%s; Linux %s; load %.1f\n", model.c_str(),
              ::sysconf(_SC_NPROCESSORS_ONLN), known.c_str(), system.release, load);
  std::fflush(stdout);
}

}  // namespace cumulus
