// Tally: how often each fault and each branch was hit, over many seeds. Names are declared once, so that a
// branch that no seed ever took shows as a zero. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace cumulus {

class Tally {
 public:
  void declare(const std::string& name) { counts_.try_emplace(name, 0); }
  void add(const std::string& name, std::uint64_t amount = 1) { counts_[name] += amount; }
  void add(const Tally& other) {
    for (const auto& [name, amount] : other.counts_) counts_[name] += amount;
  }
  const std::map<std::string, std::uint64_t>& counts() const { return counts_; }

 private:
  std::map<std::string, std::uint64_t> counts_;
};

}  // namespace cumulus
