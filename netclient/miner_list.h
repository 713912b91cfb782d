// miners.toml: the owner's list of miners, read and written.
//
//   [[miner]]
//   address  = "miner.example.org:7300"
//   identity = "64 hex digits"        the miner's public key, as `cumulus-miner init` prints it
//   domain   = "rack-1"               optional: miners in one domain may fail together; default: the host
//   capacity = "100G"                 optional; or a number of bytes
//   weight   = 1.0                    optional
//
// Plain ASCII, except in lines that begin with '#'. Pure but for load_miner_list(), which blocks. The only
// toml++ include is in the .cc.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "objectstore/slice_transport.h"

namespace cumulus {

// invalid, naming `origin`, the line and what is wrong with it.
Result<std::vector<MinerEntry>> parse_miner_list(std::string_view text, std::string_view origin);
// A list that parses back to the same entries.
std::string print_miner_list(const std::vector<MinerEntry>& miners);
Result<std::vector<MinerEntry>> load_miner_list(const std::string& path);

// "100G" = 100 * 2^30; K, M, G, T, P, or none for bytes.
Result<std::uint64_t> parse_capacity(std::string_view text);

}  // namespace cumulus
