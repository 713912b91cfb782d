// SHA-256 (FIPS 180-4): of one message, of a message in parts, and of many equal leaves at once
// (multi-buffer: two or more lanes a core). Pure; any thread.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "objectstore/base/bytes.h"

namespace cumulus {

Digest sha256(ByteView bytes);

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void update(ByteView bytes);
  Digest finish();  // once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// SHA-256 of each `leaf_size` bytes of `data`, the last leaf as long as what is left; no leaves for no data.
std::vector<Digest> sha256_leaves(ByteView data, std::size_t leaf_size);
// The same into `digests`, one for each leaf (checked). `data` and `digests` do not overlap.
void sha256_leaves(ByteView data, std::size_t leaf_size, std::span<Digest> digests);

}  // namespace cumulus
