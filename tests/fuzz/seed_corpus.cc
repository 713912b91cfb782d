// Gives libFuzzer what the smoke run has: before it reads its corpus, the target's own well-formed inputs are
// written into the corpus folder that the command line names. Without them it would look for signed
// structures from nothing.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

// Each target defines it: well-formed inputs to start from.
std::vector<std::vector<std::uint8_t>> fuzz_seeds();

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  for (int i = 1; i < *argc; ++i) {
    const std::filesystem::path folder = (*argv)[i];
    if ((*argv)[i][0] == '-' || !std::filesystem::is_directory(folder)) continue;
    int number = 0;
    for (const auto& seed : fuzz_seeds()) {
      std::ofstream file(folder / ("seed-" + std::to_string(number++)), std::ios::binary);
      file.write(reinterpret_cast<const char*>(seed.data()), static_cast<std::streamsize>(seed.size()));
      if (file.flush()) continue;
      std::fprintf(stderr, "%s: a seed cannot be written\n", folder.c_str());
      std::exit(1);
    }
    break;  // the first folder is the one that libFuzzer adds to
  }
  return 0;
}
