// Durability: what "done" means, one enum for all floors. Pure.
#pragma once

#include <cstdint>

namespace cumulus {

enum class Durability : std::uint8_t {
  accepted,  // readable; survives nothing by itself; to wait for it is to wait until its group is written
             // to the log (at most 50 ms later by itself), and then it survives the process
  local,     // the log was fdatasync'd past it: survives power loss of this machine
  remote,    // the tail record accepted by a quorum of holders covers it: survives the loss of this machine
};

}  // namespace cumulus
