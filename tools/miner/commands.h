// The commands of cumulus-miner: each is a Task that prints its result and returns the exit code. Reactor
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "objectstore/io/file.h"
#include "objectstore/io/reactor.h"

namespace cumulus::miner_commands {

inline constexpr std::string_view kProgram = "cumulus-miner";

struct Init {
  std::string directory;
  std::uint64_t capacity = 0;
  std::string domain;
  std::string listen;
  bool json = false;
};
struct Run {
  std::string directory;
  std::string listen;
  std::string metrics;
  bool open = false;
  std::uint64_t quota_per_volume = 0;
};
struct Allow {
  std::string directory;
  std::string volume;
  std::uint64_t quota = 0;
  bool revoke = false;
};
struct Status {
  std::string directory;
  bool json = false;
};
struct Corrupt {
  std::string directory;
  std::uint64_t slices = 0;  // 0: all
  std::optional<std::uint64_t> seed;
};

Task<int> init(Reactor& reactor, FileSystem& files, Init arguments);
Task<int> run(Reactor& reactor, FileSystem& files, Run arguments);
Task<int> allow(Reactor& reactor, FileSystem& files, Allow arguments);
Task<int> status(Reactor& reactor, FileSystem& files, Status arguments);
Task<int> scrub(Reactor& reactor, FileSystem& files, std::string directory);
Task<int> drain(Reactor& reactor, FileSystem& files, std::string directory, bool undo);
// For devnet and tests; help does not list it.
Task<int> corrupt(Reactor& reactor, FileSystem& files, Corrupt arguments);

// "127.0.0.1:9000", "[::1]:9000". invalid otherwise.
Result<std::pair<std::string, std::uint16_t>> parse_endpoint(std::string_view text);
// The `[[miner]]` block for miners.toml.
std::string miner_block(std::string_view address, const std::string& identity, std::string_view domain,
                        std::uint64_t capacity);

}  // namespace cumulus::miner_commands
